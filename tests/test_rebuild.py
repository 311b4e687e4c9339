"""`eventsink rebuild`, in one process: windows come back from the archive exactly as the events make them."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agents import ROLLUPS
from schemas.canonical import canonical
from schemas.events import Event
from schemas.reading import read, split
from tests.oracle import Placed, Rollups, placed, rollups, same
from tests.streams import STARTS_MS, starts, streams
from tests.topology.engine import Engine
from tests.topology.stores import Stores, opened
from topology.groups import Group
from topology.log import JSON, NDJSON, Outgoing
from topology.reading import ALLOWED_DISORDER_MS
from topology.rebuilding import Progress, progress
from topology.recomputing import Rebuild
from topology.sinks import Point
from topology.state import Request, RowKey, StateStore
from topology.uuid7 import uuid7

pytestmark = pytest.mark.timeout(300)

DATA = Path(__file__).parent / "data"
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
        id = await ask(self.stores.state, name, since, until, now_ms=self.engine.now_ms, **how)
        outcome = await self.over(id)
        await self.stores.state.delete_request(id)
        await self.engine.checkpoint()
        return outcome

    async def over(self, id: str) -> Progress:
        failed = self.group.failed
        assert failed is not None
        async with asyncio.timeout(120):
            while True:
                if failed.done():
                    failed.result()
                request = await self.stores.state.request(id)
                assert request is not None
                if (now := progress(request)) is not None and now.over:
                    return now
                await asyncio.sleep(0.001)


async def ask(store: StateStore, name: str, since: int, until: int, *, now_ms: int, **how: Any) -> str:
    asked = Rebuild(rollup=name, since=since, until=until, asked_ms=now_ms, **how)
    id = uuid7(now_ms)
    await store.put_request(Request(id=id, group="rollups", what=msgspec.json.encode(asked)))
    return id


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


async def kept_rows(stores: Stores, *, data: bool = False) -> list[tuple[Any, ...]]:
    """All rows of rollups with their versions."""
    columns = "kind, at, key, upto, data" if data else "kind, at, key, version, upto, owed, data, until"
    return await stores.state._database.read(
        lambda connection: connection.execute(f"SELECT {columns} FROM rows ORDER BY 1, 2, 3").fetchall()
    )


# -- nothing changes where nothing is wrong, and everything comes back where it is --


async def lived(stores: Stores, events: Sequence[Event], start_ms: int, **parts: Any) -> Rollups:
    """What the sink holds after a worker has lived through the events and the time after them."""
    worker = Worker(stores, now_ms=start_ms + AFTER_MS, **parts)
    await worker.engine.start()
    await publish(stores, events)
    await worker.live()
    await worker.passes(start_ms + AFTER_MS)
    await worker.engine.stop()
    return await everything(stores)


def of_oracle(events: Iterable[Event], start_ms: int) -> Rollups:
    return rollups(placed(events), watermark_ms=start_ms + AFTER_MS)


def passed(start_ms: int) -> st.SearchStrategy[list[Event]]:
    """Streams without what lies ahead of the clock, which would be placed elsewhere."""
    return streams(start_ms).map(
        lambda events: [each for each in events if each.time is not None and each.time <= start_ms + AFTER_MS]
    )


@given(st.data())
@settings(max_examples=5, phases=[Phase.generate])
async def test_a_rebuild_changes_nothing_and_brings_back_what_was_lost(data: st.DataObject) -> None:
    start_ms = data.draw(starts())
    events = data.draw(passed(start_ms))
    since, until = start_ms // 1000 - 7 * 86_400, start_ms // 1000 + 2 * 86_400
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder)) as stores:
            before = await lived(stores, events, start_ms)
            assert same(before, of_oracle(events, start_ms)) == []
            async with again(stores, start_ms) as worker:
                for name in ROLLUPS:
                    outcome = await worker.rebuild(name, since, until)
                    assert (outcome.status, outcome.changed, outcome.differences) == ("done", 0, ())
                    assert outcome.refused == ()
            assert await everything(stores) == before
            await sql(stores, "DELETE FROM rollups")
            await sql(stores, "DELETE FROM rows WHERE kind NOT LIKE 'ids/%' AND kind NOT LIKE '%/keys'")
            async with again(stores, start_ms) as worker:
                for name in ROLLUPS:
                    outcome = await worker.rebuild(name, since, until)
                    assert (outcome.status, outcome.refused) == ("done", ())
            assert same(await everything(stores), before) == []


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
