"""`eventsink rebuild`, in one process: windows come back from the archive exactly as the events make them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agents import ROLLUPS
from schemas.events import (
    Event,
    ResourceDownloaded,
)
from schemas.reading import read, split
from tests.oracle import Rollups, placed, rollups, same
from tests.rebuilds import (
    AFTER_MS,
    DAY_MS,
    END_MS,
    EXPECTED,
    KINDS,
    LONG,
    MIDNIGHT_MS,
    MIDNIGHT_S,
    SECOND_DAY,
    THREE_DAYS,
    Worker,
    again,
    at_end,
    everything,
    kept_rows,
    lived,
    on_days,
    publish,
    sql,
    three_days,
    three_days_lived,
    upload,
)
from tests.streams import starts, streams
from tests.topology.stores import opened

pytestmark = pytest.mark.timeout(600)

DATA = Path(__file__).parent / "data"


# -- nothing changes where nothing is wrong, and everything comes back where it is --


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


def sample() -> list[Event]:
    read_ones = [read(line) for line in split((DATA / "clowder-6h.jsonl").read_bytes())]
    return [event for event in read_ones if isinstance(event, Event)]


async def test_the_sample_is_rebuilt_to_the_same_numbers(tmp_path: Path) -> None:
    events = sample()
    start_ms = min(event.time or 0 for event in events)
    since, until = start_ms // 1000, start_ms // 1000 + AFTER_MS // 1000 + 60
    async with opened(tmp_path) as stores:
        before = await lived(stores, events, start_ms)
        async with again(stores, start_ms) as worker:
            for name in ROLLUPS:
                outcome = await worker.rebuild(name, since, until)
                assert (outcome.status, outcome.changed, outcome.refused) == ("done", 0, ())
        assert await everything(stores) == before
        assert same(before, of_oracle(events, start_ms)) == []


@pytest.mark.parametrize("name", ROLLUPS)
async def test_what_was_lost_in_a_range_comes_back_and_the_rest_is_not_touched(
    tmp_path: Path, name: str
) -> None:
    async with three_days(tmp_path) as stores:
        assert same(await everything(stores), EXPECTED) == []
        await sql(stores, "DELETE FROM rollups WHERE rollup = ?", name)
        await sql(
            stores, "DELETE FROM rows WHERE kind LIKE ? AND at >= ? AND at < ?", f"{name}/%", *SECOND_DAY
        )
        async with at_end(stores) as worker:
            outcome = await worker.rebuild(name, *SECOND_DAY)
            assert (outcome.status, outcome.refused) == ("done", ())
            assert outcome.changed > 0
            assert all(": " in line and "→" in line for line in outcome.differences)
        found = await everything(stores)
        assert same(on_days(found, name, 1), on_days(EXPECTED, name, 1)) == []
        elsewhere = on_days(found, name, 0, 2)
        if name == "service_uptime":  # a result of the evening holds into the next day
            elsewhere = {
                table: {key: row for key, row in rows.items() if key[0] < SECOND_DAY[0]}
                for table, rows in elsewhere.items()
            }
        assert not any(elsewhere.values())
        async with at_end(stores) as worker:
            for day in (0, 2):
                since = MIDNIGHT_S + day * 86_400
                outcome = await worker.rebuild(name, since, since + 86_400)
                assert (outcome.status, outcome.changed) == ("done", 0), "only the sink had lost them"
        assert same(await everything(stores), EXPECTED) == []


@pytest.mark.parametrize("name", KINDS)
async def test_a_range_of_one_minute_repairs_the_hour_and_the_day_that_it_is_in(
    tmp_path: Path, name: str
) -> None:
    #  day 2   06:00           12:00
    #  [1d------------------------------------)   all lost
    #          [1h)  [1h)  …
    #          [1m)
    since = SECOND_DAY[0] + 6 * 3600
    async with three_days(tmp_path) as stores:
        await sql(
            stores, "DELETE FROM rows WHERE kind LIKE ? AND at >= ? AND at < ?", f"{name}/%", *SECOND_DAY
        )
        await sql(
            stores, "DELETE FROM rollups WHERE rollup = ? AND time >= ? AND time < ?", name, *SECOND_DAY
        )
        async with at_end(stores) as worker:
            outcome = await worker.rebuild(name, since, since + 60)
            assert (outcome.status, outcome.refused) == ("done", ())
        found = await everything(stores)
        for window, size in (("1m", 60), ("1h", 3600), ("1d", 86_400)):
            start = since - since % size
            for tables in (found, EXPECTED):
                tables[name, f"{window}!"] = {
                    key: row for key, row in tables[name, window].items() if key[0] == start
                }
            pair = [{(name, window): tables.pop((name, f"{window}!"))} for tables in (found, EXPECTED)]
            assert same(*pair) == []


@pytest.mark.parametrize("name", ROLLUPS)
async def test_what_was_falsified_is_told_and_put_right(tmp_path: Path, name: str) -> None:
    """The rows of one window stand in the place of those of another."""
    async with three_days(tmp_path) as stores:
        before = await everything(stores)
        table = f"{name}/1m"
        rows = await stores.state._database.read(
            lambda connection: connection.execute(
                "SELECT at, key, data FROM rows WHERE kind = ? AND at >= ? AND at < ? ORDER BY at",
                (table, *SECOND_DAY),
            ).fetchall()
        )
        (at, key, true), other = rows[0], next(row[2] for row in rows if row[2] != rows[0][2])
        assert true != other
        await sql(
            stores, "UPDATE rows SET data = ? WHERE kind = ? AND at = ? AND key = ?", other, table, at, key
        )
        await sql(stores, "UPDATE rollups SET fields = '{}' WHERE rollup = ? AND time = ?", name, at)
        async with at_end(stores) as worker:
            outcome = await worker.rebuild(name, *SECOND_DAY, force=True)
            assert (outcome.status, outcome.changed, len(outcome.differences)) == ("done", 1, 1)
            assert (await worker.rebuild(name, *SECOND_DAY)).changed == 0
        assert await everything(stores) == before


# -- what decides is decided as before --


async def test_values_beyond_the_budget_stay_in_other(tmp_path: Path) -> None:
    events = [upload(MIDNIGHT_MS + n * 1000, 1 << n, f"space {n % 5}") for n in range(20)]
    async with opened(tmp_path) as stores:
        await three_days_lived(stores, events, key_budget=3)
        before = await everything(stores)
        assert {tags for _, tags in before["space_storage", "1d"]} == {
            ("space 0",),
            ("space 1",),
            ("space 2",),
            ("other",),
        }
        await sql(stores, "DELETE FROM rows WHERE kind LIKE 'space_storage/1%'")
        await sql(stores, "DELETE FROM rollups")
        async with at_end(stores, key_budget=3) as worker:
            outcome = await worker.rebuild("space_storage", MIDNIGHT_S, MIDNIGHT_S + 1)
            assert (outcome.status, outcome.refused) == ("done", ())
            assert (await worker.rebuild("space_storage", MIDNIGHT_S, MIDNIGHT_S + 1)).changed == 0
        found = await everything(stores)
        for window in ("1m", "1h", "1d"):
            assert found["space_storage", window] == before["space_storage", window]


def download(at_ms: int, bytes: int = 1) -> ResourceDownloaded:
    return ResourceDownloaded(time=at_ms, resource_type="file", resource_id="f", user_id="u", bytes=bytes)


@pytest.mark.parametrize("known", [True, False], ids=["as it was decided", "decided again"])
async def test_doubled_downloads_count_once_as_they_did(tmp_path: Path, known: bool) -> None:
    #   00:00:00          1 s             1 d
    #   dd                d    d        d | d      within 50 ms, but for the two around 1 s
    midnight = MIDNIGHT_MS + DAY_MS
    times = [
        MIDNIGHT_MS,
        MIDNIGHT_MS + 5,
        MIDNIGHT_MS + 1000,
        MIDNIGHT_MS + 1060,
        midnight - 20,
        midnight + 20,
    ]
    #: In the log the later one of the first two came first.
    events = [download(at_ms) for at_ms in (times[1], times[0], *times[2:])]
    async with opened(tmp_path) as stores:
        await three_days_lived(stores, events, doubled_downloads_once=True)
        before = await everything(stores)
        days = {at: row["events"] for (at, _), row in before["resource_traffic", "1d"].items()}
        assert days == {MIDNIGHT_S: 4}
        if not known:
            await sql(stores, "DELETE FROM rows WHERE kind LIKE 'doubles/%'")
        rows = await kept_rows(stores)
        async with at_end(stores, doubled_downloads_once=True) as worker:
            range_ = MIDNIGHT_S, MIDNIGHT_S + 2 * 86_400
            outcome = await worker.rebuild("resource_traffic", *range_, check=True)
            assert (outcome.status, outcome.changed, outcome.refused) == ("done", 0, ())
            assert await kept_rows(stores) == rows
            outcome = await worker.rebuild("resource_traffic", *range_)
            assert (outcome.status, outcome.changed, outcome.refused) == ("done", 0, ())
        assert await everything(stores) == before


# -- late events, beyond the horizon --


@pytest.mark.parametrize("name", KINDS)
async def test_events_that_came_too_late_are_put_into_their_windows(tmp_path: Path, name: str) -> None:
    #  day 1        day 2        day 3     … day 12
    #  [ in time   )[ in time   )[ in time          the rest of the three days comes on day 12,
    #  [ too late  )[ too late  )                   when nothing older than two days is kept
    in_time = [
        event for n, event in enumerate(THREE_DAYS) if n % 3 or (event.time or 0) >= MIDNIGHT_MS + 2 * DAY_MS
    ]
    too_late = [event for event in THREE_DAYS if event not in in_time]
    now_ms = END_MS + 9 * DAY_MS
    expected = rollups(placed([*in_time, *too_late]), watermark_ms=now_ms)
    async with opened(tmp_path) as stores:
        await three_days_lived(stores, in_time, keep=timedelta(days=2))
        worker = Worker(stores, now_ms=now_ms, keep=timedelta(days=2))
        await worker.engine.start()
        await worker.passes(now_ms)
        worker.engine.now_ms += 61_000  # purged once a minute
        await worker.live()
        await publish(stores, too_late)
        await worker.live()
        assert await stores.state.keys_between(f"{name}/1m", 0, LONG) == []
        late = sum(
            stores.registry.get_sample_value(
                "eventsink_events_total", {"group": "rollups", "agent": agent, "outcome": "late"}
            )
            or 0
            for agent in worker.group.agents
        )
        assert late >= len(too_late)
        before = await everything(stores)
        assert same(on_days(before, name, 0, 1, 2), on_days(expected, name, 0, 1, 2)) != []
        rows = await kept_rows(stores)
        outcome = await worker.rebuild(name, MIDNIGHT_S + 3600, SECOND_DAY[1], check=True)
        assert (outcome.status, outcome.refused) == ("done", ())
        assert outcome.changed == len(outcome.differences) > 0
        assert (await everything(stores), await kept_rows(stores)) == (before, rows)
        outcome = await worker.rebuild(name, MIDNIGHT_S, SECOND_DAY[1])
        assert (outcome.status, outcome.refused) == ("done", ())
        await worker.live()
        found = await everything(stores)
        assert same(on_days(found, name, 0, 1), on_days(expected, name, 0, 1)) == []
        worker.engine.now_ms += 61_000
        await worker.live()
        await worker.engine.stop()
        assert await stores.state.keys_between(f"{name}/1m", 0, LONG) == []
        assert await everything(stores) == found
