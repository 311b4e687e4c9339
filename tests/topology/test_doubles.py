"""Doubled downloads: one within 50 ms of an earlier one that counts does not count, on every reading alike."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Event, ResourceDownloaded, ResourceViewed
from tests.topology.engine import NOW_MS, Engine, publish, rollup
from tests.topology.stores import opened
from topology.batch import LogEvent
from topology.group.doubles import Counted, Doubles, DoublesTable
from topology.group.rows import RowCache
from topology.outages import Outages
from topology.position import place, position
from topology.sqlite import state as sqlite_state
from topology.sqlite.file import Database
from topology.sqlite.state import SqliteState

#: A whole second.
SECOND_MS = 1_795_478_400_000
TABLE = "doubles/rollups"


def download(at_ms: int, **fields: Any) -> tuple[int, Event]:
    given: dict[str, Any] = {"resource_type": "file", "resource_id": "f", "user_id": "u", "bytes": 5} | fields
    return at_ms, ResourceDownloaded(time=SECOND_MS + at_ms, **given)


def logged(events: Iterable[tuple[int, Event]]) -> list[LogEvent]:
    return [
        LogEvent(position(0, offset), SECOND_MS + at_ms, SECOND_MS, event, b"")
        for offset, (at_ms, event) in enumerate(events)
    ]


class NoStore:
    """A store in which there is nothing."""

    async def load_rows(self, keys: object) -> dict[Any, Any]:
        return {}


class Reader:
    """One reading of the log; a new one on the same store is what a restart has."""

    def __init__(self, store: Any, first_version: int = 1) -> None:
        self.rows = RowCache(
            store,
            {TABLE: DoublesTable()},
            owing=(),
            versions=itertools.count(first_version),
            max_bytes=1 << 20,
            outages=Outages(),
        )
        self._doubles = Doubles(self.rows, TABLE)

    async def doubled(self, events: Sequence[LogEvent]) -> list[int]:
        """Offsets of those that do not count."""
        return sorted(place(at).offset for at in await self._doubles.among(events))

    async def save(self) -> None:
        await self.rows.save(self.rows.dirty())


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqliteState]:
    database = Database(tmp_path / "rows.db", schema=sqlite_state.SCHEMA)
    await database.open()
    store = SqliteState(database)
    await store.open()
    yield store
    await database.close()


async def doubled(*events: tuple[int, Event]) -> list[int]:
    return await Reader(NoStore()).doubled(logged(events))


async def test_one_within_50_ms_of_one_that_counts_does_not_count() -> None:
    # ms   0      50 51
    #      A------x  B
    assert await doubled(download(0), download(50), download(51)) == [1]


async def test_what_does_not_count_doubles_nothing() -> None:
    # ms   0    40    80
    #      A----x     B          80 is within 50 ms of what did not count
    assert await doubled(download(0), download(40), download(80)) == [1]


async def test_earlier_is_by_the_log_and_near_is_in_both_directions_of_time() -> None:
    # log  1: 40 ms   2: 0 ms
    assert await doubled(download(40), download(0)) == [1]


@pytest.mark.parametrize("edge_ms", [0, -1, -49, -50])
async def test_the_edge_of_a_second_is_no_edge(edge_ms: int) -> None:
    # ms   edge      0 | the next second
    #      A-----------|--x
    assert await doubled(download(edge_ms), download(edge_ms + 50)) == [1]
    assert await doubled(download(edge_ms + 50), download(edge_ms)) == [1]
    assert await doubled(download(edge_ms), download(edge_ms + 51)) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"resource_id": "g"},
        {"user_id": "v"},
        {"user_id": None},
        {"bytes": 6},
        {"bytes": None},
        {"source": "there"},
        {"resource_type": "dataset"},
    ],
)
async def test_only_like_downloads_of_files_are_doubles(fields: dict[str, Any]) -> None:
    assert await doubled(download(0), download(1, **fields)) == []


async def test_events_with_an_id_are_told_apart_by_it() -> None:
    assert await doubled(download(0, id="1"), download(1, id="2")) == []
    assert await doubled(download(0, id="1"), download(1)) == []


async def test_nobody_else_is_doubled() -> None:
    view = ResourceViewed(time=SECOND_MS, resource_type="file", resource_id="f", user_id="u")
    assert await doubled((0, view), (1, view)) == []
    datasets = [download(at, resource_type="dataset") for at in (0, 1)]
    assert await doubled(*datasets) == []


TIMES = st.lists(st.integers(-120, 120), max_size=12)


@settings(max_examples=50)
@given(TIMES, st.integers(1, 5))
async def test_any_cut_into_batches_gives_the_same(times: list[int], size: int) -> None:
    events = logged(download(at) for at in times)
    whole = await Reader(NoStore()).doubled(events)
    reader = Reader(NoStore())
    pieces = [await reader.doubled(events[at : at + size]) for at in range(0, len(events), size)]
    assert [offset for piece in pieces for offset in piece] == whole
    # The rule, in the plainest way.
    counts: list[int] = []
    for at in times:
        if not any(abs(at - other) <= 50 for other in counts):
            counts.append(at)
    assert len(times) - len(whole) == len(counts)


async def test_a_replay_decides_as_the_first_reading_did_wherever_it_was_saved(state: SqliteState) -> None:
    # ms   0  30  60   1030  990    one is saved, the others are read again with it
    for saved in range(6):
        of_this_life = [download(at, resource_id=f"f{saved}") for at in (0, 30, 60, 1030, 990)]
        events = logged(of_this_life)
        reader = Reader(state, first_version=1000 * saved + 1)
        await reader.doubled(events[:saved])
        await reader.save()
        again = Reader(state, first_version=1000 * saved + 500)
        assert await again.doubled(events) == [1, 4], f"saved after {saved}"


def test_seconds_are_stored_as_they_are() -> None:
    table = DoublesTable()
    second = {b"f" * 16: [Counted(5, position(0, 1)), Counted(70, position(0, 2))]}
    assert table.unpack(table.pack(second)) == second
    assert table.weight(second) == 2 * table.weight({b"g": [Counted(1, position(0, 1))]})
    assert table.empty() == {}


@pytest.mark.parametrize(("once", "counted"), [(False, 2), (True, 1)])
async def test_off_unless_it_is_chosen(tmp_path: Path, once: bool, counted: int) -> None:
    event = {"type": "traffic.resource_downloaded", "resource_type": "file", "resource_id": "f", "bytes": 7}
    async with opened(tmp_path) as stores:
        # What nobody chose is what ``GroupParts`` has by default.
        chosen: dict[str, Any] = {"doubled_downloads_once": True} if once else {}
        engine = Engine(stores, by_hand=True, **chosen)
        await publish(stores, [event | {"time": NOW_MS}, event | {"time": NOW_MS + 10}])
        await engine.start()
        await engine.folded()
        await engine.checkpoint()
        (row,) = (await rollup(stores, "resource_traffic", "1h")).values()
        assert row == {"events": counted, "bytes": 7 * counted, "items": 0, "unique_users": 0}
        await engine.stop()
