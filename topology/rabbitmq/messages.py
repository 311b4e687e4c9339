"""Messages of the log as AMQP carries them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

from topology.log import ID_HEADER, RECEIVED_HEADER, Message, Outgoing
from topology.position import MAX_OFFSET
from topology.rabbitmq.frames import Delivery

#: Where a stream says which message this is.
OFFSET_HEADER = "x-stream-offset"

PERSISTENT = b"\x02"

#: The end of the year 9999. No arrival is later; a number beyond it is something else.
LATEST_MS = 253_402_300_799_999
#: AMQP's timestamps are seconds; what is larger than this (the year 2106) is taken for milliseconds, as pamqp does.
LATEST_SECOND = 0xFFFF_FFFF

# -- a content header: flags, then each property that they announce, in this order (AMQP 0-9-1, 4.2.6.1) --

FLAGS_AT = 12
CONTENT_TYPE = 1 << 15
CONTENT_ENCODING = 1 << 14
HEADERS = 1 << 13
DELIVERY_MODE = 1 << 12
#: That and priority: a byte each.
OCTETS = (DELIVERY_MODE, 1 << 11)
MESSAGE_ID = 1 << 7
#: Correlation id, reply-to, expiration, message id.
SHORT_STRINGS = (1 << 10, 1 << 9, 1 << 8, MESSAGE_ID)
TIMESTAMP = 1 << 6
MORE_FLAGS = 1
#: Class of the methods that carry messages.
BASIC = 60
LONGEST_SHORT_STRING = 255

# -- a field of a table: name, a letter for the type, value (https://www.rabbitmq.com/amqp-0-9-1-errata) --

LONG_STRING = ord("S")
INTEGERS: Mapping[int, struct.Struct] = {
    ord("b"): struct.Struct(">b"),
    ord("B"): struct.Struct(">B"),
    ord("s"): struct.Struct(">h"),
    ord("u"): struct.Struct(">H"),
    ord("I"): struct.Struct(">i"),
    ord("i"): struct.Struct(">I"),
    ord("l"): struct.Struct(">q"),
    ord("L"): struct.Struct(">q"),
}
#: Bytes of the other types; those that are not here say their size in four bytes.
SIZES: Mapping[int, int] = {
    **{kind: integer.size for kind, integer in INTEGERS.items()},
    ord("t"): 1,
    ord("f"): 4,
    ord("d"): 8,
    ord("D"): 5,
    ord("T"): 8,
    ord("V"): 0,
    0: 0,
}
SIZED = frozenset(b"SAFx")

_OFFSET = OFFSET_HEADER.encode()
_ID = ID_HEADER.encode()
_RECEIVED = RECEIVED_HEADER.encode()
_OFFSET_ENTRY = bytes([len(_OFFSET)]) + _OFFSET + b"l"
#: The whole table of a foreign producer who sets no headers.
_ONLY_OFFSET = struct.pack(">I", len(_OFFSET_ENTRY) + 8) + _OFFSET_ENTRY

_ID_ENTRY = bytes([len(_ID)]) + _ID + b"S"
_RECEIVED_ENTRY = bytes([len(_RECEIVED)]) + _RECEIVED + b"l"

_CONTENT = struct.Struct(">HHQH")
_LONG = struct.Struct(">I")
_LONG_LONG = struct.Struct(">Q")

_short = struct.Struct(">H").unpack_from
_long = _LONG.unpack_from
_signed_long_long = struct.Struct(">q").unpack_from
_long_long = _LONG_LONG.unpack_from


class _Unreadable(Exception):
    """A field of a type that nobody has defined."""


def content_header(message: Outgoing) -> bytes:
    """The payload of the content header under which a message is published: persistent, with our two headers, and
    with id and arrival in AMQP's own properties for other people's consumers, who know no header of ours.

    Raises ``ValueError`` for what AMQP cannot carry: an arrival before 1970, a content type over 255 bytes, text that
    is not Unicode.
    """
    flags = CONTENT_TYPE | HEADERS | DELIVERY_MODE
    table = last = b""
    if message.event_id is not None:
        event_id = message.event_id.encode()
        table = _ID_ENTRY + _LONG.pack(len(event_id)) + event_id
        if len(event_id) <= LONGEST_SHORT_STRING:
            flags |= MESSAGE_ID
            last = bytes([len(event_id)]) + event_id
    if message.received_ms is not None:
        if not 0 <= message.received_ms <= LATEST_MS:
            raise ValueError(f"the arrival {message.received_ms} is not in the years 1970 to 9999")
        flags |= TIMESTAMP
        table += _RECEIVED_ENTRY + _LONG_LONG.pack(message.received_ms)
        last += _LONG_LONG.pack(message.received_ms // 1000)
    content_type = message.content_type.encode()
    if len(content_type) > LONGEST_SHORT_STRING:
        raise ValueError(f"a content type of {len(content_type)} bytes does not fit, 255 do")
    return b"".join(
        (
            _CONTENT.pack(BASIC, 0, len(message.body), flags),
            bytes([len(content_type)]),
            content_type,
            _LONG.pack(len(table)),
            table,
            PERSISTENT,
            last,
        )
    )


def message(delivery: Delivery) -> Message | None:
    """The message of a delivery from a stream; None if it has no offset, so is not from a stream.

    A producer may put anything into headers and properties, and a broker does not look whether short strings are
    UTF-8 and timestamps years that exist: what cannot be read counts as left out. Only what a message needs is read.
    """
    header = delivery.header
    content_type: str | None = None
    offset: int | None = None
    event_id: str | None = None
    received_ms: int | None = None
    readable = False
    try:
        (flags,) = _short(header, FLAGS_AT)
        at = FLAGS_AT + 2
        if flags & MORE_FLAGS:
            at = _behind_flags(header, at)
        if flags & CONTENT_TYPE:
            end = at + 1 + header[at]
            content_type = _content_type(header[at + 1 : end])
            at = end
        if flags & CONTENT_ENCODING:
            at += 1 + header[at]
        if flags & HEADERS:
            (size,) = _long(header, at)
            if header.startswith(_ONLY_OFFSET, at):
                (offset,) = _signed_long_long(header, at + len(_ONLY_OFFSET))
            else:
                offset, event_id, received_ms = _ours(header, at + 4, at + 4 + size)
            at += 4 + size
        readable = True
        if received_ms is None and flags & TIMESTAMP:
            received_ms = _timestamp_ms(header, at, flags)
    except (IndexError, struct.error, _Unreadable):
        pass
    if offset is None and not readable:
        # There is something among the headers that is not known here. What only looks like an offset, in a value
        # of a producer's, is read as one in this case alone.
        offset = _sought_offset(header)
    if offset is None:
        return None
    if not 0 <= offset <= MAX_OFFSET:
        return None
    return Message(offset, delivery.body, content_type, event_id, received_ms)


def _ours(header: bytes, at: int, end: int) -> tuple[int | None, str | None, int | None]:
    """Offset, id and arrival of the table that lies there."""
    offset: int | None = None
    event_id: str | None = None
    received_ms: int | None = None
    while at < end:
        kind_at = at + 1 + header[at]
        name = header[at + 1 : kind_at]
        kind = header[kind_at]
        at = kind_at + 1
        if kind in SIZED:
            size = 4 + _long(header, at)[0]
        elif kind in SIZES:
            size = SIZES[kind]
        else:
            raise _Unreadable
        # Of two by this name a broker has replaced the first one only; the other is a producer's invention.
        if name == _OFFSET and offset is None:
            offset = _integer(header, at, kind)
        elif name == _RECEIVED:
            number = _integer(header, at, kind)
            received_ms = number if number is not None and 0 <= number <= LATEST_MS else None
        elif name == _ID:
            event_id = _text(header[at + 4 : at + size]) if kind == LONG_STRING else None
        at += size
    return offset, event_id, received_ms


def _integer(header: bytes, at: int, kind: int) -> int | None:
    integer = INTEGERS.get(kind)
    if integer is None:
        return None
    number: int = integer.unpack_from(header, at)[0]
    return number


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode() or None
    except UnicodeDecodeError:
        return None


#: There are few, so each is decoded once.
_content_type = lru_cache(maxsize=64)(_text)


def _timestamp_ms(header: bytes, at: int, flags: int) -> int | None:
    for octet in OCTETS:
        at += bool(flags & octet)
    for short_string in SHORT_STRINGS:
        if flags & short_string:
            at += 1 + header[at]
    (stamp,) = _long_long(header, at)
    ms: int = stamp if stamp > LATEST_SECOND else stamp * 1000
    return ms if 0 < ms <= LATEST_MS else None  # 0 is how some say that they have none


def _behind_flags(header: bytes, at: int) -> int:
    """Where the properties begin when there are more words of flags, which announce nothing that is known."""
    more = MORE_FLAGS
    while more & MORE_FLAGS:
        (more,) = _short(header, at)
        at += 2
    return at


def _sought_offset(header: bytes) -> int | None:
    at = header.rfind(_OFFSET_ENTRY)
    if at < 0 or len(header) < at + len(_OFFSET_ENTRY) + 8:
        return None
    offset: int = _signed_long_long(header, at + len(_OFFSET_ENTRY))[0]
    return offset
