"""The whole of it: Clowder goes, then the broker, then both come back, and the numbers are what happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.monitors.watching import StandIn, health_key, right_to_the_second, watching
from tests.processes import Instance
from tests.servers.rabbitmq import Broker

pytestmark = [pytest.mark.processes, pytest.mark.servers, pytest.mark.timeout(240)]


async def test_clowder_goes_then_the_broker_then_both_come_back(
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
