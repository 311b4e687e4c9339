"""How services are at this moment, by the rules of time in state."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.topology.engine import NOW_MS, Engine, publish
from tests.topology.stores import Stores, opened
from topology.health import Health
from topology.services import present
from topology.services.present import Present
from topology.services.rows import Service
from topology.services.time_in_state import Result

MINUTE_MS = 60_000


def result(
    at_ms: int, *, up: bool, region: str = "a", kind: str = "ping ", valid_ms: int = 120_000
) -> Result:
    return Result(at_ms, region, kind, up, valid_ms, -1, -1.0)


def seen(*results: Result, now_ms: int = NOW_MS, service: Service | None = None) -> Mapping[str, bool]:
    """By region, of one service."""
    states = Present()
    for each in results:
        states.saw("clowder", each, now_ms)
    services = {"clowder": service or Service(regions={"a": (NOW_MS, NOW_MS)})}
    return {region: up for (_, region), up in states.at(now_ms, services).up.items()}


def test_a_result_holds_for_as_long_as_it_says() -> None:
    up = result(NOW_MS, up=True, valid_ms=1000)
    assert seen(up, now_ms=NOW_MS + 999) == {"a": True, "all": True}
    assert seen(up, now_ms=NOW_MS + 1000) == {}


def test_the_latest_result_of_a_kind_counts_in_whatever_order_they_come() -> None:
    early, late = result(NOW_MS - MINUTE_MS, up=True), result(NOW_MS, up=False)
    assert seen(early, late) == seen(late, early) == {"a": False, "all": False}


def test_at_equal_times_up_wins() -> None:
    up, down = result(NOW_MS, up=True), result(NOW_MS, up=False)
    assert seen(up, down) == seen(down, up) == {"a": True, "all": True}


def test_any_kind_that_says_down_makes_it_down() -> None:
    assert seen(result(NOW_MS, up=True), result(NOW_MS, up=False, kind="page"))["a"] is False


@pytest.mark.parametrize(("ups", "downs", "up"), [(2, 1, True), (1, 1, False), (1, 2, False), (3, 2, True)])
def test_most_of_the_known_regions_decide(ups: int, downs: int, up: bool) -> None:
    votes = [True] * ups + [False] * downs
    results = [result(NOW_MS, up=vote, region=f"r{number}") for number, vote in enumerate(votes)]
    assert seen(*results)["all"] is up


def test_nothing_is_said_in_maintenance() -> None:
    resting = Service(regions={"a": (NOW_MS, NOW_MS)}, turns=((NOW_MS - 1, False),))
    assert seen(result(NOW_MS, up=False), service=resting) == {}
    over = Service(regions={"a": (NOW_MS, NOW_MS)}, turns=((NOW_MS - 2, False), (NOW_MS - 1, True)))
    assert seen(result(NOW_MS, up=False), service=over) == {"a": False, "all": False}


def test_there_are_no_more_series_than_a_thousand(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(present, "MOST_TOLD", 3)
    states = Present()
    for number in range(9):
        states.saw(f"s{number}", result(NOW_MS, up=True), NOW_MS)
    assert {name for name, _ in states.at(NOW_MS, {}).up} == {"s0", "s1", "s2"}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    # What holds no more makes room.
    later = NOW_MS + 10 * MINUTE_MS
    states.saw("new", result(later, up=True), later)
    assert {name for name, _ in states.at(later, {}).up} == {"new"}


# -- in the engine --


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as made:
        yield made


def ping(at_ms: int, *, up: bool, region: str) -> dict[str, Any]:
    return {
        "type": "health.pinged",
        "service": "clowder",
        "region": region,
        "up": up,
        "time": at_ms,
        "valid_for_s": 120,
    }


async def test_the_present_of_every_service_is_exported_and_forgotten(stores: Stores) -> None:
    engine = Engine(stores, by_hand=True)
    await engine.start()
    health = Health(engine.groups, engine.parts)

    def shown(region: str) -> float | None:
        labels = {"service": "clowder", "region": region}
        return stores.registry.get_sample_value("eventsink_service_up", labels)

    def resting() -> float | None:
        labels = {"service": "clowder"}
        return stores.registry.get_sample_value("eventsink_service_in_maintenance", labels)

    downs = [ping(NOW_MS, up=False, region="east"), ping(NOW_MS, up=False, region="west")]
    await publish(stores, [*downs, ping(NOW_MS, up=True, region="south")])
    await engine.folded()
    await health.look()
    assert (shown("east"), shown("south"), shown("all"), resting()) == (0, 1, 0, 0)
    await publish(
        stores, [{"type": "health.maintenance_started", "service": "clowder", "time": NOW_MS + 1000}]
    )
    await engine.folded()
    engine.now_ms += 2000
    await health.look()
    assert (shown("east"), shown("all"), resting()) == (None, None, 1)
    # Silence: nobody says that it is up, and it is told apart from maintenance.
    ended = {"type": "health.maintenance_ended", "service": "clowder", "time": NOW_MS + 3000}
    await publish(stores, [ended])
    await engine.folded()
    engine.now_ms += 5 * MINUTE_MS
    await health.look()
    assert (shown("east"), shown("all"), resting()) == (None, None, 0)
