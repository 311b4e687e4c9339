"""Budgets of key tags: the first values of a day in log order, on every reading alike; the rest is ``other``."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.topology.engine import NOW_MS, Engine, publish, rollup, unsynced
from tests.topology.stores import opened
from topology.group.rows import RowCache
from topology.outages import Outages
from topology.position import position
from topology.rollups.budgets import BudgetTable, KeyBudget, budget_table
from topology.rollups.tags import OTHER, UNKNOWN, joined
from topology.sqlite import state as sqlite_state
from topology.sqlite.file import Database
from topology.sqlite.state import SqliteState

DAY_S = 86_400
#: Noon.
TIME = 1_795_478_400 + DAY_S // 2
ROLLUP = "storage"


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqliteState]:
    database = Database(tmp_path / "rows.db", schema=sqlite_state.SCHEMA)
    await database.open()
    store = SqliteState(database)
    await store.open()
    yield store
    await database.close()


class Reader:
    """One reading of the log; a new one on the same store is what a restart has."""

    def __init__(
        self, store: SqliteState, limit: int, tags: Sequence[str | None] = ("space",), first_version: int = 1
    ) -> None:
        self.rows = RowCache(
            store,
            {budget_table(ROLLUP): BudgetTable()},
            owing=(),
            versions=itertools.count(first_version),
            max_bytes=1 << 20,
            outages=Outages(),
        )
        self.exceeded: list[str] = []
        self.budget = KeyBudget(self.rows, ROLLUP, tags, limit, self.exceeded.append)
        self._offset = itertools.count()

    async def read(self, *values: str, day: int = 0) -> list[str]:
        """The keys under which these are folded, in log order, on a day."""
        wanted = [(TIME + day * DAY_S, value, position(0, next(self._offset))) for value in values]
        return await self.budget.placed(wanted)

    async def save(self) -> None:
        await self.rows.save(self.rows.dirty())


async def test_the_first_values_of_a_day_in_log_order_have_it_and_the_rest_is_other(
    state: SqliteState,
) -> None:
    # log   b  a  b  c  a  d        budget 2: b and a
    #       b  a  b  ·  a  ·
    reader = Reader(state, limit=2)
    assert await reader.read("b", "a", "b", "c", "a", "d") == ["b", "a", "b", OTHER, "a", OTHER]
    assert reader.exceeded == ["space", "space"]


async def test_a_batch_of_its_own_for_each_decides_alike(state: SqliteState) -> None:
    reader = Reader(state, limit=2)
    placed = [(await reader.read(value))[0] for value in ("b", "a", "b", "c", "a", "d")]
    assert placed == ["b", "a", "b", OTHER, "a", OTHER]


async def test_every_day_has_a_budget_of_its_own(state: SqliteState) -> None:
    reader = Reader(state, limit=1)
    assert await reader.read("a", "b") == ["a", OTHER]
    assert await reader.read("b", "a", day=1) == ["b", OTHER]
    assert await reader.read("a", "b") == ["a", OTHER]  # late events come under the day that they are of


async def test_what_was_saved_decides_after_a_restart(state: SqliteState) -> None:
    reader = Reader(state, limit=2)
    await reader.read("a", "b")
    await reader.save()
    again = Reader(state, limit=2, first_version=100)
    assert await again.read("c", "b", "a") == [OTHER, "b", "a"]


async def test_a_replay_decides_as_the_first_reading_did_wherever_it_was_saved(
    tmp_path: Path, state: SqliteState
) -> None:
    # log    a  b  c  d  b  a         saved after n of them, read again from the first
    values = ["a", "b", "c", "d", "b", "a"]
    expected = ["a", "b", OTHER, OTHER, "b", "a"]
    for saved in range(len(values) + 1):
        day = saved  # nothing is known of it yet
        reader = Reader(state, limit=2, first_version=1000 * saved + 1)
        await reader.read(*values[:saved], day=day)
        await reader.save()
        again = Reader(state, limit=2, first_version=1000 * saved + 500)
        assert await again.read(*values, day=day) == expected, f"saved after {saved}"


async def test_what_stands_for_no_value_needs_no_budget(state: SqliteState) -> None:
    reader = Reader(state, limit=1)
    placed = await reader.read(UNKNOWN, OTHER, "a", UNKNOWN, "b")
    assert placed == [UNKNOWN, OTHER, "a", UNKNOWN, OTHER]


async def test_each_tag_has_a_budget_and_a_tag_of_few_values_none(state: SqliteState) -> None:
    #         action   type   space         budgets of 1: type, space
    reader = Reader(state, limit=1, tags=(None, "type", "space"))
    keys = [("viewed", "file", "x"), ("taken", "file", "y"), ("seen", "dataset", "x")]
    placed = await reader.read(*map(joined, keys))
    assert placed == [
        joined(key) for key in (("viewed", "file", "x"), ("taken", "file", OTHER), ("seen", OTHER, "x"))
    ]
    assert reader.exceeded == ["space", "type"]


async def test_one_warning_a_tag_and_day_says_what_to_do(
    state: SqliteState, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(state, limit=1)
    with caplog.at_level(logging.WARNING, "topology.rollups.budgets"):
        await reader.read("a", "b", "c")
        await reader.read("d")
        await reader.read("a", "b", day=1)
    assert len(caplog.records) == 2
    message = caplog.messages[0]
    assert "storage: more than 1 different values of space" in message
    assert "EVENTSINK_KEY_BUDGET" in message
    assert len(reader.exceeded) == 4


async def test_a_value_within_its_budget_changes_its_row_once(state: SqliteState) -> None:
    reader = Reader(state, limit=2)
    await reader.read("a", "b", "c")
    await reader.save()
    await reader.read("a", "b", "c", "d")
    assert reader.rows.unsaved == 0


@pytest.mark.parametrize("dies_after", range(5))
async def test_the_rest_is_counted_under_other_whenever_the_process_dies(
    tmp_path: Path, dies_after: int
) -> None:
    # log    a  b  c  a  d        budget 2
    #        a  b  ·  a  ·
    uploads = [
        {"type": "storage.file_uploaded", "time": NOW_MS + at, "file_id": "f", "space_id": space, "bytes": 1}
        for at, space in enumerate("abcad")
    ]
    async with opened(tmp_path) as stores:
        await unsynced(stores)
        engine = Engine(stores, by_hand=True, key_budget=2)
        await engine.start()
        await publish(stores, uploads[:dies_after])
        await engine.folded()
        await engine.checkpoint()
        await publish(stores, uploads[dies_after:])
        await engine.folded()  # and not saved
        await engine.crash()
        engine = Engine(stores, by_hand=True, key_budget=2)
        await engine.start()
        await engine.folded()
        await engine.checkpoint()
        rows = await rollup(stores, "space_storage", "1h")
        assert {tags: row["files_added"] for (_, tags), row in rows.items()} == {
            ("a",): 2,
            ("b",): 1,
            (OTHER,): 2,
        }
        await engine.stop()


def test_values_are_stored_as_fingerprints_and_weigh_what_they_hold() -> None:
    table = BudgetTable()
    values = {1, 2**63 - 1, 77}
    assert table.unpack(table.pack(values)) == values
    assert table.weight(values) == 3 * table.weight({1})
    assert table.empty() == set()
