"""Owed values on their way to a sink that answers, refuses, or is away."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from agents.storage import space_storage
from tests.topology.stores import Stores, opened
from topology.errors import Refused, Unavailable
from topology.group import delivery as delivery_module
from topology.group.delivery import Delivery
from topology.group.doubt import Doubt, Notes
from topology.group.rows import RowCache, Saved
from topology.position import position
from topology.services.operator import Passing
from topology.sinks import Point
from topology.windows import HOUR, MINUTE

TABLES = {space_storage.table(window): space_storage for window in (MINUTE, HOUR)}


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


class Sink:
    """The embedded sink behind a door that opens and shuts."""

    name = "rollups"

    def __init__(self, stores: Stores) -> None:
        self.inner = stores.rollups
        self.answers: list[Exception] = []
        self.refused_space: str | None = None
        self.sizes: list[int] = []

    async def write(self, points: Sequence[Point]) -> None:
        self.sizes.append(len(points))
        if self.answers:
            raise self.answers.pop(0)
        if any(point.tags[0][1] == self.refused_space for point in points):
            raise Refused("400 field type conflict")
        await self.inner.write(points)


class Harness:
    def __init__(self, stores: Stores, sink: Sink) -> None:
        self.stores = stores
        self.sink = sink
        self.slept: list[float] = []
        self.ours = True
        self.rows = RowCache(
            stores.state,
            TABLES,
            owing=TABLES,
            versions=itertools.count(1),
            max_bytes=1 << 20,
            outages=stores.outages,
        )
        self.delivery = Delivery(
            sink,  # type: ignore[arg-type]  # it is only written to
            stores.state,
            self.rows.settle,
            TABLES,
            self,
            Notes("rollups", stores.state, stores.outages, lambda: 0),
            dead_letters=stores.dead_letters,
            outages=stores.outages,
            metrics=stores.metrics,
            clock_ms=lambda: 0,
            sleep=self._sleep,
        )
        self._offset = itertools.count()

    # As ``delivery.Values``: the points of the rows, no time passes, nobody else works.

    async def of(self, rows: Sequence[Saved]) -> AsyncIterator[Sequence[Point]]:
        yield [space_storage.point(row.key, row.state) for row in rows]

    async def passing(self) -> None:
        return None

    def found(self, key: object, version: int) -> bool:
        return True

    def told(self, passing: Passing) -> None:
        raise AssertionError(passing)

    def since(self, points: Sequence[Point]) -> None:
        return None

    def tell_again(self, since_ms: int) -> None:
        raise AssertionError(since_ms)

    async def owned(self) -> bool:
        return self.ours

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def save(self, *spaces: str) -> None:
        """One more file in the minute 0 of each space, saved, and offered to the sink."""
        keys = [space_storage.row_key(MINUTE, 0, (space,)) for space in spaces]
        for row in (await self.rows.load(keys)).values():
            added, removed, files, gone, events = row.state
            self.rows.change(
                row, (added + 1, removed, files + 1, gone, events + 1), position(0, next(self._offset))
            )
        self.delivery.offer(await self.rows.save(self.rows.dirty()))

    async def stored(self) -> dict[str, int | float]:
        points = await self.stores.rollups.query(
            "space_storage", "1m", since=None, until=None, where={}, limit=100
        )
        return {point.tags[0][1]: point.fields["files_added"] for point in points}

    async def owed(self) -> int:
        return len(await self.stores.state.owed_rows(list(TABLES), 1000))


@asynccontextmanager
async def running(harness: Harness) -> AsyncIterator[None]:
    task = asyncio.create_task(harness.delivery.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0)


@pytest.fixture
def sink(stores: Stores) -> Sink:
    return Sink(stores)


@pytest.fixture
def harness(stores: Stores, sink: Sink) -> Harness:
    return Harness(stores, sink)


async def settled(harness: Harness) -> bool:
    return harness.delivery.waiting == 0 and await harness.owed() == 0


async def test_what_is_offered_is_written_and_nothing_is_owed_any_more(harness: Harness) -> None:
    async with running(harness):
        await harness.save("x", "y")
        await harness.delivery.delivered(30)
        await until(lambda: settled(harness))
    assert await harness.stored() == {"x": 1, "y": 1}


async def test_a_sink_that_is_away_owes_nothing_after_it_is_back(harness: Harness, sink: Sink) -> None:
    sink.answers = [*[Unavailable("refused")] * 3, Unavailable("slow down", timedelta(seconds=17))]
    async with running(harness):
        await harness.save("x")
        await harness.delivery.delivered(30)
        await harness.save("x")
        await harness.save("y")
        await until(lambda: settled(harness))
    assert await harness.stored() == {"x": 2, "y": 1}
    assert harness.slept[3] == 17
    assert harness.slept[:3] == sorted(harness.slept[:3])


async def test_what_a_dead_worker_owed_is_found_in_the_store(stores: Stores, sink: Sink) -> None:
    await Harness(stores, sink).save("x", "y")
    other = Harness(stores, sink)
    async with running(other):
        await until(lambda: settled(other))
    assert await other.stored() == {"x": 1, "y": 1}


async def test_values_that_did_not_fit_into_memory_are_sought_in_the_store(
    harness: Harness, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "MOST_WAITING", 3)
    sink.answers = [*[Unavailable("away")] * 5]
    spaces = [f"s{n}" for n in range(20)]
    async with running(harness):
        for space in spaces:
            await harness.save(space)
        await until(lambda: settled(harness))
    assert await harness.stored() == dict.fromkeys(spaces, 1)


async def test_a_point_that_is_refused_for_good_is_put_aside_and_the_others_are_written(
    harness: Harness, sink: Sink
) -> None:
    sink.refused_space = "s5"
    async with running(harness):
        await harness.save(*(f"s{n}" for n in range(9)))
        await until(lambda: settled(harness))
    assert await harness.stored() == {f"s{n}": 1 for n in range(9) if n != 5}
    (letter,) = await harness.stores.dead_letters.list(limit=9)
    assert "field type conflict" in letter.reason
    assert b'"s5"' in letter.body
    assert (
        harness.stores.registry.get_sample_value(
            "eventsink_sink_writes_total", {"sink": "rollups", "outcome": "refused"}
        )
        == 1
    )


async def test_a_newer_value_replaces_the_one_that_waits(harness: Harness, sink: Sink) -> None:
    for _ in range(5):
        await harness.save("x")
    async with running(harness):
        await until(lambda: settled(harness))
    assert await harness.stored() == {"x": 5}
    assert sink.sizes == [1]


async def test_a_worker_that_ends_while_it_sees_to_its_doubts_leaves_a_note_of_them(
    stores: Stores, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(stores, sink)
    asked = asyncio.Event()

    async def hanging(self: Notes) -> Sequence[Doubt]:
        if not sink.sizes:  # at the start
            return []
        asked.set()
        await asyncio.get_running_loop().create_future()
        return []

    monkeypatch.setattr(Notes, "due", hanging)
    async with running(harness):
        sink.answers = [Unavailable("no answer within 10 s")]
        await harness.save("s")
        while await harness.owed():
            await asyncio.sleep(0.001)
        harness.delivery.seek()
        await asked.wait()
    harness.ours = False
    await harness.delivery.end()
    assert len(await stores.state.requests("rollups/in doubt")) == 1
