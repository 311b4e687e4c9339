"""What happens between two awaits: other agents, other workers, other logs. Each was once a way to lose a number."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agents import AGENTS
from agents.storage import space_storage
from tests.oracle import same
from tests.topology import engine as engine_module
from tests.topology import lives
from tests.topology.engine import NOW_MS, Engine, publish, rollup
from tests.topology.lives import AT_LAST, FIRST, THEN, everything, must_be
from tests.topology.stores import Failing, Stores, opened
from topology import windows
from topology.agents import Agent, Batches
from topology.errors import Unavailable
from topology.group.rows import RowCache
from topology.position import place, position
from topology.sinks import Point
from topology.state import RowKey, StoredRow

DAY_MS = 86_400_000


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Stores]:
    """Stores of another file: its log is not the log of the first."""
    folder = tmp_path / "other"
    folder.mkdir()
    async with opened(folder) as stores:
        yield stores


def upload(time_ms: int = NOW_MS - 60_000) -> dict[str, Any]:
    return {"type": "storage.file_uploaded", "time": time_ms, "file_id": "f", "space_id": "s", "bytes": 1}


async def files_added(stores: Stores, window: str = "1h") -> int:
    rows = await rollup(stores, "space_storage", window)
    return sum(fields["files_added"] for fields in rows.values())


async def lived(engine: Engine) -> None:
    await engine.folded()
    await engine.checkpoint()


async def test_an_agent_that_is_ahead_moves_no_horizon_for_one_that_is_behind(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def storage(batches: Batches) -> None:
        async for batch in batches:
            await go_on.wait()
            await batch.fold(space_storage)

    slow = Agent(name="storage", group="rollups", rollups=(space_storage,), body=storage)
    monkeypatch.setattr(engine_module, "AGENTS", [slow if a.name == "storage" else a for a in AGENTS])
    engine = Engine(stores, keep=timedelta(days=35))
    await engine.start()
    positions = engine.groups[0].reading.positions
    for offset, days in enumerate((200, 100)):
        await publish(stores, [upload(NOW_MS - days * DAY_MS)])
        while positions["traffic"] < 0 or place(positions["traffic"]).offset < offset:
            await engine.tick()
    await engine.checkpoint()
    go_on.set()
    await lived(engine)
    await engine.stop()
    assert await files_added(stores, "1d") == 2


async def test_a_row_purged_while_it_is_being_loaded_is_not_begun_anew(stores: Stores) -> None:
    class Slow(Failing):
        answering: asyncio.Event | None = None
        asked = asyncio.Event()

        async def load_rows(self, keys: Sequence[RowKey]) -> Mapping[RowKey, StoredRow]:
            if self.answering is not None and keys[0].table.startswith("space_storage"):
                self.asked.set()
                await self.answering.wait()
            rows: Mapping[RowKey, StoredRow] = await stores.state.load_rows(keys)
            return rows

    slow = Slow(stores.state)
    old = NOW_MS - 35 * DAY_MS
    old += 1000 - old % 60_000  # its minute is the first that the next horizon passes
    engine = Engine(stores, keep=timedelta(days=35))
    await engine.start()
    await publish(stores, [upload(old)] * 5)
    await lived(engine)
    await publish(stores, [{"type": "activity.logged_in", "user_id": "u", "time": NOW_MS - 30_000}])
    await lived(engine)
    await engine.stop()
    assert await files_added(stores, "1m") == 5

    engine = Engine(stores, keep=timedelta(days=35))
    engine.parts = dataclasses.replace(engine.parts, store=slow)
    await engine.start()
    slow.answering = asyncio.Event()
    await publish(stores, [upload(old)])
    await slow.asked.wait()
    engine.now_ms += 120_000
    for agent in engine.groups[0].agents:
        engine.groups[0].reading.seen(agent, engine.now_ms + 10_000)
    await engine.groups[0].checkpoint()
    slow.answering.set()
    await lived(engine)
    await engine.stop()
    assert await files_added(stores, "1m") == 5


async def test_a_log_replaced_while_its_reader_is_being_opened_is_read_from_its_start(
    stores: Stores, other: Stores
) -> None:
    class Replaced(Failing):
        """The broker is away, and comes back with an empty disk."""

        async def reader(self, offset: int) -> Any:
            if self._inner is stores.log:
                self._inner = other.log
                raise Unavailable("the broker is away")
            return await self._inner.reader(offset)

    engine = Engine(stores)
    await engine.start()
    await publish(stores, [upload()] * 10)
    await lived(engine)
    await engine.stop()
    await publish(other, [upload(NOW_MS - 61_000)] * 15)
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, log=Replaced(stores.log))
    await engine.start()
    async with asyncio.timeout(60):
        while any(place(p).offset != 14 for p in engine.groups[0].reading.positions.values()):
            await engine.tick()
    await engine.checkpoint()
    await engine.stop()
    assert await files_added(stores) == 25


async def test_a_log_replaced_just_after_its_reader_was_opened_is_noticed(
    stores: Stores, other: Stores
) -> None:
    class Replaced(Failing):
        """The reader is of the new log, though the message was still found in the old one."""

        async def reader(self, offset: int) -> Any:
            self._inner = other.log
            return await self._inner.reader(offset)

    engine = Engine(stores)
    await engine.start()
    await publish(stores, [upload()] * 10)
    await lived(engine)
    await engine.stop()
    await publish(other, [upload(NOW_MS - 61_000)] * 15)
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, log=Replaced(stores.log))
    await engine.start()
    async with asyncio.timeout(60):
        while any(place(p).offset != 14 for p in engine.groups[0].reading.positions.values()):
            await engine.tick()
    await engine.checkpoint()
    await engine.stop()
    assert await files_added(stores) == 25


async def test_a_group_that_starts_after_the_log_was_replaced_names_it_like_the_others(
    stores: Stores, other: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the group "rollups" ran on the first log; "archive" starts on the second one.
    monkeypatch.setattr(engine_module, "AGENTS", [a for a in AGENTS if a.group == "rollups"])
    engine = Engine(stores)
    await engine.start()
    await publish(stores, [{"type": "activity.logged_in", "user_id": "u"}] * 3)  # no time: arrivals
    await lived(engine)
    await engine.stop()
    monkeypatch.setattr(engine_module, "AGENTS", AGENTS)
    await publish(other, [{"type": "activity.signed_up", "user_id": "v"}] * 2)
    engine = Engine(stores)
    engine.now_ms += DAY_MS
    engine.parts = dataclasses.replace(engine.parts, log=other.log)
    await engine.start()
    async with asyncio.timeout(60):
        while any(
            p < 0 or place(p).offset != 1
            for group in engine.groups
            for p in group.reading.positions.values()
            if p < 0 or place(p).epoch == 1 or group.name == "archive"
        ) or any(place(p).epoch != 1 for group in engine.groups for p in group.reading.positions.values()):
            await engine.tick()
    await engine.checkpoint()
    await engine.stop()
    archived = await stores.raw_events.query(since=None, until=None, type=None, limit=9)
    assert [(place(event.position).epoch, event.time) for event in archived] == [(1, engine.now_ms)] * 2


async def test_a_crash_before_the_first_position_is_saved_knows_a_new_log_all_the_same(
    stores: Stores, other: Stores
) -> None:
    class Dying(Failing):
        """The last step of the first checkpoint never happens; what came before it has."""

        async def save_group(self, group: str, state: Any) -> None:
            if any(position >= 0 for position in state.positions.values()):
                await asyncio.get_running_loop().create_future()
            await stores.state.save_group(group, state)

    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, store=Dying(stores.state))
    await engine.start()
    await publish(stores, [upload()] * 10)
    await engine.folded()
    checkpoint = asyncio.create_task(engine.groups[0].checkpoint())
    while await files_added(stores) != 10:
        await engine.tick()
    checkpoint.cancel()
    await asyncio.gather(checkpoint, return_exceptions=True)
    await engine.crash()
    await publish(other, [upload(NOW_MS - 61_000)] * 4)
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, log=other.log)
    await engine.start()
    async with asyncio.timeout(60):
        while any(p < 0 or place(p).offset != 3 for p in engine.groups[0].reading.positions.values()):
            await engine.tick()
    await engine.checkpoint()
    await engine.stop()
    assert await files_added(stores) == 14


async def test_a_write_of_a_worker_that_was_superseded_does_not_stay(stores: Stores) -> None:
    class Hanging(Failing):
        let_go = asyncio.Event()
        writing = asyncio.Event()

        async def write(self, points: Sequence[Point]) -> None:
            self.writing.set()
            await self.let_go.wait()
            await stores.rollups.write(points)

    hanging = Hanging(stores.rollups)
    first = Engine(stores)
    first.parts = dataclasses.replace(first.parts, rollup_sink=hanging)
    await first.start()
    await publish(stores, [upload()])
    await first.folded()
    late = asyncio.create_task(first.groups[0].checkpoint())
    await hanging.writing.wait()
    second = Engine(stores)
    await second.start()
    await publish(stores, [upload()])
    await second.folded()
    await second.checkpoint()
    while await files_added(stores) != 2:
        await second.tick()
    hanging.let_go.set()
    await asyncio.gather(late, return_exceptions=True)
    while not await stores.state.owed_rows(["space_storage/1h"], 9):
        await second.tick()
    second.groups[0].seek_owed()
    while await stores.state.owed_rows(["space_storage/1h"], 9):
        await second.tick()
    await first.crash()
    await second.stop()
    assert await files_added(stores) == 2


async def test_a_small_cache_under_slow_saves_loses_nothing(stores: Stores) -> None:
    class Slow(Failing):
        async def save_rows(self, writes: Any) -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            await stores.state.save_rows(writes)

    engine = Engine(stores)
    engine.parts = dataclasses.replace(
        engine.parts,
        store=Slow(stores.state),
        cache_bytes=40_000,
        checkpoint_every=timedelta(milliseconds=1),
    )
    await engine.start()
    for n in range(60):
        await publish(stores, [upload(NOW_MS - 60_000 * (n * 20 + m)) for m in range(20)])
    await lived(engine)
    await engine.stop()
    assert await files_added(stores, "1m") == 1200
    assert await files_added(stores, "1d") == 1200


async def test_rows_of_every_kind_that_leave_a_tiny_cache_while_they_are_saved_and_written_come_back(
    stores: Stores,
) -> None:
    class Slow(Failing):
        async def save_rows(self, writes: Any) -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            await stores.state.save_rows(writes)

        async def write(self, points: Sequence[Point]) -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            await stores.rollups.write(points)

    engine = Engine(stores)
    engine.parts = dataclasses.replace(
        engine.parts,
        store=Slow(stores.state),
        rollup_sink=Slow(stores.rollups),
        cache_bytes=4_000,  # a few rows
        checkpoint_every=timedelta(milliseconds=1),
    )
    await engine.start()
    events = [*FIRST, *THEN, *AT_LAST]
    for event in events:
        await publish(stores, [event])
        await engine.tick()
    await lives.lived(engine)
    await engine.stop()
    assert same(must_be(events), await everything(stores)) == []


async def test_a_row_that_leaves_the_cache_while_another_is_looked_up_is_not_taken_for_absent(
    stores: Stores,
) -> None:
    class Slow(Failing):
        asked = asyncio.Event()
        answering = asyncio.Event()

        async def load_rows(self, keys: Sequence[RowKey]) -> Mapping[RowKey, StoredRow]:
            if peeked in keys:
                self.asked.set()
                await self.answering.wait()
            rows: Mapping[RowKey, StoredRow] = await stores.state.load_rows(keys)
            return rows

    there, peeked, *others = (space_storage.row_key(windows.MINUTE, 60 * n, ("s",)) for n in range(20))
    slow = Slow(stores.state)
    cache = RowCache(
        slow,
        {there.table: space_storage},
        owing=[there.table],
        versions=itertools.count(1),
        max_bytes=2_000,
        outages=stores.outages,
    )
    row = (await cache.load([there]))[there]
    cache.change(row, (1, 0, 1, 0, 1), position(0, 0))
    await cache.save(cache.dirty())
    peeking = asyncio.create_task(cache.peek([there, peeked]))
    await slow.asked.wait()
    for other in others:
        await cache.load([other])
    slow.answering.set()
    assert await peeking == {there: (1, 0, 1, 0, 1)}


async def test_a_write_that_is_carried_out_after_newer_ones_does_not_stay(stores: Stores) -> None:
    class Late(Failing):
        """Its first write is not answered in time, and carried out at last."""

        first: Sequence[Point] | None = None

        async def write(self, points: Sequence[Point]) -> None:
            if self.first is None:
                self.first = points
                raise Unavailable("no answer within 10 s")
            await stores.rollups.write(points)

    late = Late(stores.rollups)
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, rollup_sink=late)
    await engine.start()
    await publish(stores, FIRST)
    await lives.lived(engine)
    await publish(stores, [*THEN, *AT_LAST])
    await lives.lived(engine)
    assert late.first is not None
    await stores.rollups.write(late.first)
    assert same(must_be([*FIRST, *THEN, *AT_LAST]), await everything(stores)) != []
    engine.groups[0].seek_owed()
    async with asyncio.timeout(60):
        while same(must_be([*FIRST, *THEN, *AT_LAST]), await everything(stores)):
            await engine.tick()
    await lives.lived(engine)
    await engine.stop()
