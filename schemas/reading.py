"""Reading: whatever came in, as an event or as a refusal. Nothing raises past this module.

    1. canonical        ``type`` has a dot                           events.py
    2. foreign shapes   each known by its own keys, one file each    clowder1.py, pyclowder.py

A new foreign shape is a file with a function ``shape`` like Clowder's, entered in ``FOREIGN``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import msgspec
from msgspec.structs import force_setattr

from schemas import clowder1, events, pyclowder
from schemas.events import (
    MAX_COUNT,
    PHASES,
    ConnectionsCounted,
    Event,
    PageFetched,
    Pinged,
    QueueMeasured,
)
from schemas.refusals import Refusal, refusal
from schemas.selecting import LONGEST_TYPE, instead_of
from schemas.times import from_rfc3339

__all__ = ["MAX_BODY_BYTES", "Refusal", "read", "read_lines", "read_value", "split"]

#: No event is larger; a body that is, is not even looked at.
MAX_BODY_BYTES = 1 << 20

_INT64 = 1 << 63

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Foreign(Protocol):
    """A message of somebody else's, decoded."""

    def event(self) -> Event | Refusal:
        """The canonical event. Raises nothing."""


#: Each gives the type to decode a message as, or None if it is not of that shape. The first one wins:
#: v1.15.0 of Clowder is known by single keys, which prove less than pyclowder's.
FOREIGN: tuple[Callable[[Mapping[str, object]], Any], ...] = (pyclowder.shape, clowder1.shape)

_encode = msgspec.json.Encoder().encode


def read(body: bytes) -> Event | Refusal:
    """The event in ``body``: JSON in UTF-8 (else Latin-1), canonical or of a known foreign shape."""
    if len(body) > MAX_BODY_BYTES:
        return Refusal("", f"too_large: the body has {len(body)} bytes, at most 1 MiB are read")
    try:
        # The three shapes that nearly everything has are decoded straight into structs. What is not exactly
        # that, and all that is wrong, takes the careful way; the two must agree.
        if b'"category"' in body:
            return clowder1.DECODER.decode(body).event()
        if b'"extractor_id"' in body:
            return pyclowder.DECODER.decode(body).event()
        return _settled(events.DECODER.decode(body))
    except (ValueError, RecursionError) as error:  # ValueError: all of msgspec's errors, and UnicodeError
        return _read_carefully(body, error)


def read_lines(body: bytes) -> list[tuple[bytes, Event | Refusal]]:
    """Each line of an ``application/x-ndjson`` body, as ``split`` gives it, with what ``read`` makes of it."""
    lines = split(body)
    # Where each line ends what it begins: the decoder takes two values on one line, and one on two lines, too.
    if body.count(b"}\n{") == len(lines) - 1 and len(body) <= MAX_BODY_BYTES and b'"category"' not in body:
        try:
            found = events.DECODER.decode_lines(body)
        except (ValueError, RecursionError):
            pass  # one of them is not exactly canonical: each by itself
        else:
            if len(found) == len(lines):
                return [(line, _settled(event)) for line, event in zip(lines, found, strict=True)]
    return [(line, read(line)) for line in lines]


def read_value(value: object) -> Event | Refusal:
    """The event in a JSON value that was decoded already, such as an item of an array."""
    if not isinstance(value, dict):
        return Refusal("", "must be an object")
    result = _read_object(value)
    try:
        # JSON from elsewhere may hold halves of surrogate pairs, which nobody can write again.
        _encode(result)
    except UnicodeEncodeError:
        return Refusal("", "a text in it is not valid Unicode")
    return result


def split(body: bytes) -> list[bytes]:
    """The events of an ``application/x-ndjson`` body, one a line. Blank lines are skipped and not counted."""
    return [line for raw in body.split(b"\n") if (line := raw.strip())]


def _settled(event: Event) -> Event | Refusal:
    """Put milliseconds in place of a time that came as text. The event is not anybody else's yet."""
    time: object = event.time
    if isinstance(time, str):
        ms = from_rfc3339(time)
        if ms is None:
            return Refusal("/time", "must be RFC 3339 with a zone, in the years 1970 to 9999")
        force_setattr(event, "time", ms)
    # Nothing can be told apart by an empty id; taken for one it would make repeats of different events.
    if event.id == "":
        force_setattr(event, "id", None)
    if event.user_id == "":
        force_setattr(event, "user_id", None)
    for name, fitting in _SHOWN.get(type(event), ()):
        value = getattr(event, name)
        if value is not None and (fit := fitting(value)) is not value:
            force_setattr(event, name, fit)
    return event


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _days(value: object) -> int | None:
    return value if type(value) is int and abs(value) <= MAX_COUNT else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


def _phases(value: object) -> Mapping[str, float] | None:
    given = value if isinstance(value, dict) else {}
    return {name: given[name] for name in PHASES if _is_duration(given.get(name))} or None


def _is_duration(value: object) -> bool:
    return type(value) in (int, float) and 0 <= cast(float, value) <= MAX_COUNT


#: What is only shown to people, and what is kept of it: a store of documents takes neither any number nor any name
#: (docs/decisions/0049).
_SHOWN: Mapping[type[Event], Sequence[tuple[str, Callable[[object], object]]]] = {
    Pinged: (("problem", _text), ("certificate_days_left", _days), ("note", _text)),
    PageFetched: (("problem", _text), ("certificate_days_left", _days), ("phases_ms", _phases)),
    ConnectionsCounted: tuple((name, _count) for name in ("requests", "clients", "active", "unreadable")),
    QueueMeasured: tuple((name, _count) for name in ("ready", "unacknowledged", "consumers")),
}


def _read_carefully(body: bytes, error: Exception) -> Event | Refusal:
    """What the quick way could not read, because of ``error``."""
    text = body.removeprefix(_BYTE_ORDER_MARK).strip()
    if not text:
        return Refusal("", "the body is empty")
    try:
        value = _decoded(text)
    except RecursionError:
        return Refusal("", "nested too deeply")
    except msgspec.ValidationError as out_of_range:
        # JSON, with a number that fits nowhere: the quick way knows whose it is.
        return refusal(error if isinstance(error, msgspec.ValidationError) else out_of_range)
    except ValueError as malformed:
        return Refusal("", f"not JSON: {str(malformed).removeprefix('JSON is malformed: ').lower()}")
    if not isinstance(value, dict):
        return Refusal("", "must be an object")
    return _read_object(value)


def _decoded(text: bytes) -> object:
    try:
        return msgspec.json.decode(text)
    except UnicodeDecodeError:
        return msgspec.json.decode(text.decode("latin-1").encode())


def _read_object(value: dict[str, object]) -> Event | Refusal:
    try:
        try:
            result = msgspec.convert(_without_null_defaults(value), _shape(value))
        except msgspec.ValidationError:
            # 7.0 is an integer, says JSON Schema, and so do the schemas that are published here.
            whole = _with_whole_numbers(value)
            result = msgspec.convert(_without_null_defaults(whole), _shape(whole))
    except msgspec.ValidationError as error:
        return _with_hint(refusal(error), value)
    except UnicodeEncodeError:
        return Refusal("", "a text in it is not valid Unicode")
    return _settled(result) if isinstance(result, Event) else cast(Foreign, result).event()


def _with_hint(refused: Refusal, value: dict[str, object]) -> Refusal:
    kind = value.get("type")
    if refused.pointer != "/type" or not isinstance(kind, str) or len(kind) > LONGEST_TYPE:
        return refused
    return Refusal("/type", f"{refused.reason}: {instead_of(kind)}")


def _with_whole_numbers(value: dict[str, object]) -> dict[str, object]:
    return {
        name: int(member)
        if isinstance(member, float) and member.is_integer() and abs(member) < _INT64
        else member
        for name, member in value.items()
    }


def _without_null_defaults(value: dict[str, object]) -> dict[str, object]:
    """A null means that the member is missing, also where the default is a number."""
    if value.get("valid_for_s", 0) is None:
        return {name: member for name, member in value.items() if name != "valid_for_s"}
    return value


def _shape(value: dict[str, object]) -> Any:
    """The type to read ``value`` as; the canonical events where nothing is known, for their refusal."""
    kind = value.get("type")
    if isinstance(kind, str) and "." in kind:
        return events.ANY_EVENT
    return next((found for shape in FOREIGN if (found := shape(value)) is not None), events.ANY_EVENT)
