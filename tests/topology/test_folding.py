"""Folding: each event once into each of its windows, however batches are cut and repeated."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from schemas.events import FileDeleted, FileUploaded, LoggedIn
from topology.batch import LogEvent, by_type
from topology.group.rows import RowCache
from topology.outages import Outages
from topology.position import NOWHERE, Position, position
from topology.rollups.budgets import KeyBudget
from topology.rollups.declaration import Rollup
from topology.rollups.folding import fold
from topology.rollups.measures import Count, Sum
from topology.rollups.operators import kinds
from topology.sqlite import state as sqlite_state
from topology.sqlite.file import Database
from topology.sqlite.state import SqliteState
from topology.windows import DAY, HOUR, MINUTE, Tumbling

storage = Rollup(
    "space_storage",
    key=["space_id"],
    measures={"bytes_added": Sum(FileUploaded, "bytes"), "files_removed": Count(FileDeleted)},
)
WINDOWS = (MINUTE, HOUR, DAY)


def at(offset: int, time_s: int, event: FileUploaded | FileDeleted | LoggedIn) -> LogEvent:
    return LogEvent(position(0, offset), time_s * 1000, time_s * 1000, event, b"")


def uploaded(space: str | None, size: int) -> FileUploaded:
    return FileUploaded(file_id=None, space_id=space, bytes=size)


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqliteState]:
    database = Database(tmp_path / "rows.db", schema=sqlite_state.SCHEMA)
    await database.open()
    store = SqliteState(database)
    await store.open()
    yield store
    await database.close()


class Rows:
    """The rows of one process; a new one is what a restart has."""

    def __init__(self, store: SqliteState, first_version: int = 1, key_budget: int = 100) -> None:
        owing = [storage.table(window) for window in WINDOWS]
        self.tables = {table: kind.table for table, kind in kinds(storage).items()}
        self.cache = RowCache(
            store,
            self.tables,
            owing=owing,
            versions=itertools.count(first_version),
            max_bytes=1 << 20,
            outages=Outages(),
        )
        self.over_budget: list[str] = []
        self.budget = KeyBudget(
            self.cache, storage.name, storage.budgeted, key_budget, self.over_budget.append
        )

    async def fold(
        self, events: Sequence[LogEvent], after: Position = NOWHERE, horizon_s: int | None = None
    ) -> set[Position]:
        return await fold(
            storage,
            by_type(events),
            self.cache,
            after=after,
            horizon=lambda: horizon_s,
            budget=self.budget,
        )

    async def save(self) -> None:
        await self.cache.save(self.cache.dirty())

    async def value(self, space: str, window: int, field: str) -> int | float:
        size = WINDOWS[window]
        start = size.start(TIME)
        key = storage.row_key(size, start, (space,))
        row = (await self.cache.load([key]))[key]
        return storage.point(key, row.state).fields[field]


TIME = 1_795_467_600


async def test_an_event_counts_in_its_minute_its_hour_and_its_day(state: SqliteState) -> None:
    # 21:00     21:01
    # [a  b-----)[c------   1m: 1 + 2        1h, 1d: 1 + 2 + 4
    rows = Rows(state)
    events = [at(n, TIME + s, uploaded("x", 2**n)) for n, s in enumerate((0, 59, 60))]
    await rows.fold(events)
    assert [await rows.value("x", window, "bytes_added") for window in range(3)] == [3, 7, 7]


async def test_events_of_other_types_are_not_taken(state: SqliteState) -> None:
    rows = Rows(state)
    late = await rows.fold([at(0, TIME, LoggedIn()), at(1, TIME, uploaded(None, 5))])
    assert late == set()
    assert rows.cache.unsaved == 3
    assert await rows.value("unknown", 0, "bytes_added") == 5


async def test_what_a_row_holds_already_is_skipped_in_every_cut_of_the_batches(
    state: SqliteState,
) -> None:
    events = [at(n, TIME + n * 7 % 120, uploaded("x", 2**n)) for n in range(20)]
    first = Rows(state)
    await first.fold(events[:13])
    await first.save()
    for size in range(1, 21):
        # A restart that reads again from the very beginning, in batches of another size.
        again = Rows(state, first_version=1000 * size)
        for begin in range(0, 20, size):
            await again.fold(events[begin : begin + size])
        assert await again.value("x", 1, "bytes_added") == 2**20 - 1


async def test_rows_saved_at_different_positions_come_to_the_same_numbers(
    state: SqliteState,
) -> None:
    events = [at(n, TIME + n, uploaded("xyz"[n % 3], 1)) for n in range(30)]
    first = Rows(state)
    await first.fold(events[:10])
    await first.save()
    await first.fold(events[10:20])
    # The process dies in the middle of a checkpoint: every other row was written.
    dirty = first.cache.dirty()
    await first.cache.save(dirty[::2])
    again = Rows(state, first_version=1000)
    await again.fold(events[5:])
    expected = Counter("xyz"[n % 3] for n in range(30))
    for window in range(3):
        assert {s: await again.value(s, window, "bytes_added") for s in "xyz"} == expected


async def test_what_the_agent_saved_is_not_folded_again(
    state: SqliteState,
) -> None:
    rows = Rows(state)
    events = [at(n, TIME, uploaded("x", 1)) for n in range(4)]
    await rows.fold(events, after=position(0, 1))
    assert await rows.value("x", 0, "bytes_added") == 2


async def test_windows_before_the_horizon_are_late_and_later_ones_of_the_same_event_are_not(
    state: SqliteState,
) -> None:
    #  21:00   21:01   21:02
    #  [event--)       |horizon         1m: gone    1h and 1d: open
    rows = Rows(state)
    late = await rows.fold([at(0, TIME, uploaded("x", 1))], horizon_s=TIME + 120)
    assert late == {position(0, 0)}
    assert [await rows.value("x", window, "bytes_added") for window in range(3)] == [0, 1, 1]


async def test_a_window_that_ends_at_the_horizon_is_late_and_the_next_one_is_not(
    state: SqliteState,
) -> None:
    rows = Rows(state)
    late = await rows.fold(
        [at(0, TIME + 59, uploaded("x", 1)), at(1, TIME + 60, uploaded("x", 1))],
        horizon_s=TIME + 60,
    )
    assert late == {position(0, 0)}


async def test_a_batch_that_cannot_be_folded_leaves_every_row_as_it_was(
    state: SqliteState,
) -> None:
    rows = Rows(state)
    poison = uploaded("y", 1)
    bad = at(1, TIME, FileUploaded(file_id=None, space_id="y", bytes="many"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await rows.fold([at(0, TIME, uploaded("x", 1)), bad, at(2, TIME, poison)])
    assert rows.cache.unsaved == 0
    await rows.fold([at(0, TIME, uploaded("x", 1))])
    await rows.fold([at(2, TIME, poison)])
    assert await rows.value("x", 2, "bytes_added") == 1
    assert await rows.value("y", 2, "bytes_added") == 1


def test_key_tags_are_made_fit_to_be_stored() -> None:
    tags = storage.tags(FileUploaded(file_id=None, space_id="a\\b\x1f\nc" + "d" * 300, bytes=0))
    assert tags == (("a_b__c" + "d" * 300)[:256],)
    assert storage.tags(FileUploaded(file_id=None, space_id="", bytes=0)) == ("unknown",)
    assert storage.tags(FileUploaded(file_id=None, bytes=0)) == ("unknown",)


def test_every_field_is_written_zeros_included() -> None:
    key = storage.row_key(MINUTE, TIME, ("x",))
    point = storage.point(key, storage.empty())
    assert (point.rollup, point.window, point.time) == ("space_storage", "1m", TIME)
    assert point.tags == (("space_id", "x"),)
    assert dict(point.fields) == {"bytes_added": 0, "files_removed": 0}


def test_keys_of_any_length_cost_no_memory_beyond_their_rows() -> None:
    tracemalloc.start()
    for number in range(100):
        tags = storage.tags(FileUploaded(file_id=None, space_id=f"{number}" + "x" * 100_000, bytes=0))
        assert len(tags[0]) == 256
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000


def test_windows_that_are_not_made_of_minutes_are_no_rollup() -> None:
    with pytest.raises(ValueError, match="not made of whole minutes"):
        Rollup(
            "fine", key=["space_id"], measures={"files": Count(FileUploaded)}, windows=[Tumbling("10s", 10)]
        )
