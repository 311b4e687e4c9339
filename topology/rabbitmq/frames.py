"""The way of deliveries from the socket, past aiormq: three frames each, found by scanning what the socket gave.

aiormq reads every frame by two awaits, decodes it whole, and makes a task of each delivery: 60 to 110 µs. Here a
connection has a reader of its own, by way of aiormq's public ``TransportFactory``. It takes the deliveries of the
channels that were asked for and passes every other frame on, unchanged and in order: so heartbeats, TLS,
authentication, closing and errors stay aiormq's.

A frame (AMQP 0-9-1, section 4.2.3) is type, channel, size, that many bytes, 0xCE. A delivery is a ``basic.deliver``
method, a content header with the size of the body, and as many body frames as it takes.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, TypeAlias

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

log = logging.getLogger(__name__)

METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = 0xCE
PREFIX = struct.Struct(">BHI")
PREFIX_BYTES = PREFIX.size
#: Prefix and end: what a frame has beside its payload.
AROUND_BYTES = PREFIX_BYTES + 1
HEARTBEAT = PREFIX.pack(8, 0, 0) + bytes([FRAME_END])
#: A broker of another version answers with this instead of frames.
PROTOCOL_HEADER = b"AMQP"

#: Class and method, as one number.
CHANNEL_CLOSE = 20 << 16 | 40
CHANNEL_CLOSE_OK = 20 << 16 | 41
RETURN = 60 << 16 | 50
DELIVER = 60 << 16 | 60
ACK = 60 << 16 | 80
NACK = 60 << 16 | 120
TUNE = 10 << 16 | 30
BLOCKED = 10 << 16 | 60
UNBLOCKED = 10 << 16 | 61

#: What RabbitMQ proposes to every client. Nobody is let agree on more, or on "no limit" (0): memory has one.
LARGEST_FRAME_BYTES = 131_072
#: RabbitMQ puts its own headers to those of a producer, in types of its choice, and does not look whether the frame
#: still fits: one that was filled to the brim comes back larger than agreed.
LARGEST_HEADER_FRAMES = 4
#: No broker takes a larger message (https://www.rabbitmq.com/docs/configure, ``max_message_size``).
LARGEST_BODY_BYTES = 512 << 20
#: Class, weight, size of the body, flags.
SHORTEST_HEADER_BYTES = 14

#: Seconds. aiormq takes a connection for dead when it sees no frame for three heartbeats, and a broker sends none
#: while it sends deliveries, which aiormq does not see: so it is shown one of our own.
SIGN_OF_LIFE_EVERY_S = 1.0

_unpack_prefix = PREFIX.unpack_from
_unpack_long = struct.Struct(">I").unpack_from
_unpack_long_long = struct.Struct(">Q").unpack_from
_unpack_confirm = struct.Struct(">QB").unpack_from
_LONG = struct.Struct(">I")


class FrameError(ConnectionError):
    """What the other side sends is not AMQP, or breaks what was agreed."""


class Delivery(NamedTuple):
    """``tag``: to acknowledge it by. ``header``: the content header's payload, for ``rabbitmq_messages``."""

    tag: int
    header: bytes
    body: bytes


class Answer(Enum):
    """What a broker says of published messages."""

    CONFIRMED = auto()
    REFUSED = auto()
    #: It was routed to no queue. It is confirmed all the same, afterwards.
    RETURNED = auto()
    #: Nothing more: the broker closes the channel. aiormq agrees to that soon, and what is written on the channel
    #: after it costs the whole connection.
    CLOSED = auto()


class Confirm(NamedTuple):
    """``answer`` for the message ``tag``, with ``multiple`` also for all before it. Return and end name none."""

    answer: Answer
    tag: int
    multiple: bool


Receive: TypeAlias = Callable[[Sequence[Delivery]], None]
ReceiveConfirms: TypeAlias = Callable[[Sequence[Confirm]], None]

_A_RETURN = Confirm(Answer.RETURNED, 0, multiple=False)
_THE_END = Confirm(Answer.CLOSED, 0, multiple=False)


class _Channel:
    """A channel whose deliveries, or answers to what is published, are taken: those that came, and the content
    that is on its way."""

    __slots__ = ("came", "closed", "header", "left", "parts", "publishing", "receive", "tag")

    def __init__(self, receive: Callable[[Any], None], *, publishing: bool) -> None:
        self.receive = receive
        self.publishing = publishing
        #: The broker sends nothing more on it.
        self.closed = False
        self.came: list[Any] = []
        #: Of the delivery on its way, 0 of a return; None between them.
        self.tag: int | None = None
        self.header: bytes | None = None
        self.left = 0
        #: One piece of memory, so that even frames of a few bytes each take no more than the body does.
        self.parts = bytearray()


class FrameScanner:
    """Takes deliveries out of a stream of bytes and passes everything else on, frame by frame, unchanged and in
    order. Holds at most one frame, and the body that is being put together on each channel taken.

    Two exceptions: it shows a heartbeat now and then where it took all that came, and a broker's offer of larger
    frames than ``LARGEST_FRAME_BYTES`` is passed on as one of that size, which aiormq then agrees on.
    """

    def __init__(
        self, pass_on: Callable[[bytes], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._pass_on = pass_on
        self._monotonic = monotonic
        self._channels: dict[int, _Channel] = {}
        self._pieces: list[bytes] = []
        self._held = 0
        #: So many bytes make it worth looking again.
        self._needed = PREFIX_BYTES
        self._largest = LARGEST_FRAME_BYTES - AROUND_BYTES
        self._started = False
        self._refused = False
        self._shown_at = -SIGN_OF_LIFE_EVERY_S
        #: Why the broker takes no more publishing on this connection (``connection.blocked``); None while it does.
        self.blocked: str | None = None
        self.unblocked = asyncio.Event()
        self.unblocked.set()

    def take(self, channel: int, receive: Receive) -> None:
        """Hand what is delivered on ``channel`` to ``receive``, in order, once for each piece of the stream. To be
        called before consuming; replaces who took the channel before."""
        self._channels[channel] = _Channel(receive, publishing=False)

    def take_confirms(self, channel: int, receive: ReceiveConfirms) -> None:
        """Likewise the broker's answers to what is published on ``channel``."""
        self._channels[channel] = _Channel(receive, publishing=True)

    def leave(self, channel: int, receive: Receive | ReceiveConfirms) -> None:
        """``receive`` is called no more. What still comes for it goes nowhere, until the channel's end: aiormq does not
        read a channel that was left before its end, and after some frames would read nothing else any more."""
        taken = self._channels.get(channel)
        if taken is not None and taken.receive == receive:
            taken.came = []
            taken.receive = _nobody
            if taken.closed:
                del self._channels[channel]

    def feed(self, data: bytes) -> None:
        """The next piece of the stream, however cut. Raises ``FrameError``, and is of no further use then; what was
        delivered before it is handed over first."""
        if self._refused:
            self._pass_on(data)
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return
        if len(self._pieces) > 1:
            data = b"".join(self._pieces)
        if not self._started:
            if data.startswith(PROTOCOL_HEADER):
                self._refused = True
                self._pass_on(data)  # aiormq says what to think of it, and ends the connection
                self._pieces, self._held = [], 0
                return
            self._started = True
        touched: list[_Channel] = []
        try:
            rest = self._scan(data, touched)
        finally:
            for taken in touched:
                came, taken.came = taken.came, []
                if came:
                    taken.receive(came)
        self._pieces = [data[rest:]] if rest < len(data) else []
        self._held = len(data) - rest

    def _scan(self, data: bytes, touched: list[_Channel]) -> int:
        """Go through all whole frames; returns where the first one begins that is not whole."""
        end = len(data)
        at = unseen = 0  # frames from ``unseen`` to ``at`` are to be passed on in one piece
        channels = self._channels
        swallowed = False
        while True:
            if end - at < PREFIX_BYTES:
                self._needed = PREFIX_BYTES
                break
            kind, number, size = _unpack_prefix(data, at)
            if size > self._largest and (kind != HEADER or size > self._largest * LARGEST_HEADER_FRAMES):
                raise FrameError(f"a frame of {size} bytes came, at most {self._largest} were agreed upon")
            following = at + AROUND_BYTES + size
            if following > end:
                self._needed = following - at
                break
            if data[following - 1] != FRAME_END:
                raise FrameError("a frame does not end where it should")
            taken = channels.get(number)
            if taken is not None:
                if self._taken(taken, kind, data, at + PREFIX_BYTES, following - 1):
                    if unseen < at:
                        self._pass_on(data[unseen:at])
                    unseen = following
                    swallowed = True
                elif taken.closed and taken.receive is _nobody:
                    del channels[number]
                if taken.came and (not touched or touched[-1] is not taken) and taken not in touched:
                    touched.append(taken)
            elif number == 0 and kind == METHOD:
                instead = self._overhear(data, at, following)
                if instead is not None:
                    self._pass_on(data[unseen:at] + instead)
                    unseen = following
            at = following
        if unseen < at:
            self._pass_on(data[unseen:at])
        elif swallowed and self._monotonic() - self._shown_at >= SIGN_OF_LIFE_EVERY_S:
            self._shown_at = self._monotonic()
            self._pass_on(HEARTBEAT)
        return at

    def _taken(self, taken: _Channel, kind: int, data: bytes, start: int, end: int) -> bool:
        """Whether the frame with this payload belongs to a delivery, and was added to it."""
        if kind == BODY:
            if taken.header is None:
                return False  # of a message that came back or was asked for: aiormq knows
            part = data[start:end]
            taken.left -= len(part)
            if taken.left > 0:
                taken.parts += part
                return True
            if taken.left < 0:
                raise FrameError("a body is longer than its header says")
            if taken.parts:
                taken.parts += part
                part = bytes(taken.parts)
                taken.parts = bytearray()
            self._complete(taken, part)
            return True
        if kind == HEADER:
            if taken.tag is None:
                return False
            if taken.header is not None or end - start < SHORTEST_HEADER_BYTES:
                raise FrameError("a content header came that fits nothing before it")
            taken.header = data[start:end]
            (taken.left,) = _unpack_long_long(data, start + 4)
            if taken.left > LARGEST_BODY_BYTES:
                raise FrameError(f"a body of {taken.left} bytes was announced")
            if taken.left == 0:
                self._complete(taken, b"")
            return True
        if taken.tag is not None:
            raise FrameError("a delivery breaks off")
        if kind != METHOD or end - start < 4:
            return False
        (method,) = _unpack_long(data, start)
        if method in {CHANNEL_CLOSE, CHANNEL_CLOSE_OK}:
            taken.closed = True
            if taken.publishing and method == CHANNEL_CLOSE:
                taken.came.append(_THE_END)
            return False
        if taken.publishing:
            return self._answered(taken, method, data, start + 4, end)
        if method != DELIVER:
            return False
        if end - start < 5:
            raise FrameError("a delivery has no tag")
        behind_consumer = start + 5 + data[start + 4]
        if behind_consumer + 8 > end:
            raise FrameError("a delivery has no tag")
        (taken.tag,) = _unpack_long_long(data, behind_consumer)
        return True

    @staticmethod
    def _answered(taken: _Channel, method: int, data: bytes, start: int, end: int) -> bool:
        if method == RETURN:
            taken.tag = 0  # the whole message follows
            return True
        if method not in {ACK, NACK}:
            return False
        if start + 9 > end:
            raise FrameError("a confirm has no tag")
        tag, bits = _unpack_confirm(data, start)
        answer = Answer.CONFIRMED if method == ACK else Answer.REFUSED
        taken.came.append(Confirm(answer, tag, multiple=bool(bits & 1)))
        return True

    @staticmethod
    def _complete(taken: _Channel, body: bytes) -> None:
        if taken.publishing:
            taken.came.append(_A_RETURN)
        elif taken.tag is not None and taken.header is not None:
            taken.came.append(Delivery(taken.tag, taken.header, body))
        taken.tag = taken.header = None

    def _overhear(self, data: bytes, at: int, following: int) -> bytes | None:
        """What aiormq is told and does not tell. The frame that it is to be told instead, if any."""
        start = at + PREFIX_BYTES
        size = following - 1 - start
        if size < 4:
            return None
        (method,) = _unpack_long(data, start)
        if method == TUNE and size >= 10:
            (offered,) = _unpack_long(data, start + 6)
            agreed = min(offered, LARGEST_FRAME_BYTES) or LARGEST_FRAME_BYTES
            self._largest = agreed - AROUND_BYTES
            if agreed != offered:
                return data[at : start + 6] + _LONG.pack(agreed) + data[start + 10 : following]
        elif method == BLOCKED and size >= 5:
            reason = data[start + 5 : start + 5 + data[start + 4]]
            self.blocked = reason.decode(errors="replace")
            self.unblocked.clear()
        elif method == UNBLOCKED:
            self.blocked = None
            self.unblocked.set()
        return None


def _nobody(came: Sequence[Any]) -> None:
    """Of a channel that was left."""


class ScannedTransport(TransportFactory):
    """The transport of one connection, plain or TLS, with a scanner between socket and aiormq."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader | None = None
        self._socket: asyncio.Transport | None = None
        self.scanner = FrameScanner(self._pass_on)

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As aiormq's own two factories. Raises ``AMQPConnectionError``."""
        context = kwargs.pop("ssl_context_provider")
        if url.host is None or url.port is None:
            raise AMQPConnectionError("the URL names no host")
        loop = asyncio.get_running_loop()
        self._reader = reader = asyncio.StreamReader(loop=loop)
        protocol = _ScannedProtocol(reader, self.scanner, loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol,
                url.host,
                url.port,
                ssl=await context.get_context() if url.scheme == "amqps" else None,
                **kwargs,
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self._socket = transport
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def abort(self) -> None:
        """Give the socket up, with what was not sent yet."""
        if self._socket is not None:
            self._socket.abort()

    def _pass_on(self, data: bytes) -> None:
        if self._reader is not None:
            self._reader.feed_data(data)


class _ScannedProtocol(asyncio.StreamReaderProtocol):
    def __init__(
        self, reader: asyncio.StreamReader, scanner: FrameScanner, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(reader, loop=loop)
        self._reader = reader
        self._scanner = scanner
        self._transport_of_ours: asyncio.BaseTransport | None = None
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport_of_ours = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._scanner.feed(data)
        except FrameError as error:
            self._over = True
            log.error("data at risk: the broker's connection is ended, what came is not AMQP: %s", error)
            self._reader.set_exception(error)  # aiormq takes it for a lost connection, which it is
            if isinstance(self._transport_of_ours, asyncio.Transport):
                self._transport_of_ours.abort()
