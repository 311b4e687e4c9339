"""A small history in which every kind of row meets every other, and what all rollups must be after it.

The events are few, so that a test may live through them hundreds of times; ``tests/oracle.py`` says what they give.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agents import ROLLUPS
from agents.uptime import service_uptime
from schemas.events import Event
from schemas.reading import read
from tests.oracle import Placed, Rollups, rollups
from tests.topology.engine import NOW_MS, Engine
from tests.topology.stores import Stores
from topology.group.reading import ALLOWED_DISORDER_MS
from topology.rollups.operators import kinds

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000

#: Tables whose rows owe the sink.
OWING = [table for rollup in ROLLUPS.values() for table, kind in kinds(rollup).items() if kind.owes]

#: All events after this one move no watermark.
LATEST_MS = NOW_MS + MINUTE


def at(minutes: float) -> int:
    """So long after the hour."""
    return NOW_MS + round(minutes * MINUTE)


def upload(minutes: float, bytes_: int, space: str) -> dict[str, Any]:
    return {
        "type": "storage.file_uploaded",
        "file_id": "f",
        "time": at(minutes),
        "bytes": bytes_,
        "space_id": space,
    }


def job(what: str, minutes: float, job_id: str | None, extractor: str = "wordcount") -> dict[str, Any]:
    named = {"resource_id": "r"} if job_id is None else {"job_id": job_id}
    return {"type": f"extraction.{what}", "time": at(minutes), "extractor": extractor, **named}


def ping(
    minutes: float, region: str, *, up: bool = True, valid_for_s: int = 120, **more: Any
) -> dict[str, Any]:
    return {
        "type": "health.pinged",
        "time": at(minutes),
        "service": "clowder",
        "region": region,
        "up": up,
        "valid_for_s": valid_for_s,
        **more,
    }


def of_service(what: str, minutes: float, **more: Any) -> dict[str, Any]:
    return {"type": f"health.{what}", "time": at(minutes), "service": "clowder", **more}


def login(time_ms: int | None, user: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "activity.logged_in",
        "user_id": user,
        **({} if time_ms is None else {"time": time_ms}),
        **more,
    }


#: What comes first. Minutes are those after the hour; the hour before has already passed.
FIRST: list[dict[str, Any]] = [
    *(upload(n / 60_000, 2**n, space) for n, space in enumerate("xyxyx")),
    login(None, "u"),  # no time: its arrival is a fact
    login(NOW_MS, "v", source="s", id="1"),
    login(NOW_MS, "v", source="s", id="1"),
    {"type": "storage.file_uploaded", "bytes": -1},
    # Its end comes first, then a later one under another name, the submission, the start.
    job("succeeded", -8, "backwards"),
    job("submitted", -9.5, "twice"),
    job("started", -9, "twice"),
    job("failed", -7.5, "twice"),
    # Skip, then done: skipped.
    job("started", -6, "skips"),
    job("skipped", -5.5, "skips"),
    # Without an id: two jobs, one after the other.
    job("submitted", -10, None),
    job("started", -9.5, None),
    job("succeeded", -9, None),
    job("started", -4, None),
    # Two regions; what eu says holds for an hour.
    ping(-12, "eu", valid_for_s=3600, response_ms={"min": 1.5, "avg": 2.5, "max": 7.25}),
    ping(-11, "us", up=False, response_ms={"avg": 12.125}),
    ping(-3, "us"),
    of_service("page_fetched", -2, region="eu", up=True, bytes=100, elapsed_ms=12.5),
    of_service("maintenance_started", -6.5),
    of_service("queue_measured", -2, queue="q", messages=7),
    of_service("connections_counted", -2, region="eu", connections=3),
    {
        "type": "traffic.resource_downloaded",
        "time": NOW_MS,
        "resource_type": "file",
        "resource_id": "r",
        "bytes": 9,
    },
]

#: What comes then, when the first are saved: it changes them.
THEN: list[dict[str, Any]] = [
    upload(0, 64, "x"),
    job("started", -8.5, "backwards"),
    job("submitted", -9, "backwards"),
    job("succeeded", -2.5, "twice", extractor="digest"),  # takes the end of before back
    job("retried", -7, "twice"),
    job("started", -6.75, "twice", extractor="digest"),
    job("succeeded", -5, "skips"),
    job("failed", -3, None),
    job("submitted", -2, None),
    # Late, and in the middle of what eu had said of an hour.
    ping(-8, "eu", up=False, valid_for_s=60),
    # The first of its region, before all others.
    ping(-14, "us", valid_for_s=180),
    of_service("maintenance_ended", -5.25),
    of_service("page_fetched", -2, region="eu", up=False, elapsed_ms=3.0),
    of_service("queue_measured", -2, queue="q", messages=2),
    login(LATEST_MS, "w"),
]

#: And what comes in another life.
AT_LAST: list[dict[str, Any]] = [
    upload(0, 1, "x"),
    upload(0, 2, "y"),
    job("succeeded", -1.5, "backwards"),  # leaves its minute once more
    ping(-7.5, "us"),
]


async def everything(stores: Stores) -> Rollups:
    """What the sink holds of all rollups in all windows."""
    found: Rollups = {}
    for name in ROLLUPS:
        for window in ("1m", "1h", "1d"):
            points = await stores.rollups.query(
                name, window, since=None, until=None, where={}, limit=1_000_000
            )
            found[name, window] = {
                (point.time, tuple(value for _, value in point.tags)): dict(point.fields) for point in points
            }
    return found


def must_be(events: Iterable[Mapping[str, Any]], *, watermark_ms: int | None = None) -> Rollups:
    """What the oracle makes of these; events without a time came at ``NOW_MS``."""
    placed: list[Placed] = []
    for number, event in enumerate(events):
        said = read(json.dumps(event).encode())
        if isinstance(said, Event):
            placed.append(Placed(number, NOW_MS if said.time is None else said.time, said))
    if watermark_ms is None:
        watermark_ms = max(each.time_ms for each in placed) - ALLOWED_DISORDER_MS
    return rollups(placed, watermark_ms=watermark_ms)


async def owed(stores: Stores) -> Sequence[object]:
    """Rows that owe the sink."""
    return await stores.state.owed_rows(OWING, 1000)


async def lived(engine: Engine) -> None:
    """Fold what is there, save it, and see it delivered: a busy machine may need more than one checkpoint for that."""
    await engine.folded()
    await engine.checkpoint()
    while not await delivered(engine):
        await engine.tick()
        await engine.checkpoint()


async def delivered(engine: Engine) -> bool:
    """Whether the sink was told everything that follows from what is saved, and from the time that has passed."""
    (reading,) = (group.reading for group in engine.groups if group.name == "rollups")
    state = engine.stores.state
    if reading.told_ms != reading.watermark and await state.keys_of(service_uptime.services):
        return False
    return not await owed(engine.stores)
