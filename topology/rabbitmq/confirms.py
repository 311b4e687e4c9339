"""A channel for publishing: mandatory, persistent, confirmed, many messages on their way at once.

aiormq makes two futures and a task of each message; here a piece of many messages is one write, and the connection's
scanner takes the broker's answers.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from itertools import takewhile
from typing import Any, cast

import aiormq
from aio_pika.abc import AbstractChannel
from aiormq.abc import ChannelFrame

from topology.log import Outgoing
from topology.rabbitmq.connection import Connection, closed
from topology.rabbitmq.frames import (
    AROUND_BYTES,
    BODY,
    FRAME_END,
    HEADER,
    METHOD,
    PREFIX,
    Answer,
    Confirm,
    FrameScanner,
)
from topology.rabbitmq.messages import content_header

PUBLISH = struct.Struct(">HHH").pack(60, 40, 0)
NO_ROUTING_KEY = b"\0"
MANDATORY = b"\x01"
#: Of one write: enough that its cost vanishes, little enough that a blocked connection holds little.
WRITE_MESSAGES = 200
WRITE_BYTES = 1 << 20

_FRAME_END = bytes([FRAME_END])


class Outcome(Enum):
    """What became of a message that was handed to the broker."""

    CONFIRMED = auto()
    REFUSED = auto()
    #: The exchange had no queue for it, or for one that was on its way beside it.
    UNROUTABLE = auto()
    #: The channel ended first: it may be in the log or not.
    UNCERTAIN = auto()


class _Batch:
    """The messages of one call, and what became of them."""

    def __init__(self, size: int) -> None:
        self.outcomes: list[Outcome] = [Outcome.UNCERTAIN] * size
        self.left = size
        self.done = asyncio.get_running_loop().create_future()

    def settle(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class ConfirmChannel:
    """Publishes to ``exchange``; at most ``outstanding`` messages wait for their confirms at once."""

    def __init__(self, exchange: str, outstanding: int, progressed: Callable[[], None]) -> None:
        """``progressed`` is called whenever confirms came."""
        name = exchange.encode()
        self._method = PUBLISH + bytes([len(name)]) + name + NO_ROUTING_KEY + MANDATORY
        self._outstanding = outstanding
        self._progressed = progressed
        #: The one that it was opened on.
        self.connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._plain: aiormq.Channel | None = None
        #: By delivery tag, ascending.
        self._waiting: dict[int, tuple[_Batch, int]] = {}
        self._returned: set[int] = set()
        self._tag = 0
        self._writing = asyncio.Lock()
        #: A write that aiormq's queue had no room for when its caller was cancelled.
        self._queued: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        #: The broker closes it: nothing more may be written, and aiormq tells the end soon.
        self._closing = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Why it ended.
        self.error: BaseException | None = None
        #: Messages confirmed in the life of this channel.
        self.confirmed = 0

    @property
    def in_flight(self) -> int:
        """Messages that may be in the log and are not confirmed yet."""
        return len(self._waiting)

    @property
    def is_open(self) -> bool:
        """Whether publishing makes sense."""
        return self._plain is not None and not self._ended.done() and not self._plain.is_closed

    async def open(self, connection: Connection) -> None:
        """Raises what aio-pika raises."""
        channel = self._channel = connection.channel(publisher_confirms=True)
        await channel.initialize()
        # aio-pika gives no other; its type says less than it is.
        plain = self._plain = cast(aiormq.Channel, await channel.get_underlay_channel())
        self.connection = connection
        connection.scanner.take_confirms(plain.number, self._on_confirms)
        channel.close_callbacks.add(self._on_end)
        connection.close_callbacks.add(self._on_end)

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Outcome]:
        """What became of each, once that is known of all or the channel has ended."""
        batch = _Batch(len(messages))
        at = 0
        while at < len(messages):
            async with self._writing:
                room = await self._until_room()
                if self._ended.done():
                    return batch.outcomes
                at = await self._write(batch, messages, at, room)
        if batch.left:
            await self._or_ended(batch.done)
        return batch.outcomes

    async def close(self) -> None:
        """Raises nothing; idempotent."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await closed(channel.close())
        self._end(None)

    async def _until_room(self) -> int:
        """How many messages may be written; 0 when the channel has ended."""
        if self._queued is not None:
            # Tags are counted by the order of writes, so nothing may overtake it.
            await self._or_ended(self._queued)
            self._queued = None
        while not self._ended.done():
            if self._closing:
                await asyncio.wait({self._ended})
                continue
            if self.connection is not None and self.connection.scanner.blocked is not None:
                # What is written now is taken some time, whatever its caller was told meanwhile.
                await self._until_unblocked(self.connection.scanner)
                continue
            room = self._outstanding - len(self._waiting)
            if room > 0:
                return room
            self._room.clear()
            await self._room.wait()
        return 0

    async def _write(self, batch: _Batch, messages: Sequence[Outgoing], at: int, room: int) -> int:
        """Write as many as there is room for, in one piece, and wait until the socket takes more. Returns how many
        of ``messages`` are written then."""
        if self._plain is None:
            raise RuntimeError("the channel was not opened")
        frames: list[bytes] = []
        size = count = 0
        for message in messages[at : at + min(room, WRITE_MESSAGES)]:
            frames += self._frames(message, self._plain)
            count += 1
            size += len(message.body)
            if size > WRITE_BYTES:
                break
        for _ in range(count):  # not before all of them are known to be writable: the broker counts with us
            self._tag += 1
            self._waiting[self._tag] = (batch, at)
            at += 1
        drained = asyncio.get_running_loop().create_future()
        frame = ChannelFrame(payload=b"".join(frames), should_close=False, drain_future=drained)
        try:
            self._plain.write_queue.put_nowait(frame)
        except asyncio.QueueFull:
            self._queued = asyncio.ensure_future(self._plain.write_queue.put(frame))
            await self._or_ended(self._queued)
            self._queued = None
        await self._or_ended(drained)
        return at

    async def _until_unblocked(self, scanner: FrameScanner) -> None:
        unblocked = asyncio.ensure_future(scanner.unblocked.wait())
        try:
            waited_for: set[asyncio.Future[Any]] = {unblocked, self._ended}
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        finally:
            unblocked.cancel()

    def _frames(self, message: Outgoing, plain: aiormq.Channel) -> Iterator[bytes]:
        number = plain.number
        for kind, payload in ((METHOD, self._method), (HEADER, content_header(message))):
            yield PREFIX.pack(kind, number, len(payload)) + payload + _FRAME_END
        largest = plain.connection.connection_tune.frame_max - AROUND_BYTES
        for start in range(0, len(message.body), largest):
            part = message.body[start : start + largest]
            yield PREFIX.pack(BODY, number, len(part))
            yield part
            yield _FRAME_END

    async def _or_ended(self, future: asyncio.Future[None]) -> None:
        """Wait for it, or for the channel's end: then aiormq leaves it as it is."""
        await asyncio.wait({future, self._ended}, return_when=asyncio.FIRST_COMPLETED)

    def _on_confirms(self, confirms: Sequence[Confirm]) -> None:
        for answer, tag, multiple in confirms:
            if answer is Answer.CLOSED:
                self._stop_writing()
            elif answer is Answer.RETURNED:
                # It names no tag, and what is on its way beside it goes the same way: all of that counts as
                # returned, and is published again, which the ids make harmless.
                self._returned.update(self._waiting)
            elif multiple:
                for each in list(takewhile(tag.__ge__, self._waiting)):
                    self._settle(each, answer)
            else:
                self._settle(tag, answer)
        self._room.set()
        self._progressed()

    def _stop_writing(self) -> None:
        self._closing = True
        if self._queued is not None:
            self._queued.cancel()

    def _settle(self, tag: int, answer: Answer) -> None:
        waiting = self._waiting.pop(tag, None)
        if waiting is None:
            return
        batch, index = waiting
        if answer is Answer.REFUSED:
            outcome = Outcome.REFUSED
        elif tag in self._returned:
            outcome = Outcome.UNROUTABLE
        else:
            outcome = Outcome.CONFIRMED
            self.confirmed += 1
        self._returned.discard(tag)
        batch.settle(index, outcome)

    def _on_end(self, channel: object, error: BaseException | None) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._ended.done():
            return
        self.error = error
        self._ended.set_result(None)
        self._room.set()
        self._stop_writing()
        if self.connection is not None and self._plain is not None:
            self.connection.close_callbacks.discard(self._on_end)
            self.connection.scanner.leave(self._plain.number, self._on_confirms)
