"""Looks at the log through consumers that live for a moment, each on a channel of its own.

What makes the answers certain, not a matter of waiting (measured on RabbitMQ 3.10): a stream sends what it
holds for a new consumer before it answers the next call on the same channel. So what did not come before
that answer is not there. All the same, nothing here concludes "empty" from silence alone.

    x-stream-offset    what comes
    n                  message n and on; if n was cut off, the first that is left; if n is beyond the end,
                       nothing until it exists
    "first"            the first that is left and on
    "last"             the last chunk and on; a chunk is what the broker wrote in one go
    a timestamp        the first chunk that was written then or later, and on; if there is none, what is to come
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import aiormq.abc
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from topology.errors import SettingsError, Unavailable
from topology.log import LogStart, Message
from topology.rabbitmq.connection import (
    CALL_LIMIT_S,
    Broker,
    Connection,
    is_missing,
    message_count,
    not_a_stream,
    open_channel,
    unavailable,
)
from topology.rabbitmq.consumer import not_scanned
from topology.rabbitmq.frames import Delivery
from topology.rabbitmq.messages import OFFSET_HEADER, message

#: More than the broker commonly writes in one go, so that one look shows the whole of the last chunk.
LAST_PREFETCH = 1000
#: More than can be on their way while the end is looked for.
LOOKED_BACK_MESSAGES = 5000
#: Seconds that a look which shows nothing lasts beyond the answer described above.
GRACE_S = 0.1
#: Seconds between two looks that must agree before a message counts as not there.
SECOND_LOOK_S = 0.5


class NoQueue(Unavailable):
    """The log's queue was deleted; declare it."""


class Probes:
    """Questions to the stream ``queue``. Each raises ``Unavailable`` where no certain answer is to be had,
    ``NoQueue`` among them, or ``SettingsError`` if the queue is no stream."""

    def __init__(self, broker: Broker, queue: str) -> None:
        self._broker = broker
        self._queue = queue

    async def message_at(self, connection: Connection, offset: int) -> Message | None:
        """The message at exactly this offset; None only if that is certain."""
        found = await self._first_from(connection, offset)
        if found is None:
            # None is taken for the sign of a new log, so it is worth a second look and half a second.
            await asyncio.sleep(SECOND_LOOK_S)
            end = await self.end(connection)
            found = await self._first_from(connection, offset)
            if found is None and end > offset:
                raise Unavailable(f"{self._broker} does not deliver what the log holds: is it starting?")
        return found if found is not None and found.offset == offset else None

    async def first(self, connection: Connection) -> int | None:
        """The lowest offset that is left, None if the log is empty."""
        found = await self._first_from(connection, "first")
        return None if found is None else found.offset

    async def last_chunk(self, connection: Connection) -> int | None:
        """Where the last chunk begins, None if the log is empty: the cheapest look at the log's end."""
        found = await self._first_from(connection, "last")
        return None if found is None else found.offset

    async def end(self, connection: Connection) -> int:
        """The offset that the next message will get."""
        async with self._looking(connection, "last", LAST_PREFETCH) as look:
            while True:
                before = look.count
                await look.round()
                if look.count - before < LAST_PREFETCH:
                    break  # the broker had no more to send
                await look.acknowledge()
            end = look.end
        if end == 0:
            await self._prove_empty(connection)
        return end

    async def holds(self, connection: Connection, event_id: str, *, after: int, end: int) -> bool:
        """Whether a message with this id, published about when the log ended at ``after``, lies before ``end``, or may
        have lain there until retention cut it off. Reads all of that, at a few µs a message."""
        start = max(0, after - LOOKED_BACK_MESSAGES)
        async with self._looking(connection, start, LAST_PREFETCH, event_id) as look:
            while True:
                before = look.count
                await look.round()
                if look.found or look.end >= end:
                    return look.found or (look.first is not None and look.first.offset > after)
                if look.count == before:
                    # Retention may delete the very segment that is to come next.
                    raise Unavailable(f"{self._broker} does not deliver what the log holds: is it starting?")
                await look.acknowledge()

    async def since(self, connection: Connection, start: LogStart) -> int:
        """Where a reading begins that begins at ``start``."""
        end = await self.end(connection)
        if start == "next" or end == 0:
            return end
        found = await self._first_from(connection, start)
        if found is None:
            # Nothing is that young, or the broker is slow: as in ``message_at``.
            await asyncio.sleep(SECOND_LOOK_S)
            found = await self._first_from(connection, start)
        return end if found is None else found.offset

    async def _first_from(self, connection: Connection, where: int | str | datetime) -> Message | None:
        async with self._looking(connection, where, 1) as look:
            await look.round()
            found = look.first
        if found is None and isinstance(where, str):
            await self._prove_empty(connection)
        return found

    async def _prove_empty(self, connection: Connection) -> None:
        with unavailable(self._broker, "counting the log"):
            async with asyncio.timeout(CALL_LIMIT_S):
                count = await message_count(connection, self._queue)
        if count > 0:
            raise Unavailable(f"{self._broker} does not deliver what the log holds: is it starting?")

    @asynccontextmanager
    async def _looking(
        self, connection: Connection, where: int | str | datetime, prefetch: int, wanted: str | None = None
    ) -> AsyncIterator[_Look]:
        with unavailable(self._broker, "looking into the log"):
            try:
                async with asyncio.timeout(CALL_LIMIT_S), _scanned_channel(connection, prefetch) as look:
                    # Before it begins: messages may come together with the answer to that.
                    look.wanted = wanted
                    await look.begin(self._queue, where)
                    yield look
                    if look.strange:
                        raise not_a_stream(self._broker, self._queue)
            except ChannelAccessRefused as error:
                raise SettingsError(
                    f"{self._broker}: the user may not read the queue {self._queue!r}: grant it the permission read"
                ) from error
            except ChannelNotFoundEntity as error:
                if not is_missing(error):
                    raise
                raise NoQueue(f"{self._broker}: the queue {self._queue!r} was deleted") from error


@asynccontextmanager
async def _scanned_channel(connection: Connection, prefetch: int) -> AsyncIterator[_Look]:
    """A look on a channel of its own, scanned until that is closed."""
    look: _Look | None = None
    try:
        async with open_channel(connection, prefetch=prefetch) as channel:
            look = _Look(await channel.get_underlay_channel())
            connection.scanner.take(look.channel_number, look.receive)
            yield look
    finally:
        if look is not None:
            connection.scanner.leave(look.channel_number, look.receive)


class _Look:
    """A consumer that keeps the first message and the end, and lets all else go by."""

    def __init__(self, channel: aiormq.abc.AbstractChannel) -> None:
        self._channel = channel
        self.channel_number = channel.number
        self._came = asyncio.Event()
        self._tag = 0
        self.first: Message | None = None
        self.end = 0
        self.count = 0
        self.strange = False
        #: An id that is looked for, and whether it came.
        self.wanted: str | None = None
        self.found = False

    async def begin(self, queue: str, where: int | str | datetime) -> None:
        await self._channel.basic_consume(queue, not_scanned, arguments={OFFSET_HEADER: where})

    async def round(self) -> None:
        """Returns when everything has come that was there at the call and that prefetch allows."""
        await self._channel.basic_qos(prefetch_count=1)  # of consumers to come: any call would do
        if self.count == 0:
            try:
                async with asyncio.timeout(GRACE_S):
                    await self._came.wait()
            except TimeoutError:
                pass

    async def acknowledge(self) -> None:
        """Ask for more."""
        await self._channel.basic_ack(self._tag, multiple=True, wait=False)

    def receive(self, deliveries: Sequence[Delivery]) -> None:
        """What the scanner hands out."""
        for delivery in deliveries:
            found = message(delivery)
            if found is None:
                self.strange = True
                return
            self.first = self.first or found
            self.end = found.offset + 1
            self.count += 1
            self.found |= self.wanted is not None and found.event_id == self.wanted
            self._tag = delivery.tag
        self._came.set()
