"""A guard against message properties that pamqp cannot decode.

AMQP's short strings are UTF-8 and its timestamps are years that exist, but a broker checks neither, and one such
message ends aiormq's connection. As a stream keeps it, so it would the next one, and so on: for ever, with
everything behind it unread. The guard puts a header in its place that holds the offset and nothing else;
the message then has a body and no properties.

Checking takes as long as decoding, so only a connection that follows on such an end is guarded.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import Any

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import InvalidFrameError
from pamqp.header import ContentHeader
from yarl import URL

from topology.rabbitmq_messages import OFFSET_HEADER

log = logging.getLogger(__name__)

PREFIX = struct.Struct(">BHI")  # of every frame: type, channel, size
HEADER_FRAME = 2
PROTOCOL_HEADER = b"AMQP"

#: Class, weight and size of the body, which begin a content header; then come flags and properties.
FIXED_BYTES = 12
HEADERS_FLAG = 1 << 13
#: A header as it stands in a table of headers: length and name, type, then eight bytes of number.
OFFSET_ENTRY = bytes([len(OFFSET_HEADER)]) + OFFSET_HEADER.encode() + b"l"

_DECODING = (ValueError, LookupError, ArithmeticError, OSError, struct.error, TypeError)


def is_undecodable(error: BaseException | None) -> bool:
    """Whether a connection ended because of what could not be decoded, not because it was lost."""
    return isinstance(error, InvalidFrameError) or (
        isinstance(error, _DECODING) and not isinstance(error, OSError)
    )


class GuardedTransport(TransportFactory):
    """The usual transport, with the guard between it and aiormq."""

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        usual = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await usual.create(url, **kwargs)
        return GuardedReader(reader), writer


class GuardedReader(asyncio.StreamReader):
    """Gives out what ``inner`` does, header frames in decodable form. Read by whole frames, in any pieces."""

    def __init__(self, inner: asyncio.StreamReader) -> None:
        super().__init__()
        self._inner = inner
        self._frame = b""

    def at_eof(self) -> bool:
        return not self._frame and self._inner.at_eof()

    async def readexactly(self, n: int) -> bytes:
        while len(self._frame) < n:
            self._frame += await self._next_frame()
        taken, self._frame = self._frame[:n], self._frame[n:]
        return taken

    async def read(self, n: int = -1) -> bytes:
        taken, self._frame = self._frame, b""
        return taken + await self._inner.read(n)

    async def _next_frame(self) -> bytes:
        prefix = await self._inner.readexactly(PREFIX.size)
        if prefix.startswith(PROTOCOL_HEADER):
            return prefix  # no frame: a broker of another version refuses with it
        kind, _, size = PREFIX.unpack(prefix)
        payload = await self._inner.readexactly(size)
        if kind == HEADER_FRAME:
            payload = decodable(payload)
        return prefix + payload + await self._inner.readexactly(1)


def decodable(payload: bytes) -> bytes:
    """The content header as it is if it can be decoded; else one of the same length with the offset alone."""
    try:
        ContentHeader().unmarshal(payload)
    except _DECODING as error:
        # The broker puts its offset behind the producer's own headers.
        at = payload.rfind(OFFSET_ENTRY)
        entry = payload[at : at + len(OFFSET_ENTRY) + 8] if at >= 0 else b""
        log.debug("a message has properties that cannot be decoded: %s", error)
        flags = struct.pack(">HI", HEADERS_FLAG, len(entry))
        # pamqp ignores what follows the last property.
        return (payload[:FIXED_BYTES] + flags + entry).ljust(len(payload), b"\0")
    return payload
