"""Uptime as a person works it out, in pictures; what the oracle makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from schemas.events import (
    Event,
    MaintenanceEnded,
    MaintenanceStarted,
    PageFetched,
    Pinged,
    ResponseTimes,
)
from tests.test_oracle import at, table


def ping(seconds: float, up: bool, *, valid: float = 120, region: str = "eu", **fields: Any) -> Pinged:
    return Pinged(time=at(seconds), service="c", region=region, up=up, valid_for_s=valid, **fields)


def states(
    events: Iterable[Event], *, until: float = 60, window: str = "1m", region: str = "eu"
) -> list[tuple[float, ...]]:
    """(up, down, unknown, maintenance) of each window that the watermark, ``until`` seconds, has reached."""
    rows = table("service_uptime", events, window, watermark_ms=at(until))
    names = ("up_s", "down_s", "unknown_s", "maintenance_s")
    return [tuple(row[name] for name in names) for key, row in rows.items() if key[2] == region]


FIRST_MINUTE = [
    # 0    10       30       50   60
    # |----[up------[down----[----|
    ("a result holds until the next", [ping(10, True), ping(30, False)], (20, 30, 10, 0)),
    ("and at most as long as it says", [ping(10, True, valid=5), ping(30, False, valid=20)], (5, 20, 35, 0)),
    ("at equal times up wins", [ping(0, False), ping(0, True, valid=40)], (40, 0, 20, 0)),
    ("and of these the longest", [ping(0, True, valid=40), ping(0, True, valid=9)], (40, 0, 20, 0)),
    # ping   [up--------------------|
    # port   |        [down--[      |   from 20 to 35
    (
        "down if any kind of result says so",
        [ping(0, True), ping(20, False, check="port"), ping(35, True, check="port")],
        (45, 15, 0, 0),
    ),
    # ping   [down-------]          |   until 30
    # port   |    [up---------------|   from 10
    (
        "a result of another kind ends nothing",
        [ping(0, False, valid=30), ping(10, True, check="port")],
        (30, 30, 0, 0),
    ),
    (
        "a page is a kind of its own",
        [ping(0, True), PageFetched(time=at(20), service="c", region="eu", up=False, valid_for_s=10)],
        (50, 10, 0, 0),
    ),
    (
        "maintenance is neither",
        [
            ping(0, True),
            ping(20, False),
            MaintenanceStarted(time=at(10), service="c"),
            MaintenanceEnded(time=at(30), service="c"),
        ],
        (10, 30, 0, 20),
    ),
    (
        "an end at the time of its start leaves none",
        [
            ping(0, True),
            MaintenanceEnded(time=at(9), service="c"),
            MaintenanceStarted(time=at(9), service="c"),
        ],
        (60, 0, 0, 0),
    ),
    (
        "and without an end it goes on",
        [ping(0, True), MaintenanceStarted(time=at(9), service="c")],
        (9, 0, 0, 51),
    ),
]


@pytest.mark.parametrize(
    ("events", "minute"), [case[1:] for case in FIRST_MINUTE], ids=[case[0] for case in FIRST_MINUTE]
)
def test_time_in_state(events: list[Event], minute: tuple[float, ...]) -> None:
    assert states(events) == states(events[::-1]) == [minute]


QUORUM = [
    # eu [up-----------------------|
    # us |     [down---------------|   at 20: 1 of 2 is not more than half
    # ap |           [up-----------|   at 40: 2 of 3
    (
        [ping(0, True), ping(20, False, region="us"), ping(40, True, region="ap")],
        (20 + 20, 20, 0, 0),
    ),
    ([ping(30, True, region="us"), ping(50, True, valid=1)], (30, 0, 30, 0)),
    ([ping(0, True), ping(0, False, region="us", valid=15)], (45, 15, 0, 0)),
]


@pytest.mark.parametrize(("events", "minute"), QUORUM)
def test_all_regions_together_are_up_while_more_than_half_of_the_known_are(
    events: list[Event], minute: tuple[float, ...]
) -> None:
    assert states(events, region="all") == [minute]


def test_a_window_reaches_as_far_as_the_watermark() -> None:
    # 0        50   60        90    120
    # |--------[up--|---------|^     |     the watermark is at 90
    assert states([ping(50, True)], until=90) == [(10, 0, 50, 0), (30, 0, 0, 0)]
    assert states([ping(50, True)], until=60) == [(10, 0, 50, 0)]
    rows = table("service_uptime", [ping(50, True)], "1h", watermark_ms=at(90))
    assert rows[0, "c", "eu"] == {
        "up_s": 40.0,
        "down_s": 0.0,
        "unknown_s": 50.0,
        "maintenance_s": 0.0,
        "uptime_ratio": 1.0,
        "coverage": 40 / 90,
        "checks": 1,
        "failures": 0,
    }
    assert rows[0, "c", "all"].keys() == rows[0, "c", "eu"].keys() - {"checks", "failures"}


def test_rows_end_a_day_after_the_last_result() -> None:
    # From minute 1 to the one in which 90 s + 1 d lies: 1 + 1440 windows.
    rows = table("service_uptime", [ping(90, True, valid=1)])
    times = [key[0] for key in rows if key[2] == "eu"]
    assert (times[0], times[-1], len(times)) == (60, 60 + 86_400, 1441)
    assert rows[120, "c", "eu"] == {
        "up_s": 0.0,
        "down_s": 0.0,
        "unknown_s": 60.0,
        "maintenance_s": 0.0,
        "coverage": 0.0,
        "checks": 0,
        "failures": 0,
    }
    # A result at midnight: the day after it ends before the next window begins.
    assert len(states([ping(0, True)], until=900_000)) == 1440


def test_response_times_are_those_of_the_pings() -> None:
    events = [
        ping(1, True, response_ms=ResponseTimes(min=1.0, avg=2.0, max=9.0)),
        ping(2, True, response_ms=ResponseTimes(avg=5.0)),
        ping(3, False, response_ms=ResponseTimes(avg=11.0)),
        PageFetched(time=at(4), service="c", region="eu", up=False, elapsed_ms=500.0),
    ]
    row = table("service_uptime", events)[0, "c", "eu"]
    assert (row["checks"], row["failures"]) == (4, 2)
    # (2 + 5 + 11) ÷ 3; the only maximum; index ⌊0.95 · 2⌋ = 1
    means = [row[f"response_ms_{name}"] for name in ("mean", "max", "p95")]
    assert means == [6.0, 9.0, 5.0]
