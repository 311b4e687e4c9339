"""Events that come late, by hours and days, and time in which none comes at all; with crashes in between. What all
rollups must be is told by ``tests/oracle.py``, of all events at once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agents import AGENTS
from tests.oracle import same
from tests.topology import engine as engine_module
from tests.topology.engine import NOW_MS, Engine, publish
from tests.topology.lives import (
    AT_LAST,
    DAY,
    FIRST,
    HOUR,
    MINUTE,
    THEN,
    everything,
    job,
    lived,
    login,
    must_be,
    of_service,
    owed,
    ping,
)
from tests.topology.stores import Failing, Stores, opened
from topology.group import groups
from topology.group.reading import ALLOWED_DISORDER_MS
from topology.sinks import Point
from topology.state import RowKey

pytestmark = pytest.mark.timeout(120)

Events = Sequence[Mapping[str, Any]]

HOURS, DAYS = 60, 1440  # in the minutes that events are made with


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


@pytest.fixture
def soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log counts as quiet at once, not after a second."""
    monkeypatch.setattr(groups, "FETCH_TIMEOUT", timedelta(milliseconds=2))


async def is_right(stores: Stores, events: Events, *, watermark_ms: int | None = None) -> None:
    assert same(must_be(events, watermark_ms=watermark_ms), await everything(stores)) == []


async def reaches(engine: Engine, now_ms: int) -> int:
    """The clock stands there, and the watermark follows it."""
    engine.now_ms = now_ms
    while engine.groups[0].reading.watermark != now_ms - ALLOWED_DISORDER_MS:
        await engine.tick()
    return now_ms - ALLOWED_DISORDER_MS


# -- late --

#: Each list is a batch; the last event of each moves the watermark. Minutes are those after the hour.
LATE: dict[str, list[list[dict[str, Any]]]] = {
    "a result hours late that cuts what an earlier one said": [
        [ping(-5 * HOURS, "eu", valid_for_s=3600), ping(-4 * HOURS, "us"), login(NOW_MS, "u")],
        [ping(-4.5 * HOURS, "eu", up=False, valid_for_s=90), ping(-4.25 * HOURS, "eu")],
        [ping(-6 * HOURS, "us", valid_for_s=3600)],
    ],
    "maintenance announced days late, and ended days later still": [
        [ping(-2 * DAYS, "eu", valid_for_s=3600), ping(-2 * DAYS + 50, "us"), login(NOW_MS, "u")],
        [of_service("maintenance_started", -2 * DAYS + 20.5)],
        [of_service("maintenance_ended", -2 * DAYS + 40.25), login(NOW_MS + MINUTE, "u")],
        [of_service("maintenance_started", -2 * DAYS + 30)],
        [of_service("maintenance_ended", -2 * DAYS + 30.5)],
    ],
    "a job that ends before it starts, and whose start comes days later": [
        [job("succeeded", -2 * DAYS, "a"), job("succeeded", -2 * DAYS, None), login(NOW_MS, "u")],
        [job("started", -2 * DAYS - 3, "a")],
        [job("submitted", -2 * DAYS - 4, "a"), job("started", -2 * DAYS - 2, None)],
        [job("failed", -DAYS, "a", extractor="digest"), job("skipped", -DAYS, None)],
        [job("skipped", -1.5 * DAYS, "a")],
    ],
}


@pytest.mark.parametrize("crash", ["never", "before each checkpoint", "after each checkpoint"])
@pytest.mark.parametrize("what", LATE)
async def test_what_comes_late_corrects_every_window_that_it_touches(
    stores: Stores, what: str, crash: str
) -> None:
    engine = Engine(stores)
    await engine.start()
    for batch in LATE[what]:
        await publish(stores, batch)
        if crash == "before each checkpoint":
            await engine.folded()
        else:
            await lived(engine)
        if crash != "never":
            await engine.crash()
            engine = Engine(stores)
            await engine.start()
    await lived(engine)
    await engine.stop()
    await is_right(stores, [event for batch in LATE[what] for event in batch])


async def test_what_comes_again_counts_once(stores: Stores) -> None:
    events = [
        {"source": "test", "id": str(number), **event}
        for number, event in enumerate([*FIRST, *THEN, *AT_LAST])
        if "time" in event and "id" not in event
    ]
    for again in range(3):
        engine = Engine(stores)
        await engine.start()
        await publish(stores, events[again * 10 :])
        await publish(stores, events)
        await lived(engine)
        await engine.crash()
    await is_right(stores, events)


async def test_a_longer_keep_does_not_bring_back_what_was_purged(stores: Stores) -> None:
    old: list[dict[str, Any]] = [
        job("succeeded", -9 * DAYS, "a"),
        ping(-9 * DAYS, "eu"),
        login(NOW_MS - 9 * DAY, "u"),
    ]
    engine = Engine(stores, keep=timedelta(days=5))
    await engine.start()
    await publish(stores, [*old, login(NOW_MS, "u")])
    await lived(engine)
    horizon = engine.groups[0].reading.horizon
    before = await everything(stores)
    await engine.crash()
    assert horizon is not None
    engine = Engine(stores, keep=timedelta(days=365))
    await engine.start()
    late: list[dict[str, Any]] = [
        job("failed", -9 * DAYS + 1, "a"),
        job("started", -9 * DAYS - 1, "b"),
        ping(-9 * DAYS + 1, "eu", up=False),
        of_service("page_fetched", -9 * DAYS + 1, region="eu", up=False),
        of_service("queue_measured", -9 * DAYS, queue="q", messages=7),
    ]
    await publish(stores, late)
    await lived(engine)
    assert engine.groups[0].reading.horizon == horizon
    counted = {
        agent: stores.registry.get_sample_value(
            "eventsink_events_total", {"group": "rollups", "agent": agent, "outcome": "late"}
        )
        for agent in ("extractions", "uptime")
    }
    await engine.stop()
    assert counted == {"extractions": 2, "uptime": 3}
    assert same(before, await everything(stores)) == []


# -- idle --


@pytest.mark.usefixtures("soon_quiet")
async def test_of_an_idle_service_values_are_written_as_the_clock_moves(stores: Stores) -> None:
    events = [ping(-3, "eu"), ping(-2, "us", up=False, valid_for_s=3600)]
    engine = Engine(stores)
    await engine.start()
    await publish(stores, events)
    for later_ms in (0, 20_000, MINUTE, 7 * MINUTE, 3 * HOUR, 3 * HOUR + 500, 25 * HOUR):
        watermark = await reaches(engine, NOW_MS + later_ms)
        await lived(engine)
        await is_right(stores, events, watermark_ms=watermark)
    await engine.stop()


@pytest.mark.usefixtures("soon_quiet")
@pytest.mark.parametrize("saved", [True, False], ids=["after a checkpoint", "before one"])
async def test_a_crash_in_idle_time_leaves_no_gap(stores: Stores, saved: bool) -> None:
    events = [ping(-3, "eu"), ping(-2, "us", up=False, valid_for_s=3600)]
    await publish(stores, events)
    for later_ms in (0, 5 * MINUTE, HOUR, HOUR + 30 * MINUTE):
        engine = Engine(stores)
        await engine.start()
        watermark = await reaches(engine, NOW_MS + later_ms)
        if saved or later_ms == 0:
            await lived(engine)
            await is_right(stores, events, watermark_ms=watermark)
        await engine.crash()
    engine = Engine(stores)
    await engine.start()
    watermark = await reaches(engine, NOW_MS + 2 * HOUR)
    await lived(engine)
    await engine.stop()
    await is_right(stores, events, watermark_ms=watermark)


@pytest.mark.usefixtures("soon_quiet")
async def test_time_that_passes_during_a_checkpoint_is_told_after_a_crash_too(stores: Stores) -> None:
    # the sink was told  ├──────────────────┤ until the checkpoint ended
    # saved: watermark   ├──────────┤ of its start, and told no further
    # A row that is valued after the crash is valued up to the watermark; the rest must be due again.
    class Slow(Failing):
        async def write(self, points: Sequence[Point]) -> None:
            if engine.now_ms == NOW_MS:
                await reaches(engine, NOW_MS + 6 * MINUTE)
            await stores.rollups.write(points)

    events = [ping(-3, "eu", valid_for_s=3600)]
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, rollup_sink=Slow(stores.rollups))
    await engine.start()
    await publish(stores, events)
    await reaches(engine, NOW_MS)
    await engine.groups[0].checkpoint()
    state = await stores.state.read_group("rollups")
    assert state is not None
    assert state.watermark is not None
    assert state.told_ms is not None
    assert state.told_ms == state.watermark < NOW_MS + 6 * MINUTE - ALLOWED_DISORDER_MS
    await engine.crash()
    events.append(ping(-2, "us", valid_for_s=3600))
    await publish(stores, events[1:])
    engine = Engine(stores)
    await engine.start()
    await engine.folded()
    await engine.groups[0].checkpoint()
    watermark = await reaches(engine, NOW_MS + 6 * MINUTE)
    await engine.groups[0].checkpoint()
    await lived(engine)
    await engine.stop()
    await is_right(stores, events, watermark_ms=watermark)


async def test_an_agent_that_is_added_later_turns_time_around_for_nobody(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "AGENTS", [a for a in AGENTS if a.name != "traffic"])
    engine = Engine(stores)
    await engine.start()
    await publish(stores, FIRST)
    await lived(engine)
    await engine.stop()
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, rollup_sink=Failing(stores.rollups, write=1_000_000))
    await engine.start()
    await publish(stores, THEN)
    await engine.folded()
    await engine.groups[0].checkpoint()
    await engine.crash()
    assert await owed(stores)

    class Slow(Failing):
        """It takes time until the new agent has read what the others know."""

        async def reader(self, offset: int) -> Any:
            while await owed(stores):
                await asyncio.sleep(0)
            return await stores.log.reader(offset)

    monkeypatch.setattr(engine_module, "AGENTS", AGENTS)
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, log=Slow(stores.log))
    await engine.start()
    await lived(engine)
    await engine.stop()
    await is_right(stores, [*FIRST, *THEN])


@pytest.mark.usefixtures("soon_quiet")
async def test_a_clock_that_steps_back_an_hour_moves_nothing_back(stores: Stores) -> None:
    events = [ping(-3, "eu", valid_for_s=3600), job("succeeded", -1, "a"), login(NOW_MS, "u")]
    engine = Engine(stores)
    await engine.start()
    await publish(stores, events)
    watermark = await reaches(engine, NOW_MS + 5 * MINUTE)
    await lived(engine)
    engine.now_ms -= HOUR
    events += [ping(-2, "eu", up=False), job("started", -2, "a")]
    await publish(stores, events[3:])
    await lived(engine)
    await engine.crash()
    await is_right(stores, events, watermark_ms=watermark)
    engine = Engine(stores)
    engine.now_ms = NOW_MS - HOUR
    await engine.start()
    await lived(engine)
    await is_right(stores, events, watermark_ms=watermark)
    watermark = await reaches(engine, NOW_MS + 6 * MINUTE)
    await lived(engine)
    await engine.stop()
    await is_right(stores, events, watermark_ms=watermark)


@pytest.mark.usefixtures("soon_quiet")
async def test_a_first_result_of_decades_ago_makes_time_pass_from_the_horizon_on(stores: Stores) -> None:
    # 1970                                   horizon        now
    # first result ──────── nobody is told ──┤── told ──────┤
    engine = Engine(stores, keep=timedelta(days=2))
    asked: list[int] = []
    await engine.start()
    await publish(stores, [{**ping(0, "eu"), "time": 0}, ping(-3, "us")])
    await reaches(engine, NOW_MS)
    (group,) = [group for group in engine.groups if group.name == "rollups"]
    (timed,) = group.reading.timed
    passing = timed.passing

    async def counted() -> Any:
        passed = await passing()
        asked.append(1)
        return passed

    timed.passing = counted  # type: ignore[method-assign] # counted
    await lived(engine)
    assert timed.told_ms == group.reading.watermark
    assert len(asked) < 24 * 4, "an hour at a time, and two days and the one before them"
    await engine.stop()


@pytest.mark.usefixtures("soon_quiet")
async def test_after_a_rest_of_days_no_more_than_a_day_of_results_is_looked_at_at_once(
    stores: Stores,
) -> None:
    # three days of results, and all the time between them is due at once:
    #     told ─┤ one hour, of a day that is passing ├─ … two more days …
    events = [ping(-minutes, "eu") for minutes in range(3 * DAYS, 0, -6 * HOURS)]
    engine = Engine(stores)
    await engine.start()
    (group,) = [group for group in engine.groups if group.name == "rollups"]
    peek = group.reading.rows.peek
    looked_at: list[int] = []

    async def watched(keys: Sequence[RowKey]) -> Mapping[RowKey, Any]:
        looked_at.append(len(keys))
        return await peek(keys)

    group.reading.rows.peek = watched  # type: ignore[method-assign] # counted
    await publish(stores, events)
    watermark = await reaches(engine, NOW_MS)
    await lived(engine)
    await engine.stop()
    await is_right(stores, events, watermark_ms=watermark)
    assert HOURS < max(looked_at) <= DAYS + HOURS
