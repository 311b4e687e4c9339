"""Rebuilds in one process, as tests drive them: a worker that is asked, and three days of events with their numbers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from agents import ROLLUPS
from schemas.canonical import canonical
from schemas.events import (
    ConnectionsCounted,
    Event,
    ExtractionStarted,
    ExtractionSubmitted,
    ExtractionSucceeded,
    FileUploaded,
    LoggedIn,
    MaintenanceEnded,
    MaintenanceStarted,
    PageFetched,
    Pinged,
    QueueMeasured,
    ResourceDownloaded,
)
from tests.oracle import Rollups, placed, rollups
from tests.topology.engine import Engine
from tests.topology.stores import Stores, opened
from topology.group.groups import Group
from topology.group.reading import ALLOWED_DISORDER_MS
from topology.log import NDJSON, Outgoing
from topology.rebuild.rebuilding import Progress, progress
from topology.rebuild.recomputing import Rebuild
from topology.state import Request, StateStore
from topology.uuid7 import uuid7

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
#: An ordinary midnight: 2026-11-24.
MIDNIGHT_S = 1_795_478_400
MIDNIGHT_MS = MIDNIGHT_S * 1000
KEEP_ALL = timedelta(days=36500)
#: So long after the start of a stream it is looked at.
AFTER_MS = 6 * HOUR_MS
LONG = 100 * 366 * 86_400


async def soon(seconds: float) -> None:
    """A second is a moment; what comes less often stays away."""
    await asyncio.sleep(0.001 if seconds <= 2 else seconds)


class Worker:
    """An engine that looks for requests all the time."""

    def __init__(self, stores: Stores, *, now_ms: int, keep: timedelta = KEEP_ALL, **parts: Any) -> None:
        self.stores = stores
        self.engine = Engine(stores, keep=keep)
        self.engine.now_ms = now_ms
        self.change(sleep=soon, **parts)

    def change(self, **parts: Any) -> None:
        self.engine.parts = dataclasses.replace(self.engine.parts, **parts)

    @property
    def group(self) -> Group:
        return next(group for group in self.engine.groups if group.name == "rollups")

    async def live(self) -> None:
        """Fold everything, save it, tell the sink of it and of the time that passed."""
        await self.engine.folded()
        for _ in range(3):
            await self.engine.checkpoint()

    async def passes(self, watermark_ms: int) -> None:
        """Time passes up to there."""
        for group in self.engine.groups:
            for agent in group.agents:
                group.reading.seen(agent, watermark_ms + ALLOWED_DISORDER_MS)
        while True:
            await self.engine.checkpoint()
            told = self.group.reading.told_ms
            if told is None or told >= watermark_ms:
                break
        await self.engine.checkpoint()

    async def rebuild(self, name: str, since: int, until: int, **how: Any) -> Progress:
        """Ask, and wait until it is over."""
        asked = await ask(self.stores.state, name, since, until, now_ms=self.engine.now_ms, **how)
        outcome = await self.over(asked)
        await self.stores.state.delete_request(asked)
        await self.engine.checkpoint()
        return outcome

    async def over(self, id: str) -> Progress:
        return await over(self.group, self.stores.state, id)


async def ask(store: StateStore, name: str, since: int, until: int, *, now_ms: int, **how: Any) -> str:
    what = Rebuild(rollup=name, since=since, until=until, asked_ms=now_ms, **how)
    asked = uuid7(now_ms)
    await store.put_request(Request(id=asked, group="rollups", what=msgspec.json.encode(what)))
    return asked


@asynccontextmanager
async def working(folder: Path, *, now_ms: int, **how: Any) -> AsyncIterator[Worker]:
    async with opened(folder) as stores:
        worker = Worker(stores, now_ms=now_ms, **how)
        await worker.engine.start()
        try:
            yield worker
        finally:
            await worker.engine.stop()


def bodies(events: Iterable[Event]) -> list[bytes]:
    return [canonical(event, time_ms=event.time or 0, id=event.id) for event in events]


async def publish(stores: Stores, events: Iterable[Event], *, at_once: int = 7) -> None:
    lines = bodies(events)
    messages = [
        Outgoing(b"\n".join(lines[first : first + at_once]), NDJSON, None, None)
        for first in range(0, len(lines), at_once)
    ]
    await stores.log.publish(messages)


async def everything(stores: Stores) -> Rollups:
    """What the sink holds, as the oracle says it."""
    found: Rollups = {}
    for name, rollup in ROLLUPS.items():
        for window in rollup.windows:
            points = await stores.rollups.query(
                name, window, since=None, until=None, where={}, limit=1_000_000
            )
            found[name, window] = {
                (point.time, tuple(value for _, value in point.tags)): dict(point.fields) for point in points
            }
    return found


async def sql(stores: Stores, statement: str, *values: object) -> None:
    """Behind everybody's back; rows only while no worker runs."""
    await stores.state._database.write(lambda connection: connection.execute(statement, values))


async def kept_rows(stores: Stores) -> list[tuple[Any, ...]]:
    """All rows with their versions."""
    return await stores.state._database.read(
        lambda connection: connection.execute("SELECT * FROM rows ORDER BY kind, at, key").fetchall()
    )


async def lived(stores: Stores, events: Sequence[Event], start_ms: int, **parts: Any) -> Rollups:
    """What the sink holds after a worker has lived through the events and the time after them."""
    worker = Worker(stores, now_ms=start_ms + AFTER_MS, **parts)
    await worker.engine.start()
    await publish(stores, events)
    await worker.live()
    await worker.passes(start_ms + AFTER_MS)
    await worker.engine.stop()
    return await everything(stores)


@asynccontextmanager
async def again(stores: Stores, start_ms: int, **parts: Any) -> AsyncIterator[Worker]:
    """Another worker on the same stores, after the stream."""
    worker = Worker(stores, now_ms=start_ms + AFTER_MS, **parts)
    await worker.engine.start()
    await worker.live()
    try:
        yield worker
    finally:
        await worker.live()
        await worker.engine.stop()


def upload(at_ms: int, bytes: int = 1, space: str = "s") -> FileUploaded:
    return FileUploaded(time=at_ms, file_id="f", space_id=space, bytes=bytes)


def ping(at_ms: int, *, up: bool = True, valid_for_s: float = 3600.0, service: str = "c") -> Pinged:
    return Pinged(time=at_ms, service=service, region="eu", up=up, valid_for_s=valid_for_s)


def job(
    name: str | None, submitted_ms: int, started_ms: int, ended_ms: int, resource: str = "r"
) -> list[Event]:
    common: dict[str, Any] = {"job_id": name, "resource_id": resource, "extractor": "x"}
    return [
        ExtractionSubmitted(time=submitted_ms, **common),
        ExtractionStarted(time=started_ms, **common),
        ExtractionSucceeded(time=ended_ms, **common),
    ]


#: Of each rollup something, over three days, much of it reaching from one day into the next.
THREE_DAYS: list[Event] = sorted(
    [
        *(upload(MIDNIGHT_MS + hours * HOUR_MS, hours) for hours in range(1, 60, 3)),
        *(ping(MIDNIGHT_MS + hours * HOUR_MS + 1800_000, up=hours % 5 > 0) for hours in range(0, 60, 4)),
        MaintenanceStarted(time=MIDNIGHT_MS + 20 * HOUR_MS, service="c"),
        MaintenanceEnded(time=MIDNIGHT_MS + 30 * HOUR_MS, service="c"),
        *job("a", MIDNIGHT_MS + HOUR_MS, MIDNIGHT_MS + 30 * HOUR_MS, MIDNIGHT_MS + 50 * HOUR_MS),
        *job("b", MIDNIGHT_MS + 25 * HOUR_MS, MIDNIGHT_MS + 26 * HOUR_MS, MIDNIGHT_MS + 27 * HOUR_MS),
        *job(None, MIDNIGHT_MS + 20 * HOUR_MS, MIDNIGHT_MS + 23 * HOUR_MS, MIDNIGHT_MS + 26 * HOUR_MS),
        *job(None, MIDNIGHT_MS + 28 * HOUR_MS, MIDNIGHT_MS + 29 * HOUR_MS, MIDNIGHT_MS + 55 * HOUR_MS),
        *(LoggedIn(time=MIDNIGHT_MS + hours * HOUR_MS, user_id=f"u{hours % 3}") for hours in range(0, 60, 5)),
        LoggedIn(time=MIDNIGHT_MS + 25 * HOUR_MS, user_id="v"),
        *(
            ResourceDownloaded(
                time=MIDNIGHT_MS + hours * HOUR_MS, resource_type="file", resource_id="r", bytes=hours
            )
            for hours in range(0, 60, 7)
        ),
        *(
            ConnectionsCounted(time=MIDNIGHT_MS + hours * HOUR_MS, service="c", connections=hours)
            for hours in range(0, 60, 6)
        ),
        *(
            QueueMeasured(time=MIDNIGHT_MS + hours * HOUR_MS, service="c", queue="q", messages=hours)
            for hours in range(0, 60, 6)
        ),
        *(
            PageFetched(
                time=MIDNIGHT_MS + hours * HOUR_MS, service="c", region="us", up=True, elapsed_ms=hours / 4
            )
            for hours in range(0, 60, 6)
        ),
    ],
    key=lambda event: event.time or 0,
)
#: One of each kind, and one with sketches.
KINDS = ("space_storage", "extractor_runtime", "service_uptime", "user_activity")
#: When their last one is an hour old.
END_MS = MIDNIGHT_MS + 60 * HOUR_MS
EXPECTED = rollups(placed(THREE_DAYS), watermark_ms=END_MS)


async def three_days_lived(stores: Stores, events: Sequence[Event] = (), **parts: Any) -> None:
    worker = Worker(stores, now_ms=END_MS, **parts)
    await worker.engine.start()
    await publish(stores, events or THREE_DAYS)
    await worker.live()
    await worker.passes(END_MS)
    await worker.engine.stop()


#: The file in which three days were lived, kept from the first test for those that follow.
_LIVED: list[bytes] = []


@asynccontextmanager
async def three_days(folder: Path) -> AsyncIterator[Stores]:
    """Stores after a worker has lived through ``THREE_DAYS`` and ended."""
    file = folder / "eventsink.db"
    if not _LIVED:
        async with opened(folder) as stores:
            await three_days_lived(stores)
        _LIVED.append(file.read_bytes())  # closed: the WAL is in it
    file.write_bytes(_LIVED[0])
    async with opened(folder) as stores:
        yield stores


@asynccontextmanager
async def at_end(stores: Stores, **parts: Any) -> AsyncIterator[Worker]:
    worker = Worker(stores, now_ms=END_MS, **parts)
    await worker.engine.start()
    await worker.live()
    try:
        yield worker
    finally:
        await worker.live()
        await worker.engine.stop()


def on_days(found: Rollups, name: str, *days: int) -> Rollups:
    """The windows of one rollup that start on these days after midnight."""
    starts = [MIDNIGHT_S + day * 86_400 for day in days]
    return {
        table: {key: row for key, row in rows.items() if key[0] - key[0] % 86_400 in starts}
        for table, rows in found.items()
        if table[0] == name
    }


SECOND_DAY = (MIDNIGHT_S + 86_400, MIDNIGHT_S + 2 * 86_400)


async def over(group: Group, store: StateStore, id: str) -> Progress:
    assert group.failed is not None
    async with asyncio.timeout(60):
        while True:
            if group.failed.done():
                group.failed.result()
            request = await store.request(id)
            assert request is not None
            if (now := progress(request)) is not None and now.over:
                return now
            await asyncio.sleep(0.001)


def on_windows(found: Rollups, name: str) -> Rollups:
    """One rollup, on the windows of which corrections are told."""
    return {(name, window): found[name, window] for window in ("1h", "1d")}


def with_content(found: Rollups) -> Rollups:
    """Without windows in which nothing is counted: a correction writes zeros."""
    return {
        table: {key: row for key, row in rows.items() if any(row.values())} for table, rows in found.items()
    }
