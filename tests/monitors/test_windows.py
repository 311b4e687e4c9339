"""Maintenance that is known before is announced when it is due, and its repeats are the same events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from monitors.config import Maintenance, MonitorConfig
from monitors.windows import announce, announce_past
from schemas.events import MaintenanceEnded, MaintenanceStarted
from schemas.reading import read

AT = datetime(2026, 11, 24, 22, tzinfo=UTC)


def configured(*windows: tuple[int, int], every: Literal["day", "week"] | None = None) -> MonitorConfig:
    """Windows, in minutes after ``AT``."""
    return MonitorConfig(
        endpoint="http://x",
        region="eu",
        maintenance=tuple(
            Maintenance(
                service="clowder",
                since=AT + timedelta(minutes=since),
                until=AT + timedelta(minutes=until),
                every=every,
                reason="disks",
            )
            for since, until in windows
        ),
    )


class Told:
    """A clock that moves when somebody sleeps, and what was reported when, in minutes after ``AT``."""

    def __init__(self, minutes: float = 0) -> None:
        self.now_s = AT.timestamp() + minutes * 60
        self.said: list[tuple[int, str]] = []
        self.events: list[Mapping[str, object]] = []

    def wall_ms(self) -> int:
        return round(self.now_s * 1000)

    async def sleep(self, seconds: float) -> None:
        assert seconds <= 30
        self.now_s += seconds
        await asyncio.sleep(0)

    async def report(self, event: Mapping[str, object]) -> None:
        self.events.append(event)
        minutes = round((self.now_s - AT.timestamp()) / 60)
        self.said.append((minutes, str(event["type"]).removeprefix("health.maintenance_")))


async def announced(config: MonitorConfig, told: Told, count: int) -> None:
    """Until so many ends were said; if it is 0, for some turns in which nothing may be."""
    announcing = asyncio.ensure_future(announce(config, told.report, wall_ms=told.wall_ms, sleep=told.sleep))
    for _ in range(10_000):
        if count and len(told.said) >= count:
            break
        await asyncio.sleep(0)
    assert not announcing.done()
    announcing.cancel()


async def test_each_end_is_said_when_it_is_due_in_order() -> None:
    told = Told()
    await announced(configured((60, 90), (10, 20)), told, 4)
    assert told.said == [(10, "started"), (20, "ended"), (60, "started"), (90, "ended")]
    first, second, *_ = [read(msgspec.json.encode(event)) for event in told.events]
    assert isinstance(first, MaintenanceStarted)
    assert isinstance(second, MaintenanceEnded)
    assert (first.service, first.reason) == ("clowder", "disks")
    assert first.time == (AT + timedelta(minutes=10)).timestamp() * 1000


async def test_a_monitor_that_starts_within_a_window_says_the_same_event_again() -> None:
    config = configured((10, 20))
    before, within = Told(0), Told(15)
    await announced(config, before, 2)
    await announced(config, within, 2)
    assert within.said == [(15, "started"), (20, "ended")]
    assert within.events == before.events
    assert len({str(event["id"]) for event in before.events}) == 2


async def test_what_was_long_ago_is_not_said_again() -> None:
    told = Told(9 * 24 * 60)
    await announced(configured((10, 20)), told, 0)
    assert told.said == []


async def test_a_window_that_is_open_is_said_however_long_ago_it_began() -> None:
    told = Told(9 * 24 * 60)
    await announced(configured((10, 10 * 24 * 60)), told, 2)
    assert told.said == [(9 * 24 * 60, "started"), (10 * 24 * 60, "ended")]


async def test_who_runs_now_and_then_says_what_was_due_and_waits_for_nothing() -> None:
    told = Told(15)
    await announce_past(configured((10, 20), (60, 90)), told.report, wall_ms=told.wall_ms)
    assert told.said == [(15, "started")]


async def test_a_window_that_begins_where_another_ends_leaves_nothing_between_them() -> None:
    told = Told()
    await announced(configured((10, 20), (20, 30)), told, 4)
    assert told.said == [(10, "started"), (20, "started"), (20, "ended"), (30, "ended")]


DAY = 24 * 60


async def test_a_window_of_every_day_is_said_each_day_as_an_event_of_its_own() -> None:
    # since and until of the first day; the clock stands 15 minutes into the third.
    config = configured((10, 20), every="day")
    told = Told(2 * DAY + 15)
    await announce_past(config, told.report, wall_ms=told.wall_ms)
    times = [datetime.fromtimestamp(int(str(event["time"])) / 1000, UTC) - AT for event in told.events]
    assert [round(time / timedelta(minutes=1)) for time in times] == [
        *(10, 20),
        *(DAY + 10, DAY + 20),
        2 * DAY + 10,
    ]
    assert len({str(event["id"]) for event in told.events}) == 5


async def test_a_window_of_every_week_goes_on_being_said() -> None:
    config = configured((-10, 20), every="week")
    told = Told(7 * DAY - 30)
    announcing = asyncio.ensure_future(announce(config, told.report, wall_ms=told.wall_ms, sleep=told.sleep))
    while len(told.said) < 5:
        await asyncio.sleep(0)
    announcing.cancel()
    # What the week before has still to say, then the windows that begin and end in the weeks after.
    assert told.said[:5] == [
        (7 * DAY - 30, "started"),
        (7 * DAY - 30, "ended"),
        (7 * DAY - 10, "started"),
        (7 * DAY + 20, "ended"),
        (14 * DAY - 10, "started"),
    ]
