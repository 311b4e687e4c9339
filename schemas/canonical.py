"""The canonical form of an event, as it is archived."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from schemas.events import Event
from schemas.times import rfc3339_with_milliseconds

_encode = msgspec.json.Encoder().encode


def canonical(event: Event, *, time_ms: int, id: str | None = None) -> bytes:
    """JSON with ``type`` first and ``time`` in RFC 3339, UTC, with milliseconds.

    ``time_ms`` is where the event is placed, ``id`` the one that it was given where it has none of its own.
    Fields at their default are left out; reading the form gives the same event again.
    """
    # Readers accept a text as time, so the struct's annotation is as narrow as it is for them alone.
    return _encode(replace(event, time=rfc3339_with_milliseconds(time_ms), id=event.id if id is None else id))
