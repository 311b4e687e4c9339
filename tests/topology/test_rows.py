"""Rows in memory: bounded, never lost before they are saved, written over the version they were read at."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.topology.stores import Failing, Stores, at_once, opened
from topology.errors import Conflict
from topology.group.rows import ROW_OVERHEAD_BYTES, RowCache
from topology.outages import Outages
from topology.position import Position, position
from topology.state import RowKey


class Numbers:
    """A table whose rows hold one number."""

    def empty(self) -> int:
        return 0

    def pack(self, state: int) -> bytes:
        return b"%d" % state

    def unpack(self, packed: bytes) -> int:
        return int(packed)

    def weight(self, state: int) -> int:
        return 0


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


def cache(store: object, *, rows: int = 100, first_version: int = 1) -> RowCache:
    return RowCache(
        store,  # type: ignore[arg-type]  # a store, perhaps one that fails on order
        {"numbers": Numbers()},
        owing=["numbers"],
        versions=itertools.count(first_version),
        max_bytes=rows * ROW_OVERHEAD_BYTES,
        outages=Outages(sleep=at_once),
    )


def key(number: int) -> RowKey:
    return RowKey("numbers", 60 * number, "")


async def add(rows: RowCache, number: int, amount: int, upto: int) -> None:
    row = (await rows.load([key(number)]))[key(number)]
    rows.change(row, row.state + amount, position(0, upto))


async def state_of(rows: RowCache, number: int) -> tuple[int, Position]:
    row = (await rows.load([key(number)]))[key(number)]
    return row.state, row.upto


async def save_all(rows: RowCache) -> list[tuple[RowKey, int]]:
    return [(saved.key, saved.state) for saved in await rows.save(rows.dirty())]


async def test_what_is_saved_is_found_by_the_next_process(stores: Stores) -> None:
    rows = cache(stores.state)
    await add(rows, 1, 5, upto=3)
    assert await save_all(rows) == [(key(1), 5)]
    assert rows.unsaved == 0
    assert await state_of(cache(stores.state), 1) == (5, position(0, 3))


async def test_saved_rows_leave_the_cache_and_unsaved_ones_never_do(stores: Stores) -> None:
    rows = cache(stores.state, rows=10)
    for number in range(8):
        await add(rows, number, 1, upto=number)
    await save_all(rows)
    await add(rows, 0, 1, upto=20)
    for number in range(100, 109):
        await state_of(rows, number)
    assert rows.bytes_held <= 10 * ROW_OVERHEAD_BYTES
    assert rows.unsaved == 1
    assert await state_of(rows, 0) == (2, position(0, 20))
    assert await state_of(rows, 7) == (1, position(0, 7))


async def test_a_row_that_changes_while_its_write_is_in_flight_stays_unsaved(
    stores: Stores,
) -> None:
    writing = asyncio.Event()
    go_on = asyncio.Event()

    class Slow(Failing):
        async def save_rows(self, writes: object) -> None:
            writing.set()
            await go_on.wait()
            await stores.state.save_rows(writes)  # type: ignore[arg-type]

    rows = cache(Slow(stores.state))
    await add(rows, 1, 5, upto=1)
    saving = asyncio.create_task(rows.save(rows.dirty()))
    await writing.wait()
    await add(rows, 1, 7, upto=2)
    go_on.set()
    (saved,) = await saving
    assert saved.state == 5
    assert rows.unsaved == 1
    await save_all(rows)
    assert await state_of(cache(stores.state), 1) == (12, position(0, 2))


@pytest.mark.parametrize("lost", [False, True], ids=["not carried out", "answer lost"])
async def test_a_write_that_failed_is_repeated_until_it_is_known(stores: Stores, lost: bool) -> None:
    rows = cache(Failing(stores.state, lost=lost, save_rows=3))
    await add(rows, 1, 5, upto=1)
    await save_all(rows)
    await add(rows, 1, 5, upto=2)
    await save_all(rows)
    assert await state_of(cache(stores.state), 1) == (10, position(0, 2))


async def test_a_row_that_another_worker_wrote_is_a_conflict_and_not_overwritten(
    stores: Stores,
) -> None:
    ours, theirs = cache(stores.state), cache(stores.state, first_version=1 << 40)
    await add(ours, 1, 5, upto=1)
    await add(theirs, 1, 7, upto=2)
    await save_all(theirs)
    with pytest.raises(Conflict):
        await save_all(ours)
    assert await state_of(cache(stores.state), 1) == (7, position(0, 2))


async def test_reading_pauses_while_the_cache_is_full_of_unsaved_rows(stores: Stores) -> None:
    rows = cache(stores.state, rows=3)
    for number in range(3):
        await add(rows, number, 1, upto=number)
    waiting = asyncio.create_task(state_of(rows, 50))
    await asyncio.wait([waiting], timeout=0)
    await stores.state.epoch()  # the store has answered since, and the load still waits
    assert not waiting.done()
    await save_all(rows)
    assert (await waiting)[0] == 0


async def test_a_row_owes_the_sink_until_exactly_its_version_is_settled(stores: Stores) -> None:
    rows = cache(stores.state)
    await add(rows, 1, 5, upto=1)
    (first,) = await rows.save(rows.dirty())
    await add(rows, 1, 5, upto=2)
    (second,) = await rows.save(rows.dirty())
    await stores.state.settle_rows([(first.key, first.version)])
    assert [row.version for row in await stores.state.owed_rows(["numbers"], 9)] == [second.version]
    await stores.state.settle_rows([(second.key, second.version)])
    rows.settle([(second.key, second.version)])
    assert await stores.state.owed_rows(["numbers"], 9) == []


async def test_rows_that_are_handed_out_stay_in_a_cache_that_is_full(stores: Stores) -> None:
    rows = cache(stores.state, rows=10)
    for number in range(9):
        await add(rows, number, 1, upto=number)
    for upto in (20, 21):
        loaded = await rows.load([key(100), key(101)])
        for row in loaded.values():
            rows.change(row, row.state + 1, position(0, upto))
        await rows.save([each for each in rows.dirty() if each.row.key.at < 60 * 100])
    await save_all(rows)
    again = cache(stores.state)
    assert [await state_of(again, number) for number in (100, 101)] == [(2, position(0, 21))] * 2
