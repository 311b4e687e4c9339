"""Faust over a log: the transports behind ``faust.App(broker=URL("amqp://…"))`` and ``URL("sqlite:///…")``.

| Faust                 | here                                                                     |
| topic                 | a reading of the app's one log                                           |
| TP (topic, partition) | (topic, 0)                                                               |
| message               | a message of the log, or with ``Batches`` all that came since the last   |
| offset                | the offset in the log (``x-stream-offset``)                              |
| timestamp             | when the message arrived, where its producer said so                     |
| headers               | ``content-type``, ``x-eventsink-id``, ``x-eventsink-received``           |
| seek                  | read again from that offset                                              |
| commit                | nothing: a stream keeps no positions, whoever needs some saves his own   |

Where a topic begins is in the URL (``?start=``, see ``topology.following``), or is said by ``LogTransport.begin``.
Whoever keeps positions of another kind gives each topic a source of its own (``LogTransport.use``).

Faust finds these classes by the entry-point group ``faust.transports``. Hand it ``yarl.URL`` objects:
it splits strings at ``,`` and ``;`` and reads ``sqlite:/x`` as Kafka.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from faust.exceptions import ImproperlyConfigured
from faust.transport.base import Transport
from faust.transport.consumer import Consumer
from faust.types import TP, ConsumerMessage
from yarl import URL

from topology.errors import SettingsError
from topology.feeds import Batches, BatchFeed, Feed, MessageFeed, Record, Source
from topology.following import Following, read_start
from topology.log import Log, LogStart
from topology.producing import LogProducer
from topology.sqlite import log as sqlite_log
from topology.sqlite.file import Database
from topology.sqlite.log import SqliteLog

#: These are services of Faust's, and log with its others.
logger = logging.getLogger("faust.transport.log")

__all__ = [
    "AmqpTransport",
    "Batches",
    "LogConsumer",
    "LogProducer",
    "LogTransport",
    "Source",
    "SqliteTransport",
]

EXCHANGE = "clowder.metrics"
QUEUE = "eventsink.log"
#: What we read of the URL; all else is aio-pika's.
OURS = ("exchange", "queue", "start", "password_file")


class _Unread(dict[TP, int | None]):
    """Faust remembers what it read of each topic and drops what is not beyond it. Feeds give each message once and
    in order, and begin again after a seek or with a new log: so there is nothing to remember."""

    def __missing__(self, tp: TP) -> None:
        return None

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        """Forgotten."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Forgotten."""


class _FedMessage(ConsumerMessage):
    """Knows which feed it came from, and tells it when agents are done with it."""

    feed: Feed
    _acked = False

    @property
    def acked(self) -> bool:
        """Whether all agents are done with it. Faust sets it, in compiled code that calls nothing else of ours."""
        return self._acked

    @acked.setter
    def acked(self, done: bool) -> None:
        self._acked = done
        if done:
            self.feed.dealt_with(self.offset)


class LogConsumer(Consumer):
    """Every topic is assigned to this process, with one partition, as soon as it is subscribed to.

    Outages of the broker end nothing: reading waits, and goes on after the last message that was handed out. The
    app crashes with a ``SettingsError`` where the broker can never be used so (a refused login, a queue that is no
    stream), and with ``ImproperlyConfigured`` where it uses what only Kafka has.
    """

    transport: LogTransport
    logger = logger

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._feeds: dict[TP, Feed] = {}
        self._running: dict[TP, asyncio.Future[None]] = {}
        #: Assigned as well, and nothing comes of them: Faust's own, for ``on_leader`` of one process.
        self._silent: set[TP] = set()
        self._arrived = asyncio.Event()
        self._generation = 0
        self._read_offset = _Unread()
        #: Nothing is handed out between a subscription and the resuming of the streams, which empties them.
        self._held = False

    async def on_start(self) -> None:
        """Faust's start of a service."""
        if self.app.tables:
            raise ImproperlyConfigured(
                f"the app has tables ({', '.join(self.app.tables)}), and those need Kafka's changelog topics: keep "
                "state in a database of your own, with the offset beside it"
            )
        await self.transport.open()

    async def on_shutdown(self) -> None:
        """Faust's end of a service."""
        await self.transport.close()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Take the topics. Returns before they are assigned: the conductor waits for this call first.

        Faust empties its streams when topics come or go while the app runs: what lay in them is read again.
        """
        self._held = True
        assigned = {TP(topic, 0) for topic in topics}
        self._generation += 1
        self.app.on_rebalance_start()
        self.app.consumer_generation_id = self._generation
        self.add_future(self._assign(assigned, self._generation))

    async def _assign(self, assigned: set[TP], generation: int) -> None:
        for tp in assigned - self._feeds.keys():
            if tp.topic in self.randomly_assigned_topics:
                self._silent.add(tp)
            else:
                self._feed(tp)
        await self.on_partitions_assigned(assigned, generation)

    def _feed(self, tp: TP, start: int | None = None) -> None:
        source = self.transport.source(tp.topic)
        if source is not None:
            feed = Feed(source, self._arrived)
        else:
            kind = BatchFeed if self._by_batches(tp.topic) else MessageFeed
            feed = kind(self.transport.following(tp.topic, start).batches, self._arrived)
        self._feeds[tp] = feed
        self._running[tp] = self.add_future(self._run(feed))

    def _by_batches(self, topic: str) -> bool:
        kinds = {isinstance(each.schema, Batches) for each in self.app.topics if topic in each.topics}
        if len(kinds) > 1:
            raise ImproperlyConfigured(
                f"the topic {topic!r} is read both by messages and by batches: give one of them another name"
            )
        return True in kinds

    async def _run(self, feed: Feed) -> None:
        try:
            await feed.run()
        except Exception as error:  # noqa: BLE001 - Faust's way to stop the application with the reason
            await self.crash(error)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """What came. Nothing that was read before a seek."""
        async for tp, message in super().getmany(timeout):
            if not self._held and cast(_FedMessage, message).feed is self._feeds.get(tp):
                yield tp, message

    def resume_flow(self) -> None:
        """Hand out again."""
        super().resume_flow()
        self._held = False
        self._arrived.set()

    def on_buffer_drop(self, tp: TP) -> None:
        """An agent has room again."""
        super().on_buffer_drop(tp)
        self._arrived.set()

    async def _wait_next_records(self, timeout: float) -> tuple[Mapping[TP, Any] | None, set[TP] | None]:
        active = self._get_active_partitions()
        if active or self.app.client_only or not self.flow_active:
            return await super()._wait_next_records(timeout)
        # No agent has room. Faust would sleep for a second here, however soon one has.
        self._arrived.clear()
        await self.wait_first(self._arrived.wait(), timeout=timeout)
        return {}, active

    async def _getmany(
        self, active_partitions: set[TP] | None, timeout: float
    ) -> Mapping[TP, list[tuple[Feed, Record]]]:
        wanted = self._feeds.keys() if active_partitions is None else active_partitions
        self._arrived.clear()
        records = self._taken(wanted)
        if not records:
            await self.wait_first(self._arrived.wait(), timeout=timeout)
            records = self._taken(wanted)
        return records

    def _taken(self, wanted: Iterable[TP]) -> dict[TP, list[tuple[Feed, Record]]]:
        records: dict[TP, list[tuple[Feed, Record]]] = {}
        if self._held:
            return records
        for tp in wanted:
            feed = self._feeds.get(tp)
            if feed is not None and (taken := feed.take()):
                records[tp] = [(feed, record) for record in taken]
        return records

    def _to_message(self, tp: TP, record: tuple[Feed, Record]) -> ConsumerMessage:
        feed, came = record
        message = _FedMessage(
            tp.topic,
            tp.partition,
            came.offset,
            timestamp=came.timestamp,
            timestamp_type=0,
            headers=came.headers,
            key=None,
            value=cast(Any, came.value),  # bytes, or a batch, which the topic's schema knows
            checksum=None,
            tp=tp,
            # Without it the stream drops the message in silence.
            generation_id=self.app.consumer_generation_id,
        )
        message.feed = feed
        return message

    async def _seek(self, partition: TP, offset: int) -> None:
        """Read the topic again from ``offset``, or from the first that is left if that was cut off. Messages that
        are in the app's streams already still come. Nothing for a topic with a source of its own."""
        if self.transport.source(partition.topic) is not None or partition in self._silent:
            return
        running = self._running.pop(partition, None)
        if running is not None:
            running.cancel()
        self._feed(partition, offset)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """As ``seek``, several at once."""
        for tp, offset in partitions.items():
            await self.seek(tp, offset)

    # -- what Kafka keeps and a log does not --

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return True

    def _new_offset(self, tp: TP) -> int | None:
        # Offsets of a log have gaps, which Faust would wait to see filled.
        acked, self._acked[tp] = self._acked[tp], []
        self._acked_index[tp].clear()
        return max(acked) + 1 if acked else None

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Nothing is committed: topics begin where the transport says, and begin again at the first message that an
        agent is not done with."""
        for tp, feed in list(self._feeds.items()):
            if feed.unfinished is not None and not self.app.should_stop:
                await self._seek(tp, feed.unfinished)
        return {}

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics need no declaration: they are readings of the log, which ``open`` declared."""

    def assignment(self) -> set[TP]:
        """Every topic that was subscribed to."""
        return self._feeds.keys() | self._silent

    def highwater(self, tp: TP) -> int:
        """Unknown without asking the broker; ``highwaters`` does."""
        return 0

    def topic_partitions(self, topic: str) -> int | None:
        """One."""
        return 1

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """The lowest offset that the log still has."""
        return dict.fromkeys(partitions, await self.transport.log.first_offset() or 0)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The offset that the next message will get."""
        return dict.fromkeys(partitions, await self.transport.log.end_offset())

    async def position(self, tp: TP) -> int | None:
        """Positions are those who read's."""
        return None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int:
        """There is one partition."""
        return 0


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
        self._begins: dict[str, int] = {}

    def use(self, log: Log, sources: Mapping[str, Source]) -> None:
        """Read an open log that somebody else closes, each topic by its own source. Before the app starts."""
        self._log = log
        self._sources = dict(sources)

    def begin(self, topic: str, offset: int) -> None:
        """Read the topic from this offset on, whatever the URL says: one after the last that was dealt with. Before
        the app starts; later there is ``app.consumer.seek(TP(topic, 0), offset)``."""
        self._begins[topic] = offset

    @property
    def log(self) -> Log:
        """The log that this transport reads and appends to."""
        if self._log is None:
            self._log = self.make_log(self.url[0].without_query_params("start"))
            self._owned = True
        return self._log

    @property
    def start(self) -> LogStart | int:
        """Where topics begin: ``?start=`` of the URL, else the first message. Raises ``SettingsError``."""
        return read_start(self.url[0].query.get("start", "first"))

    def make_log(self, url: URL) -> Log:
        """The log that the URL names."""
        raise NotImplementedError

    async def open(self) -> None:
        """Open the log if it is ours; consumer and producer each call it. Raises ``Unavailable`` or
        ``SettingsError``: at the start a broker is not waited for."""
        self._users += 1
        _ = self.start
        log = self.log
        if self._users == 1 and self._owned:
            await log.open()

    async def close(self) -> None:
        """Close the log, if it is ours, with its last user."""
        self._users -= 1
        if self._users == 0 and self._owned:
            await self.log.close()

    def source(self, topic: str) -> Source | None:
        """Where the values of a topic come from, None if from the log."""
        return self._sources.get(topic)

    def following(self, topic: str, offset: int | None = None) -> Following:
        """The topic's reading of the log, from ``offset`` or from where the topic begins."""
        start = self._begins.get(topic, self.start) if offset is None else offset
        return Following(self.log, start)


class AmqpTransport(LogTransport):
    """``amqp://`` and ``amqps://``: the stream queue ``eventsink.log`` on the exchange
    ``clowder.metrics``, or those named by ``?exchange=`` and ``?queue=``. Both are declared where they are missing.
    Needs RabbitMQ 3.9 or later. Faust's banner prints the URL: ``?password_file=`` keeps the password out of it."""

    def make_log(self, url: URL) -> Log:
        """The log on RabbitMQ."""
        # Here, so that the embedded log does not load the AMQP client.
        from topology.rabbitmq.log import RabbitLog

        if file := url.query.get("password_file"):
            try:
                url = url.with_password(Path(file).read_text(encoding="utf-8").rstrip("\r\n"))
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(
                    f"the file of the broker's password cannot be read: {file} ({error})"
                ) from None
        return RabbitLog(
            url.without_query_params(*OURS),
            url.query.get("exchange", EXCHANGE),
            url.query.get("queue", QUEUE),
        )


class SqliteTransport(LogTransport):
    """``sqlite:///ABSOLUTE/PATH``: the embedded log."""

    def make_log(self, url: URL) -> Log:
        """The log in that file."""
        return SqliteLog(Database(Path(url.path), schema=sqlite_log.SCHEMA))
