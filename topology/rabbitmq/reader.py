"""One reading of the stream queue: a consumer on a connection of its own.

Whatever goes wrong (connection lost, channel closed, consumer cancelled because the queue was deleted, silence
although the log goes on) ends the reading in one way: what came is still handed out, the broker is waited for,
then ``LogReplaced`` tells the group to check which log this is and to open a new reader.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from topology.errors import EventsinkError, SettingsError, Unavailable
from topology.log import LogReplaced, Message
from topology.outages import FIRST_DELAY_S, LONGEST_DELAY_S, pause
from topology.rabbitmq.connection import (
    CALL_LIMIT_S,
    Connection,
    LoginRefused,
    end,
    not_a_stream,
    stop,
    unavailable,
)
from topology.rabbitmq.consumer import StreamConsumer
from topology.rabbitmq.declarer import Link
from topology.rabbitmq.frames import Delivery
from topology.rabbitmq.messages import message
from topology.rabbitmq.probes import Probes

log = logging.getLogger(__name__)

#: Seconds between seeing the log's end ahead of us and the verdict that nothing is delivered.
DELIVERY_GRACE_S = 1.0
#: Few acks, so that they cost nothing, and enough that the broker never waits for one.
ACKS_PER_PREFETCH = 8
#: Over about how many messages the size of a body is averaged.
MEAN_OVER = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderLimits:
    """Bounds of one reader: it never holds more than ``prefetch`` messages and ``buffer_bytes`` of bodies, a
    single larger one aside. A stream is as fast as it gets from 100 messages of prefetch on (measured); more make
    larger batches for whoever is slower than the broker, and cost an event less."""

    prefetch: int = 2000
    buffer_bytes: int = 32 << 20
    #: The end can only be reached after so long without a delivery.
    quiet: timedelta = timedelta(seconds=1)
    #: Silence is looked into this often; twice this, and the look itself, stay within 30 s.
    supervise_every: timedelta = timedelta(seconds=8)


#: A message that was not fetched yet, and how to acknowledge it.
_Held: TypeAlias = tuple[Message, StreamConsumer, int]


class RabbitReader:
    """A ``LogReader``. ``open`` it first. After ``LogReplaced`` it is of no further use."""

    def __init__(
        self,
        link: Link,
        offset: int,
        limits: ReaderLimits,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._queue = link.declarer.declaration.queue.name
        self._probes = Probes(link.broker, self._queue)
        self._limits = limits
        self._monotonic = monotonic
        self._connection: Connection | None = None
        self._consumer = StreamConsumer(limits.prefetch, self._receive, self._on_consumer_lost)
        self._next = offset
        self._last: Message | None = None
        self._buffer: deque[_Held] = deque()
        self._buffered_bytes = 0
        self._mean_bytes = 0.0
        self._arrived = asyncio.Event()
        self._came_at = monotonic()
        #: Offsets that did not come. To be looked into: retention may have overtaken us.
        self._gaps: list[range] = []
        self._cut = 0
        #: The buffer is full, and what the broker was still allowed to send goes by unread.
        self._overflown = False
        #: The last message, until a consumer that took over has shown it again.
        self._overlap: Message | None = None
        self._lost: str | None = None
        self._away: EventsinkError | None = None
        self._supervising: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        #: The last message taken and not yet acknowledged, and how many there are.
        self._owed: _Held | None = None
        self._owed_messages = 0
        self._acknowledging: set[asyncio.Task[None]] = set()

    @property
    def held_bytes(self) -> int:
        """Bodies that were delivered and not fetched yet."""
        return self._buffered_bytes

    @property
    def cut(self) -> int:
        """As ``LogReader.cut``; the broker's own notes among them are counted, too."""
        return self._cut

    @property
    def prefetch(self) -> int:
        """How many messages the broker may send ahead of what was fetched, at present."""
        return self._consumer.prefetch

    async def open(self) -> None:
        """Connect and consume. Raises ``Unavailable`` or ``SettingsError``."""
        self._connection = await self._link.broker.connect("reader")
        try:
            self._connection.close_callbacks.add(self._on_connection_lost)
            await self._consume(self._connection, self._next)
        except BaseException:
            await self.close()
            raise
        self._supervising = asyncio.create_task(self._supervise(), name="log reader: supervising")

    async def fetch(self, *, limit: int, max_bytes: int, timeout: timedelta) -> Sequence[Message]:
        """As ``LogReader.fetch``. Also raises ``Unavailable`` when ``timeout`` passes while the broker is
        away, and ``SettingsError`` when the log was declared otherwise meanwhile."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout.total_seconds()
        await self._fit()
        await self._look_into_gap()
        # No message is lost where a fetch is cancelled: nothing is awaited once they are taken.
        while not self._buffer:
            left = max(0.0, deadline - loop.time())
            if self._mending is not None:
                await self._mended(self._mending, left)
                return ()
            if left == 0:
                return ()
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                pass
        return self._taken(limit, max_bytes)

    async def at_end(self) -> bool:
        """As ``LogReader.at_end``.

        Said only when nothing came for a second although the broker may send more, and the last chunk of the
        log begins with a message that came: the rest of it would have come, too. (A queue's message count
        would not do. The broker brings it up to date every five seconds only.)
        """
        reached = self._next
        connection = self._connection
        if connection is None or not self._is_quiet(reached):
            return False
        last_chunk = await self._probes.last_chunk(connection)
        return (last_chunk is None or last_chunk < reached) and self._is_quiet(reached)

    async def close(self) -> None:
        """Stop consuming; idempotent."""
        self._lost = self._lost or "closed"
        await stop(self._supervising, self._mending, *self._acknowledging)
        connection, self._connection = self._connection, None
        if connection is not None:
            await end(connection)

    # -- what comes --

    def _receive(self, consumer: StreamConsumer, deliveries: Sequence[Delivery]) -> None:
        if consumer is not self._consumer:
            return
        self._came_at = self._monotonic()
        for delivery in deliveries:
            if self._lost is not None:
                return
            came = message(delivery)
            if came is None:
                self._lose("its queue is not a stream", not_a_stream(self._link.broker, self._queue))
            elif self._overlap is not None:
                overlap, self._overlap = self._overlap, None
                if came != overlap:
                    self._lose("another log is in its place")
            elif came.offset >= self._next and not self._overflown:
                self._hold(came, consumer, delivery.tag)
        self._arrived.set()

    def _hold(self, came: Message, consumer: StreamConsumer, tag: int) -> None:
        size = len(came.body)
        self._mean_bytes += (size - self._mean_bytes) / MEAN_OVER if self._last is not None else size
        if self._buffer and self._buffered_bytes + size > self._limits.buffer_bytes:
            self._overflown = True
            return
        # One offset between two messages is the broker's own note at the start of a segment.
        if came.offset > self._next + 1 and self._last is not None:
            self._gaps.append(range(self._next, came.offset))
        self._next = came.offset + 1
        self._last = came
        self._buffered_bytes += size
        self._buffer.append((came, consumer, tag))

    def _taken(self, limit: int, max_bytes: int) -> Sequence[Message]:
        buffer = self._buffer
        messages: list[Message] = []
        size = 0
        held = buffer[0]
        while buffer and len(messages) < limit:
            message_bytes = len(buffer[0][0].body)
            if messages and size + message_bytes > max_bytes:
                break
            size += message_bytes
            held = buffer.popleft()
            messages.append(held[0])
        self._buffered_bytes -= size
        self._owed = held
        self._owed_messages += len(messages)
        if self._owed_messages >= held[1].prefetch // ACKS_PER_PREFETCH:
            self._acknowledge()
        return messages

    def _acknowledge(self) -> None:
        """An ack takes nothing out of a stream, it lets the broker send as many more. As it comes after
        taking, the buffer stays within prefetch. Not awaited: see ``fetch``."""
        if self._owed is not None:
            _, consumer, tag = self._owed
            acknowledging = asyncio.create_task(consumer.acknowledge(tag))
            self._acknowledging.add(acknowledging)
            acknowledging.add_done_callback(self._acknowledging.discard)
            self._owed = None
            self._owed_messages = 0

    # -- who delivers --

    async def _fit(self) -> None:
        """Have another consumer take over where the present one was sent more than fits in the buffer, or
        may be sent far less than fits."""
        fitting = self._limits.prefetch
        if self._mean_bytes > 0:
            fitting = max(1, min(fitting, int(self._limits.buffer_bytes / self._mean_bytes)))
        if self._overflown:
            needed = self._buffered_bytes <= self._limits.buffer_bytes // 2
        else:
            needed = fitting >= 4 * self._consumer.prefetch
        if needed and self._lost is None and self._connection is not None:
            await self._take_over(self._connection, fitting)

    async def _take_over(self, connection: Connection, prefetch: int) -> None:
        before = self._consumer
        self._consumer = StreamConsumer(prefetch, self._receive, self._on_consumer_lost)
        try:
            await before.end()
            # It begins one message earlier: by that one we know that it reads the same log.
            self._overlap = self._last
            self._overflown = False
            await self._consume(connection, self._next if self._last is None else self._last.offset)
            async with asyncio.timeout(CALL_LIMIT_S):
                while self._overlap is not None and self._lost is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        except (Unavailable, TimeoutError):
            self._lose("the log did not go on where it was")
        except BaseException:
            self._lose("interrupted")
            raise

    async def _consume(self, connection: Connection, offset: int) -> None:
        with unavailable(self._link.broker, "reading the log"):
            async with asyncio.timeout(CALL_LIMIT_S):
                await self._consumer.begin(connection, self._queue, offset)

    async def _look_into_gap(self) -> None:
        gaps, self._gaps = self._gaps, []
        if not gaps or self._connection is None:
            return
        try:
            first = await self._probes.first(self._connection)
        except EventsinkError:
            return  # reading is about to end, for that reason
        for gap in gaps:
            if first is not None and first > gap.start:
                self._cut += len(gap)
                log.error(
                    "data at risk: messages %d to %d of the log were cut off before they were read; keep the log "
                    "longer, by a policy for its queue (see LogCut in the runbook)",
                    gap.start,
                    gap.stop - 1,
                )

    # -- what goes wrong --

    def _on_consumer_lost(self, consumer: StreamConsumer, reason: str) -> None:
        if consumer is self._consumer:
            self._lose(reason)

    async def _on_connection_lost(self, connection: object, error: BaseException | None) -> None:
        self._lose("the connection was lost")

    def _lose(self, reason: str, fault: SettingsError | None = None) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        log.warning("reading the log ended before message %d, nothing is lost: %s", self._next, reason)
        self._mending = asyncio.create_task(self._mend(fault), name="log reader: mending")
        self._arrived.set()

    async def _mend(self, fault: SettingsError | None) -> None:
        """Wait until the broker and the log on it are there again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await end(connection)
        if fault is not None:
            raise fault
        delay = FIRST_DELAY_S
        while True:
            try:
                await self._link.declare()
            except (Unavailable, LoginRefused) as error:
                self._away = error
                await asyncio.sleep(pause(delay, None))
                delay = min(delay * 2, LONGEST_DELAY_S)
            else:
                return

    async def _mended(self, mending: asyncio.Task[None], timeout_s: float) -> None:
        await asyncio.wait({mending}, timeout=timeout_s)
        if mending.done():
            await mending
            raise LogReplaced(self._lost)
        if self._away is not None:
            raise Unavailable(str(self._away))

    async def _supervise(self) -> None:
        """A consumer can be gone, or forgotten, while its connection looks well: then nothing comes, for ever."""
        every = self._limits.supervise_every.total_seconds()
        while self._lost is None:
            await asyncio.sleep(every)
            # Brokers close a channel on which an ack stays away for half an hour.
            self._acknowledge()
            reached = self._next
            connection = self._connection
            if connection is None or self._buffer or self._monotonic() - self._came_at < every:
                continue
            try:
                last_chunk = await self._probes.last_chunk(connection)
            except EventsinkError as error:
                self._lose(f"it cannot be looked into: {error}")
                return
            if last_chunk is not None and last_chunk >= reached:
                await asyncio.sleep(DELIVERY_GRACE_S)
                if self._next == reached:
                    self._lose(f"nothing was delivered although the log has message {last_chunk}")

    def _is_quiet(self, reached: int) -> bool:
        return (
            self._lost is None
            and self._next == reached
            and not self._buffer
            and not self._overflown
            and self._monotonic() - self._came_at >= self._limits.quiet.total_seconds()
        )
