"""The monitors of three regions, through outages of what they watch and of whom they tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deployments import embedded
from tests.monitors.watching import INTERVAL_S, StandIn, health_key, right_to_the_second, watching

pytestmark = [pytest.mark.processes, pytest.mark.timeout(480)]


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
