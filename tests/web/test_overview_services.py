"""Services on the page: of however many there are, those that are shown are shown whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from topology.sinks import Point
from topology.sqlite import rollups as sqlite_rollups
from topology.sqlite.file import Database
from topology.sqlite.rollups import SqliteRollups
from web.overview import figures
from web.overview.figures import Figures
from web.overview.spans import span_of

HOUR = 3600
#: Of 7 days in hours, and the last two of them.
WINDOWS, DOWN = 168, 48
#: 2026-11-24T03:00:30Z
SPAN = span_of("7d", 1_795_489_230_000)


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[SqliteRollups]:
    opened = SqliteRollups(
        Database(tmp_path / "rollups.db", schema=sqlite_rollups.SCHEMA),
        keys={"service_uptime": ("service", "region")},
    )
    await opened.open()
    yield opened
    await opened.close()


def hours(service: str, region: str) -> Sequence[Point]:
    """Up, and down in the last two days."""
    seconds = [(3600.0, 0.0)] * (WINDOWS - DOWN) + [(0.0, 3600.0)] * DOWN
    return [
        Point(
            "service_uptime",
            "1h",
            SPAN.since + at * HOUR,
            (("service", service), ("region", region)),
            {"up_s": up, "down_s": down, "unknown_s": 0.0, "maintenance_s": 0.0, "checks": 60},
        )
        for at, (up, down) in enumerate(seconds)
    ]


async def test_of_many_services_those_that_are_shown_have_their_newest_hours_too(sink: SqliteRollups) -> None:
    # 50 services seen from 4 regions: 33 600 rows. Down for 48 of 168 hours: 120/168 up.
    regions = ("all", "eu", "us", "ap")
    for number in range(50):
        await sink.write([row for region in regions for row in hours(f"s{number:02}", region)])
    found = await Figures(sink, {"service_uptime"}).uptime(SPAN)
    assert [(each.service, each.region) for each in found.services[:5]] == [
        ("s00", "all"), ("s00", "ap"), ("s00", "eu"), ("s00", "us"), ("s01", "all")
    ]  # fmt: skip
    assert (len(found.services), found.left_out) == (figures.MAX_SERVICES, 200 - figures.MAX_SERVICES)
    for service in found.services:
        assert service.uptime_ratio == pytest.approx(120 / 168)
        assert service.down_s == DOWN * HOUR
        assert service.states == [(3600, 0, 0, 0)] * (WINDOWS - DOWN) + [(0, 3600, 0, 0)] * DOWN


async def test_a_service_seen_from_many_regions_is_shown_from_the_first_of_them(sink: SqliteRollups) -> None:
    # The others are looked at neither for it nor for those before it.
    for region in ("all", "r000", "r001"):
        await sink.write(hours("a", region))
    for number in range(60):
        await sink.write(hours("b", f"r{number:03}"))
    found = await Figures(sink, {"service_uptime"}).uptime(SPAN)
    assert [(each.service, each.region) for each in found.services] == [
        ("a", "all"),
        ("a", "r000"),
        ("a", "r001"),
        *(("b", f"r{number:03}") for number in range(figures.MAX_SERVICES - 3)),
    ]
    assert found.left_out == 63 - figures.MAX_SERVICES
    assert {each.down_s for each in found.services} == {DOWN * HOUR}


async def test_without_services_there_is_nothing(sink: SqliteRollups) -> None:
    found = await Figures(sink, {"service_uptime"}).uptime(SPAN)
    assert (found.services, found.left_out) == ([], 0)
