"""Rollup rows and raw events as the engine would have written them."""

from __future__ import annotations

import json
from typing import Any

from schemas.canonical import canonical
from schemas.events import Event
from schemas.reading import read
from tests.web.serving import NOW_MS
from topology.position import position
from topology.sinks import Point, RawEvent

NOW_S = NOW_MS // 1000


def point(minutes: int, space_id: str = "s1", **fields: int) -> Point:
    """A row of ``space_storage`` in the window that opens so many minutes after ``NOW_MS``."""
    return Point("space_storage", "1m", NOW_S + 60 * minutes, (("space_id", space_id),), fields)


def raw(offset: int, *, at_ms: int = NOW_MS, **fields: Any) -> RawEvent:
    """An archived event; a page view unless ``type`` says otherwise."""
    fields.setdefault("type", "traffic.page_viewed")
    if fields["type"] == "traffic.page_viewed":
        fields.setdefault("url", f"https://example.org/{offset}")
    original = json.dumps(fields).encode()
    event = read(original)
    assert isinstance(event, Event)
    return RawEvent(
        id=f"p:{offset}",
        position=position(0, offset),
        time=at_ms,
        received=NOW_MS + offset,
        type=event.type,
        space_id=None,
        event=canonical(event, time_ms=at_ms),
        original=original,
    )
