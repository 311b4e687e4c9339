"""Faust over a log: the transports behind ``faust.App(broker=URL("amqp://…"))`` and ``URL("sqlite:///…")``.

| Faust                 | here                                                              |
| topic                 | a group's reading of the log                                      |
| TP (topic, partition) | (group, 0)                                                        |
| message value         | a micro-batch: what came since the last fetch, up to a limit      |
| offset                | the number of the batch; a group knows itself where it is         |
| commit                | nothing to do: a group saves its own checkpoints                  |

By default the value of a message is a tuple of ``topology.log.Message``, read from the first one.
Whoever keeps positions gives each topic a source of its own (``LogTransport.sources``).

Faust finds these classes by the entry-point group ``faust.transports``. Hand it ``yarl.URL`` objects:
it splits strings at ``,`` and ``;`` and reads ``sqlite:/x`` as Kafka.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from faust.transport.base import Transport
from faust.transport.consumer import Consumer
from faust.transport.producer import Producer
from faust.types import TP, ConsumerMessage, RecordMetadata
from yarl import URL

from topology import sqlite_log
from topology.log import JSON, Log, LogReplaced, Outgoing
from topology.sqlite import Database
from topology.sqlite_log import SqliteLog
from topology.uuid7 import uuid7

#: A source yields the values of one topic without end; it is asked for the next only when there is room.
Source = Callable[[], AsyncIterator[object]]

#: These are services of Faust's, and log with its others.
logger = logging.getLogger("faust.transport.log")

EXCHANGE = "clowder.metrics"
QUEUE = "eventsink.log"

MOST_MESSAGES = 2000
MOST_BYTES = 1 << 20
FETCH_TIMEOUT = timedelta(seconds=1)


class _Feed:
    """Pulls one topic's source ahead of Faust, by one value, in a task of its own: topics do not wait for
    each other."""

    def __init__(self, source: Source, arrived: asyncio.Event) -> None:
        self._source = source
        self._arrived = arrived
        self._queue: asyncio.Queue[object] = asyncio.Queue(1)
        self._number = 0

    async def run(self) -> None:
        async for value in self._source():
            await self._queue.put(value)
            self._arrived.set()

    def take(self) -> tuple[int, object] | None:
        if self._queue.empty():
            return None
        self._number += 1
        return self._number, self._queue.get_nowait()


class LogConsumer(Consumer):
    """Every topic is assigned to this process, with one partition, as soon as it is subscribed to."""

    transport: LogTransport
    logger = logger

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._feeds: dict[TP, _Feed] = {}
        self._arrived = asyncio.Event()
        self._generation = 0

    async def on_start(self) -> None:
        await self.transport.open()

    async def on_shutdown(self) -> None:
        await self.transport.close()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Take the topics. Returns before they are assigned: the conductor waits for this call first."""
        assigned = {TP(topic, 0) for topic in topics}
        self._generation += 1
        self.app.on_rebalance_start()
        self.app.consumer_generation_id = self._generation
        self.add_future(self._assign(assigned, self._generation))

    async def _assign(self, assigned: set[TP], generation: int) -> None:
        for tp in assigned - self._feeds.keys():
            feed = self._feeds[tp] = _Feed(self.transport.source(tp.topic), self._arrived)
            self.add_future(self._run(feed))
        await self.on_partitions_assigned(assigned, generation)

    async def _run(self, feed: _Feed) -> None:
        try:
            await feed.run()
        except Exception as error:  # noqa: BLE001 - Faust's way to stop the application with the reason
            await self.crash(error)

    async def _getmany(
        self, active_partitions: set[TP] | None, timeout: float
    ) -> Mapping[TP, list[tuple[int, object]]]:
        wanted = self._feeds.keys() if active_partitions is None else active_partitions
        self._arrived.clear()
        records = self._taken(wanted)
        if not records:
            await self.wait_first(self._arrived.wait(), timeout=timeout)
            records = self._taken(wanted)
        return records

    def _taken(self, wanted: Iterable[TP]) -> dict[TP, list[tuple[int, object]]]:
        records = {}
        for tp in wanted:
            feed = self._feeds.get(tp)
            if feed is not None and (record := feed.take()) is not None:
                records[tp] = [record]
        return records

    def _to_message(self, tp: TP, record: tuple[int, object]) -> ConsumerMessage:
        number, value = record
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            number,
            timestamp=time.time(),
            timestamp_type=0,
            headers=None,
            key=None,
            value=cast(Any, value),  # a batch, which the topic's schema knows
            checksum=None,
            tp=tp,
            # Without it the stream drops the message in silence.
            generation_id=self.app.consumer_generation_id,
        )

    # -- what Kafka keeps and a log does not --

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return True

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return {}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Positions are the sources' own."""

    async def _seek(self, partition: TP, offset: int) -> None:
        """Positions are the sources' own."""

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics need no declaration: they are readings of the log, which ``open`` declared."""

    def assignment(self) -> set[TP]:
        return set(self._feeds)

    def highwater(self, tp: TP) -> int:
        return 0

    def topic_partitions(self, topic: str) -> int | None:
        return 1

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 0)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 0)

    async def position(self, tp: TP) -> int | None:
        return None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int:
        return 0


class LogProducer(Producer):
    """Appends to the log, whatever the topic: topics are readings of it."""

    transport: LogTransport
    logger = logger

    async def on_start(self) -> None:
        await super().on_start()
        await self.transport.open()

    async def on_shutdown(self) -> None:
        await self.transport.close()

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: object,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Append one message; durable when this returns."""
        now_ms = int(time.time() * 1000)
        message = Outgoing(value or b"", JSON, str(uuid7(now_ms)), now_ms)
        await self.transport.log.publish([message])
        tp = TP(topic, 0)
        return RecordMetadata(topic, 0, tp, -1, now_ms / 1000, 0)

    async def send(self, *args: Any, **kwargs: Any) -> Awaitable[RecordMetadata]:
        """Append; the returned future is done when the message is durable."""
        return asyncio.ensure_future(self.send_and_wait(*args, **kwargs))

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics need no declaration: they are readings of the log, which ``open`` declared."""

    def key_partition(self, topic: str, key: bytes) -> TP:
        return TP(topic, 0)


class LogTransport(Transport):
    """Base of both. ``log`` is made from the URL unless one is handed in with ``use``."""

    Consumer = LogConsumer
    Producer = LogProducer
    driver_version = f"aiormq={version('aiormq')}"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._log: Log | None = None
        self._owned = False
        self._users = 0
        self._sources: dict[str, Source] = {}

    def use(self, log: Log, sources: Mapping[str, Source]) -> None:
        """Read an open log that somebody else closes, each topic by its own source. Before the app starts."""
        self._log = log
        self._sources = dict(sources)

    @property
    def log(self) -> Log:
        """The log that this transport reads and appends to."""
        if self._log is None:
            self._log = self.make_log(self.url[0])
            self._owned = True
        return self._log

    def make_log(self, url: URL) -> Log:
        """The log that the URL names."""
        raise NotImplementedError

    async def open(self) -> None:
        """Open the log if it is ours; consumer and producer each call it."""
        self._users += 1
        log = self.log
        if self._users == 1 and self._owned:
            await log.open()

    async def close(self) -> None:
        """Close the log, if it is ours, with its last user."""
        self._users -= 1
        if self._users == 0 and self._owned:
            await self.log.close()

    def source(self, topic: str) -> Source:
        """Where the values of a topic come from."""
        return self._sources.get(topic, self._whole_log)

    async def _whole_log(self) -> AsyncIterator[object]:
        offset = 0
        while True:
            reader = await self.log.reader(offset)
            try:
                while True:
                    messages = await reader.fetch(
                        limit=MOST_MESSAGES, max_bytes=MOST_BYTES, timeout=FETCH_TIMEOUT
                    )
                    if messages:
                        offset = messages[-1].offset + 1
                        yield tuple(messages)
            except LogReplaced:
                continue
            finally:
                await reader.close()


class AmqpTransport(LogTransport):
    """``amqp://`` and ``amqps://``: the stream queue ``eventsink.log`` on the exchange
    ``clowder.metrics``, or those named by ``?exchange=`` and ``?queue=``."""

    def make_log(self, url: URL) -> Log:
        # Here, so that the embedded log does not load the AMQP client.
        from topology.rabbitmq_log import RabbitLog

        return RabbitLog(
            url.without_query_params("exchange", "queue"),
            url.query.get("exchange", EXCHANGE),
            url.query.get("queue", QUEUE),
        )


class SqliteTransport(LogTransport):
    """``sqlite:///ABSOLUTE/PATH``: the embedded log."""

    def make_log(self, url: URL) -> Log:
        return SqliteLog(Database(Path(url.path), schema=sqlite_log.SCHEMA))
