"""`eventsink rebuild`, in one process: windows come back from the archive exactly as the events make them."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agents import AGENTS, ROLLUPS
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
from schemas.reading import read, split
from tests.oracle import Rollups, placed, rollups, same
from tests.streams import starts, streams
from tests.topology import engine as engine_module
from tests.topology.engine import Engine
from tests.topology.stores import Failing, Killed, Stores, opened
from tests.topology.test_crash_at_every_step import guard
from topology.errors import Unavailable
from topology.groups import Group
from topology.log import NDJSON, Outgoing
from topology.position import NOWHERE
from topology.reading import ALLOWED_DISORDER_MS
from topology.rebuilding import Progress, progress
from topology.recomputing import Rebuild
from topology.state import GroupState, Request, RowKey, RowWrite, StateStore, StoredRow
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


def sample() -> list[Event]:
    read_ones = [read(line) for line in split((DATA / "clowder-6h.jsonl").read_bytes())]
    return [event for event in read_ones if isinstance(event, Event)]


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


@pytest.mark.parametrize("name", ROLLUPS)
async def test_what_was_lost_in_a_range_comes_back_and_the_rest_is_not_touched(
    tmp_path: Path, name: str
) -> None:
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
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
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
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
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
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


# -- what is not done --


@pytest.mark.parametrize("name", KINDS)
async def test_a_check_changes_nothing_and_tells_what_a_rebuild_would_change(
    tmp_path: Path, name: str
) -> None:
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
        await sql(stores, "DELETE FROM rows WHERE kind LIKE ? AND at >= ?", f"{name}/%", SECOND_DAY[0])
        async with at_end(stores) as worker:
            rows, sink = await kept_rows(stores), await everything(stores)
            told = await worker.rebuild(name, *SECOND_DAY, check=True)
            assert (told.status, told.refused) == ("done", ())
            assert told.changed == len(told.differences) > 0
            assert (await kept_rows(stores), await everything(stores)) == (rows, sink)
            done = await worker.rebuild(name, *SECOND_DAY)
            assert (done.changed, done.differences) == (told.changed, told.differences)
        assert same(await everything(stores), EXPECTED) == []


@pytest.mark.parametrize("name", KINDS)
async def test_a_window_of_which_the_archive_lost_events_is_left_alone_unless_forced(
    tmp_path: Path, name: str
) -> None:
    lost_ms = (
        MIDNIGHT_MS
        + {"space_storage": 25, "extractor_runtime": 28, "service_uptime": 24, "user_activity": 25}[name]
        * HOUR_MS
    )
    lost_ms += 1800_000 if name == "service_uptime" else 0
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
        before = await everything(stores)
        await sql(stores, "DELETE FROM events WHERE time = ?", lost_ms)
        lost_minute = lost_ms // 60_000 * 60
        await sql(stores, "DELETE FROM rollups WHERE rollup = ? AND window = '1m'", name)
        async with at_end(stores) as worker:
            outcome = await worker.rebuild(name, *SECOND_DAY)
            assert (outcome.status, outcome.changed) == ("done", 0)
            windows = 3 if name in ("space_storage", "user_activity") else 1
            assert (outcome.left_alone, len(outcome.refused)) == (windows, windows)
            for line in outcome.refused:
                assert "events in it, the archive holds" in line
            assert any(line.startswith("1m ") for line in outcome.refused)
            assert (await worker.rebuild(name, *SECOND_DAY)).left_alone == windows, "as often as it is asked"
            found = await everything(stores)
            assert (
                same(
                    on_windows(found, name, lost_minute),
                    {(name, "1h"): before[name, "1h"], (name, "1d"): before[name, "1d"]},
                )
                == []
            )
            outcome = await worker.rebuild(name, *SECOND_DAY, force=True)
            assert (outcome.status, outcome.left_alone) == ("done", 0)
            assert outcome.changed == len(outcome.differences) >= windows
        rest = [event for event in THREE_DAYS if event.time != lost_ms]
        found = on_days(await everything(stores), name, 1)
        expected = on_days(rollups(placed(rest), watermark_ms=END_MS), name, 1)
        if name != "extractor_runtime":  # zeros stay where something was
            assert same(with_content(found), expected) == []
        else:
            assert same(found, expected) == []


def on_windows(found: Rollups, name: str, minute: int) -> Rollups:
    return {(name, window): found[name, window] for window in ("1h", "1d")}


def with_content(found: Rollups) -> Rollups:
    """Without windows in which nothing is counted: a correction writes zeros."""
    return {
        table: {key: row for key, row in rows.items() if any(row.values())} for table, rows in found.items()
    }


async def test_a_gone_window_of_which_the_archive_lost_events_keeps_its_values(tmp_path: Path) -> None:
    async with opened(tmp_path) as stores:
        await three_days_lived(stores, keep=timedelta(hours=30))
        async with at_end(stores, keep=timedelta(hours=1)) as worker:
            worker.engine.now_ms += DAY_MS
            await worker.passes(END_MS + DAY_MS)
            worker.engine.now_ms += 61_000
            await worker.live()
            assert await stores.state.keys_between("extractor_runtime/1m", 0, SECOND_DAY[1]) == []
            before = await everything(stores)
            await sql(stores, "DELETE FROM events WHERE type = 'extraction.succeeded'")
            outcome = await worker.rebuild("extractor_runtime", *SECOND_DAY)
            assert (outcome.status, outcome.differences) == ("done", ())
            assert outcome.left_alone > 0
            assert await everything(stores) == before
            outcome = await worker.rebuild("extractor_runtime", *SECOND_DAY, force=True)
            assert outcome.left_alone == 0
            assert outcome.changed > 0
            days = {
                at: row["succeeded"]
                for (at, _), row in (await everything(stores))["extractor_runtime", "1d"].items()
            }
            assert days[SECOND_DAY[0]] == 0


async def test_a_rebuild_waits_for_the_archive_and_says_when_it_does_not_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as stores:
        worker = Worker(stores, now_ms=END_MS)
        await worker.engine.start()
        await publish(stores, THREE_DAYS)
        await worker.engine.folded()
        # The archive has the events; that it has them is not saved.
        outcome = await worker.rebuild("space_storage", *SECOND_DAY)
        assert outcome.status == "failed"
        assert outcome.said.startswith("the archive is behind")
        assert "\n" not in outcome.said
        await worker.live()
        assert (await worker.rebuild("space_storage", *SECOND_DAY)).status == "done"
        await publish(stores, [upload(SECOND_DAY[0] * 1000)])
        await worker.engine.folded()
        waiting = asyncio.create_task(worker.rebuild("space_storage", *SECOND_DAY))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await worker.engine.checkpoint()
        assert (await waiting).status == "done"
        await worker.engine.stop()


async def test_without_an_archive_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "AGENTS", [agent for agent in AGENTS if agent.group == "rollups"])
    async with working(tmp_path, now_ms=END_MS) as worker:
        await publish(worker.stores, THREE_DAYS)
        await worker.live()
        for name in ROLLUPS:
            outcome = await worker.rebuild(name, *SECOND_DAY)
            assert outcome.status == "failed"
            assert outcome.said == "there is no archive to rebuild from: run a worker with the group archive"


async def test_a_rollup_that_the_group_has_not_is_said(tmp_path: Path) -> None:
    async with working(tmp_path, now_ms=END_MS) as worker:
        outcome = await worker.rebuild("nonsense", 0, 60)
        assert (outcome.status, outcome.said) == ("failed", "group rollups has no rollup nonsense")


async def test_a_request_that_nobody_understands_fails_and_ends_no_worker(tmp_path: Path) -> None:
    async with working(tmp_path, now_ms=END_MS) as worker:
        asked = uuid7(END_MS)
        await worker.stores.state.put_request(Request(id=asked, group="rollups", what=b'{"rollup": 7}'))
        outcome = await worker.over(asked)
        assert outcome.status == "failed"
        assert "not understood" in outcome.said


@pytest.mark.parametrize(("since", "until"), [(0, LONG), (LONG - 60, LONG)])
@pytest.mark.parametrize("name", KINDS[:3])
async def test_a_range_without_bounds_takes_no_longer_than_what_is_in_it(
    tmp_path: Path, name: str, since: int, until: int
) -> None:
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
        before = await everything(stores)
        async with at_end(stores) as worker, asyncio.timeout(30):
            outcome = await worker.rebuild(name, since, until)
            assert (outcome.status, outcome.changed, outcome.refused) == ("done", 0, ())
            assert (outcome.windows > 0) == (since == 0 and until == LONG)
        assert await everything(stores) == before


# -- while other things happen --


@pytest.mark.parametrize("name", KINDS)
async def test_a_worker_folds_on_while_it_rebuilds(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path) as stores:
        worker = Worker(stores, now_ms=END_MS)
        await worker.engine.start()
        await publish(stores, THREE_DAYS[::2])
        await worker.live()
        rest = THREE_DAYS[1::2]
        rebuilding = True

        async def rebuild() -> None:
            while rebuilding:
                outcome = await worker.rebuild(name, MIDNIGHT_S, MIDNIGHT_S + 3 * 86_400)
                assert (outcome.status, outcome.changed, outcome.refused) == ("done", 0, ())

        async def save() -> None:
            while rebuilding:
                await worker.engine.checkpoint()
                await asyncio.sleep(0.001)

        others = [asyncio.create_task(rebuild()), asyncio.create_task(save())]
        for event in rest:
            await publish(stores, [event])
            await asyncio.sleep(0.005)
        rebuilding = False
        await asyncio.gather(*others)
        await worker.live()
        await worker.passes(END_MS)
        await worker.engine.stop()
        expected = rollups(placed([*THREE_DAYS[::2], *rest]), watermark_ms=END_MS)
        assert same(await everything(stores), expected) == []


class Broken(Failing):
    """A store of rows that is away when it is asked for the archive's position, for longer than anyone is patient."""

    async def read_group(self, group: str) -> GroupState | None:
        if group == "archive" and self.failures.get("read_group", 0) > 0:
            self.failures["read_group"] -= 1
            await asyncio.sleep(0)
            raise Unavailable("read_group failed on order")
        state: GroupState | None = await self._inner.read_group(group)
        return state


async def test_a_store_that_is_away_for_long_is_no_archive_that_is_behind(tmp_path: Path) -> None:
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
        broken = Broken(stores.state)
        async with at_end(stores, store=broken) as worker:
            broken.failures["read_group"] = 500
            outcome = await worker.rebuild("space_storage", *SECOND_DAY)
            assert (outcome.status, outcome.changed, outcome.said) == ("done", 0, "")
            assert broken.failures["read_group"] == 0


async def test_rows_that_a_crash_left_ahead_of_the_position_lose_nothing(tmp_path: Path) -> None:
    # log        1 … n  │ n+1 … m
    # position   saved ─┘        │   the process died between 1 and 3 of a checkpoint:
    # rows       up to ──────────┘   the next one reads n+1 … again and skips what a row has
    half = len(THREE_DAYS) // 2

    class Dying(Failing):
        async def save_group(self, group: str, state: GroupState) -> None:
            if group == "rollups" and self.failures.get("save_group", 0):
                await asyncio.get_running_loop().create_future()
            await self._inner.save_group(group, state)

    async with opened(tmp_path) as stores:
        dying = Dying(stores.state)
        worker = Worker(stores, now_ms=END_MS, store=dying)
        await worker.engine.start()
        await publish(stores, THREE_DAYS[:half])
        await worker.live()
        dying.failures["save_group"] = 1
        await publish(stores, THREE_DAYS[half:])
        await worker.engine.folded()
        dead = asyncio.create_task(worker.group.checkpoint())
        while await stores.state.owed_rows(["space_storage/1m"], 1) or not await stores.state.keys_between(
            "space_storage/1d", MIDNIGHT_S + 2 * 86_400, LONG
        ):
            await asyncio.sleep(0.001)
        for group in worker.engine.groups:
            if group.name == "archive":
                await group.checkpoint()
        worker.engine.give_up()
        dead.cancel()
        await asyncio.gather(dead, return_exceptions=True)
        await worker.engine.crash()
        # Asked before there is a worker, so it is done before anything is read again; forced, so nothing hinders it.
        ids = [
            await ask(stores.state, name, MIDNIGHT_S, END_MS // 1000, now_ms=END_MS, force=True)
            for name in ROLLUPS
        ]
        worker = Worker(stores, now_ms=END_MS)
        owned = Group("rollups", [agent for agent in AGENTS if agent.group == "rollups"], worker.engine.parts)
        await owned.start()
        for asked in ids:
            outcome = await over(owned, stores.state, asked)
            assert (outcome.status, outcome.left_alone) == ("done", 0)
            assert outcome.differences == ()
        await owned.stop()
        worker = Worker(stores, now_ms=END_MS)
        await worker.engine.start()
        await worker.live()
        await worker.passes(END_MS)
        await worker.engine.stop()
        assert same(await everything(stores), EXPECTED) == []


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", range(2))
async def test_a_rebuild_that_dies_anywhere_is_carried_out_again(
    tmp_path: Path, name: str, seed: int
) -> None:
    random = Random(seed)
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
        await sql(stores, "DELETE FROM rollups WHERE rollup = ?", name)
        await sql(stores, "DELETE FROM rows WHERE kind LIKE ?", f"{name}/1%")
        asked = await ask(stores.state, name, MIDNIGHT_S, END_MS // 1000, now_ms=END_MS)
        for _ in range(3):
            killed = Killed(random.randrange(20, 200), after=bool(random.getrandbits(1)))
            worker = Worker(stores, now_ms=END_MS)
            guard(worker.engine, killed)
            living = asyncio.create_task(worker_until_over(worker, asked))
            dying = asyncio.create_task(killed.dead.wait())
            await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
            worker.engine.give_up()
            living.cancel()
            dying.cancel()
            await asyncio.gather(living, dying, return_exceptions=True)
            await worker.engine.crash()
        worker = Worker(stores, now_ms=END_MS)
        await worker.engine.start()
        outcome = await worker.over(asked)
        assert (outcome.status, outcome.refused) == ("done", ())
        await worker.live()
        await worker.engine.stop()
        assert same(await everything(stores), EXPECTED) == []


async def worker_until_over(worker: Worker, asked: str) -> None:
    await worker.engine.start()
    await worker.live()
    await worker.over(asked)


async def test_a_request_that_is_taken_back_is_left(tmp_path: Path) -> None:
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
        await sql(stores, "DELETE FROM rows WHERE kind LIKE 'space_storage/1%'")

        class TakenBack(Failing):
            async def save_request(self, request: Request, *, expected: int) -> bool:
                saved = await stores.state.save_request(request, expected=expected)
                if expected == 2:
                    await stores.state.delete_request(request.id)
                return bool(saved)

        async with at_end(stores, store=TakenBack(stores.state)) as worker:
            rows = await kept_rows(stores)
            asked = await ask(stores.state, "space_storage", MIDNIGHT_S, LONG, now_ms=END_MS)
            while await stores.state.request(asked) is not None:
                await asyncio.sleep(0.001)
            for _ in range(20):
                await asyncio.sleep(0.002)
            await worker.engine.checkpoint()
            assert await kept_rows(stores) == rows
            failed = worker.group.failed
            assert failed is not None
            assert not failed.done()


async def test_a_finished_request_that_nobody_fetched_goes_after_a_day(tmp_path: Path) -> None:
    async with working(tmp_path, now_ms=END_MS) as worker:
        store = worker.stores.state
        asked = await ask(store, "space_storage", MIDNIGHT_S, LONG, now_ms=END_MS - 3 * DAY_MS)
        assert (await worker.over(asked)).status == "done"
        worker.engine.now_ms += DAY_MS
        for _ in range(20):
            await asyncio.sleep(0.002)
        assert await store.request(asked) is not None
        worker.engine.now_ms += 1
        async with asyncio.timeout(10):
            while await store.request(asked) is not None:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("moment", [1, 5])
async def test_a_reading_that_starts_over_begins_the_rebuild_anew(
    tmp_path: Path, name: str, moment: int
) -> None:
    """Rows change under the worker while it rebuilds, and it meets that in a checkpoint."""
    async with opened(tmp_path) as stores:
        await three_days_lived(stores)
        before = await everything(stores)
        await sql(stores, "DELETE FROM rows WHERE kind LIKE ?", f"{name}/1%")
        await sql(stores, "DELETE FROM rollups WHERE rollup = ?", name)

        class Disturbed(Failing):
            told = 0

            async def save_request(self, request: Request, *, expected: int) -> bool:
                saved = await stores.state.save_request(request, expected=expected)
                self.told += 1
                if self.told == moment:
                    group = worker.group
                    key = RowKey(f"{name}/1m", MIDNIGHT_S - 86_400, "x")
                    row = (await group.reading.rows.load([key]))[key]
                    group.reading.rows.change(row, row.state, NOWHERE)
                    await stores.state.save_rows(
                        [
                            RowWrite(
                                StoredRow(
                                    key, 7, NOWHERE, False, group._tables[key.table].pack(row.state), key.at
                                ),
                                0,
                            )
                        ]
                    )
                    first = group.reading
                    await group.checkpoint()
                    assert group.reading is not first
                return bool(saved)

        disturbed = Disturbed(stores.state)
        async with at_end(stores, store=disturbed) as worker:
            outcome = await worker.rebuild(name, MIDNIGHT_S, END_MS // 1000)
            assert (outcome.status, outcome.refused) == ("done", ())
            assert disturbed.told > moment
        found = await everything(stores)
        assert same(found, EXPECTED) == same(before, EXPECTED) == []


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
