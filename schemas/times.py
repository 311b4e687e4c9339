"""Times as they come and as they are written. Inside, a time is integer epoch milliseconds in UTC.

    canonical events      RFC 3339 with a zone, or integer epoch milliseconds
    Clowder's ``created`` integer or float s, ms, µs, ns; ISO text, without a zone = UTC
    a person's ``T``      RFC 3339, a date (its midnight in UTC), ``now``, ``now-1h``

The years 1970 to 9999 exist, no others. Fractions of a millisecond are cut off, never rounded: an event
must not move into the next window. Second ``:60`` is the next second.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

#: 9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can write.
MAX_TIME_MS = 253_402_300_799_999

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive arithmetic is half the cost, and all of it is in UTC
_MILLISECOND = timedelta(milliseconds=1)

_DATE = r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
_HOUR_MINUTE = r"((?:[01][0-9]|2[0-3]):[0-5][0-9])"
#: As strict as a pattern can be, in the dialect of JSON Schema too, where it is published.
RFC3339_PATTERN = (
    _DATE + r"[Tt ]" + _HOUR_MINUTE + r":([0-5][0-9]|60)(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_RFC3339 = re.compile(RFC3339_PATTERN)
_ISO = re.compile(
    _DATE + r"(?:[Tt ]" + _HOUR_MINUTE + r"(?::([0-5][0-9]|60)(?:[.,]([0-9]+))?)?"
    r" ?(?:[Zz]|([+-])([01][0-9]|2[0-3]):?([0-5][0-9])?)?)?"
)
_DAY = re.compile(_DATE)
_RELATIVE = re.compile(r"now(?:-([0-9]+)(ms|s|m|h|d|w))?")
#: What is typed in the hope of being understood.
_SPAN = re.compile(r"-?([0-9]{1,6}(?:ms|s|m|h|d|w))(?: ago)?")
_UNITS = {
    "ms": _MILLISECOND,
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def from_rfc3339(text: str) -> int | None:
    """Epoch milliseconds of an RFC 3339 text with a zone; None for anything else. Raises nothing."""
    match = _RFC3339.fullmatch(text)
    return None if match is None else _milliseconds(match)


def from_clowder(created: object) -> int | None:
    """Epoch milliseconds of Clowder's ``created`` in any of its forms, None where it is unreadable.

    Raises nothing, whatever it is handed.
    """
    if isinstance(created, int):
        return None if isinstance(created, bool) else _from_number(created)
    if isinstance(created, str):
        match = _ISO.fullmatch(created)
        return None if match is None else _milliseconds(match)
    if isinstance(created, float) and created - created == 0:  # neither infinite nor NaN
        # By way of its shortest decimal, which is what the sender wrote: 1.005 s are 1005 ms, not 1004.
        return _from_number(Decimal(repr(created)))
    return None


def from_person(text: str) -> int | None:
    """Epoch milliseconds of an instant as a person writes it: RFC 3339 with a zone, or a date, which is its midnight in
    UTC. None for anything else. Raises nothing."""
    return from_rfc3339(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)


def rfc3339(ms: int) -> str:
    """``2026-11-23T21:00:00Z``, with milliseconds only where there are any. ``ms``: 0 to ``MAX_TIME_MS``."""
    return _written(ms, "milliseconds" if ms % 1000 else "seconds")


def rfc3339_with_milliseconds(ms: int) -> str:
    """``2026-11-23T21:00:00.000Z``, always the same length, so that texts sort like times."""
    return _written(ms, "milliseconds")


def parse_when(text: str, now: datetime) -> datetime:
    """The instant that a person means, in UTC: as ``from_person``, ``now``, or ``now-1h`` (ms, s, m, h, d, w).

    ``now`` is aware. Raises ``ValueError`` with one line for that person.
    """
    match = _RELATIVE.fullmatch(text)
    if match is not None:
        return _before(now, text, *match.groups())
    ms = from_person(text)
    if ms is None:
        raise ValueError(f"{text[:40]!r} is not a time: {_instead(text)}")
    return EPOCH + timedelta(milliseconds=ms)


def _instead(text: str) -> str:
    if span := _SPAN.fullmatch(text):
        return f"use now-{span[1]} for that long ago"
    if from_rfc3339(f"{text}Z") is not None:
        return f"use {text}Z for UTC, or add a zone such as +01:00"
    return "use 2026-11-24, 2026-11-24T08:00:00Z, now, or now-1h (ms, s, m, h, d, w)"


def _before(now: datetime, text: str, number: str | None, unit: str | None) -> datetime:
    now = now.astimezone(UTC)
    if number is None or unit is None:
        return now
    try:
        when = now - int(number) * _UNITS[unit]
    except (OverflowError, ValueError):  # ValueError: int() refuses thousands of digits
        when = None
    if when is None or when < EPOCH:
        raise ValueError(f"{text[:40]!r} lies before 1970: use a later time, such as now-7d")
    return when


def _written(ms: int, timespec: str) -> str:
    return (_NAIVE_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec=timespec) + "Z"


def _from_number(number: int | Decimal) -> int | None:
    """Tells the unit by the size: until the year 5138 the four ranges do not overlap."""
    if not 0 <= number < 10**21:  # far beyond 9999, and the division of a larger Decimal would raise
        return None
    if number < 10**11:
        ms = int(number * 1000)
    elif number < 10**14:
        ms = int(number)
    elif number < 10**17:
        ms = int(number // 1000)
    else:
        ms = int(number // 1_000_000)
    return ms if ms <= MAX_TIME_MS else None


def _milliseconds(match: re.Match[str]) -> int | None:
    date, hour_minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    try:
        naive = datetime.fromisoformat(f"{date}T{hour_minute or '00:00'}")
    except ValueError:  # the 30th of February, the year 0
        return None
    ms = (naive - _NAIVE_EPOCH) // _MILLISECOND
    if second is not None:
        ms += int(second) * 1000
    if fraction is not None:
        ms += int(fraction[:3].ljust(3, "0"))
    if sign is not None:
        offset_ms = (int(offset_hours) * 60 + int(offset_minutes or 0)) * 60_000
        ms += offset_ms if sign == "-" else -offset_ms
    return ms if 0 <= ms <= MAX_TIME_MS else None
