"""Moves the times of events, so that a recording can be played as if it had just been made.

Only the value of the time changes, and it keeps its form: milliseconds stay milliseconds, text stays
text with its zone and its fraction. That works since times move by whole seconds.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

_TEXT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})([Tt ])([0-9]{2}):([0-9]{2}):([0-9]{2})(.*)", re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: The unit of ``created`` follows from its size. (upper bound, units in a second)
_CREATED_UNITS = ((Decimal(10) ** 11, 1), (Decimal(10) ** 14, 1000), (Decimal(10) ** 17, 1_000_000))
_NANOSECONDS = 1_000_000_000
_MILLISECONDS = 1000


def shifted(line: bytes, seconds: int, time_ms: int) -> bytes:
    """The event of ``line``, which is one and happens at ``time_ms``, later by ``seconds``. The time is in
    ``time`` or, in Clowder's own messages, in ``created``. Text without seconds becomes milliseconds."""
    line = line.removeprefix(_BYTE_ORDER_MARK)
    try:
        members = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        members = _decode(line.decode("latin-1").encode())  # as the reader of events falls back
    # As the reader of events tells them apart: only a canonical type has a dot.
    name = "time" if b"." in bytes(members.get("type", msgspec.Raw())) else "created"
    value = bytes(members[name]).decode()
    moved = _moved(value, seconds, is_created=name == "created")
    if moved is None:
        moved = str(time_ms + seconds * _MILLISECONDS)
    members[name] = msgspec.Raw(moved.encode())
    return _encode(members)


def _moved(value: str, seconds: int, *, is_created: bool) -> str | None:
    if value.startswith('"'):
        moved = _moved_text(msgspec.json.decode(value, type=str), seconds)
        return None if moved is None else _encode(moved).decode()
    return _moved_number(value, seconds, is_created=is_created) if _NUMBER.fullmatch(value) else None


def _moved_text(text: str, seconds: int) -> str | None:
    parts = _TEXT.fullmatch(text)
    if parts is None:
        return None
    day, separator, hour, minute, second, rest = parts.groups()
    try:
        # Second 60 is the next one: add it up instead of setting it.
        at = datetime.fromisoformat(f"{day}T{hour}:{minute}:00") + timedelta(seconds=int(second) + seconds)
    except (ValueError, OverflowError):
        return None
    return f"{at:%Y-%m-%d}{separator}{at:%H:%M:%S}{rest}"


def _moved_number(text: str, seconds: int, *, is_created: bool) -> str:
    number = Decimal(text)
    unit = _MILLISECONDS
    if is_created:
        unit = next((unit for below, unit in _CREATED_UNITS if abs(number) < below), _NANOSECONDS)
    moved = f"{number + seconds * unit:f}"
    is_float = any(mark in text for mark in ".eE")
    return f"{moved}.0" if is_float and "." not in moved else moved
