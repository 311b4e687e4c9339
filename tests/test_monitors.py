"""The monitors of three regions, through outages of what they watch and of whom they tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deployments import embedded
from tests.monitors.watching import (
    INTERVAL_S,
    REGIONS,
    StandIn,
    arrived,
    comes_to_what_was_measured,
    health_key,
    watching,
)
from tests.processes import Instance
from tests.servers.rabbitmq import Broker

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


async def right_to_the_second(instance: Instance, clowder: StandIn, measured: int) -> None:
    """Every result is there once, ``service_uptime`` is what they give, and that is what happened."""
    events = await arrived(instance, measured)
    for window in ("1m", "1h"):
        sums = await comes_to_what_was_measured(instance, events, window)
        assert sums.keys() == {*REGIONS, "all"}
        for region, row in sums.items():
            # Seen at the first check after each change: less than an interval late, at either end.
            assert abs(row["down_s"] - clowder.away_s) < 1.0, (region, row, clowder.away)
        assert sum(sums[region]["checks"] for region in REGIONS) == measured


async def test_an_outage_that_nobody_could_be_told_of_is_told_later_to_the_second(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    # up       ======x              ================
    # clowder  =========x     =======================
    # told     ------|              |-- everything --
    instance = embedded(tmp_path / "up")
    instance.folder.mkdir()
    key = await health_key(instance)
    clowder, port = StandIn(free_port()), free_port()
    await clowder.come_back()
    service = await instance.start("up", port)
    async with watching(tmp_path, service.url, key, clowder.port, free_port) as monitors:
        await monitors.until_more("up", 2)
        await service.kill()
        await monitors.until("eventsink_monitor_outbox_events", lambda events: events > 0)
        await clowder.go_away()
        await monitors.until_more("down", round(1 / INTERVAL_S))
        await clowder.come_back()
        await monitors.until_more("up", 1)
        service = await instance.start("up", port)
        await monitors.until("eventsink_monitor_outbox_events", lambda events: events == 0)
        measured = await monitors.stop()
    await right_to_the_second(instance, clowder, measured)
    await clowder.end()
    assert await service.stop() == 0


@pytest.mark.servers
async def test_the_rehearsal_clowder_goes_then_the_broker_then_both_come_back(
    tmp_path: Path, broker: Broker, free_port: Callable[[], int]
) -> None:
    # clowder  ======x             ============
    # broker   ==========x     ================
    # told     every result, by way of the spool
    instance = Instance(
        tmp_path / "up",
        {
            "EVENTSINK_BROKER_URL": broker.url,
            "EVENTSINK_EXCHANGE": broker.exchange,
            "EVENTSINK_LOG_QUEUE": broker.queue,
        },
    )
    instance.folder.mkdir()
    key = await health_key(instance)
    clowder = StandIn(free_port())
    await clowder.come_back()
    service = await instance.start("up", free_port())
    async with watching(tmp_path, service.url, key, clowder.port, free_port) as monitors:
        await monitors.until_more("up", 2)
        await clowder.go_away()
        await monitors.until_more("down", 2)
        broker.node.kill()
        await monitors.until_more("down", 4)
        broker.node.start()
        await monitors.until_more("down", 1)
        await clowder.come_back()
        await monitors.until_more("up", 2)
        measured = await monitors.stop()
    await right_to_the_second(instance, clowder, measured)
    await clowder.end()
    assert await service.stop() == 0
    assert "Traceback" not in service.output
