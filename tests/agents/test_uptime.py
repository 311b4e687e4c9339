"""Services: which events count for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agents.uptime import uptime
from schemas.events import EVENT_TYPES, OutageEnded, OutageStarted
from tests.topology.engine import NOW_MS, publish, rollup, started

HOUR_AGO = NOW_MS - 3_600_000
MINUTE_S = HOUR_AGO // 1000


def at(seconds: int, type: str, **fields: Any) -> Mapping[str, Any]:
    return {"type": f"health.{type}", "time": HOUR_AGO + 1000 * seconds, "service": "clowder", **fields}


async def rows(
    folders: pytest.TempPathFactory, name: str, *events: Mapping[str, Any]
) -> dict[tuple[int, tuple[str, ...]], Any]:
    """The minutes that these events give, once two minutes have passed."""
    async with started(folders.mktemp(name)) as engine:
        passed = {"type": "activity.logged_in", "time": HOUR_AGO + 130_000}
        await publish(engine.stores, [*events, passed])
        await engine.folded()
        await engine.checkpoint()
        return await rollup(engine.stores, name, "1m")


def test_it_reads_all_of_health_but_outages_which_change_no_rollup() -> None:
    health = frozenset(kind for kind in EVENT_TYPES if str(kind.__struct_config__.tag).startswith("health."))
    assert uptime.types == health - {OutageStarted, OutageEnded}


async def test_an_announced_outage_changes_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    ping = at(0, "pinged", region="eu", up=True)
    outage = at(10, "outage_started", region="eu")
    with_it = await rows(tmp_path_factory, "service_uptime", ping, outage)
    without = await rows(tmp_path_factory, "service_uptime", ping)
    assert with_it == without
    assert with_it[MINUTE_S, ("clowder", "eu")]["up_s"] == 60.0


async def test_a_fetch_is_a_check_of_the_service_and_a_page(tmp_path_factory: pytest.TempPathFactory) -> None:
    # 0         30        60 s      each holds for 120 s
    # [ping: up --------------------
    #           [page: down --------
    #     up       down       of the first minute
    ping = at(0, "pinged", region="eu", up=True)
    page = at(30, "page_fetched", region="eu", up=False, elapsed_ms=0.1)
    row = (await rows(tmp_path_factory, "service_uptime", ping, page))[MINUTE_S, ("clowder", "eu")]
    assert (row["up_s"], row["down_s"], row["checks"], row["failures"]) == (30.0, 30.0, 2, 1)
    row = (await rows(tmp_path_factory, "service_page", ping, page))[MINUTE_S, ("clowder", "eu")]
    assert (row["fetches"], row["failures"], row["elapsed_ms_mean"]) == (1, 1, 0.1)
    assert "bytes_mean" not in row


async def test_means_are_over_what_was_measured_and_zeros_are_measurements(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    queue = {"queue": "q"}
    found = await rows(
        tmp_path_factory,
        "queue_length",
        *(at(10 * n, "queue_measured", messages=m, **queue) for n, m in enumerate((0, 3, 0))),
    )
    assert found == {(MINUTE_S, ("clowder", "q")): {"messages_mean": 1.0, "messages_max": 3}}
    found = await rows(tmp_path_factory, "queue_length", at(0, "queue_measured", messages=0, **queue))
    assert found == {(MINUTE_S, ("clowder", "q")): {"messages_mean": 0.0, "messages_max": 0}}
    found = await rows(tmp_path_factory, "service_connections", at(0, "connections_counted", connections=4))
    assert found == {(MINUTE_S, ("clowder", "unknown")): {"connections_mean": 4.0, "connections_max": 4}}


@pytest.mark.parametrize("ms", [0.1, 100.0, 12_345.678])
async def test_no_quantile_is_above_the_maximum_beside_it(
    tmp_path_factory: pytest.TempPathFactory, ms: float
) -> None:
    page = at(0, "page_fetched", region="eu", up=True, elapsed_ms=ms)
    row = (await rows(tmp_path_factory, "service_page", page))[MINUTE_S, ("clowder", "eu")]
    assert row["elapsed_ms_p95"] == pytest.approx(ms, rel=0.02)
    assert row["elapsed_ms_p95"] <= row["elapsed_ms_max"] == ms


async def test_what_is_only_shown_to_people_costs_no_result_whatever_it_is(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    page = at(0, "page_fetched", region="eu", up=False, problem={"code": 7}, certificate_days_left="many")
    odd = at(30, "page_fetched", region="eu", up=False, phases_ms=[1, "two"])
    row = (await rows(tmp_path_factory, "service_page", page, odd))[MINUTE_S, ("clowder", "eu")]
    assert (row["fetches"], row["failures"]) == (2, 2)
