"""The whole of it: Clowder goes, then the broker, then both come back, and the numbers are what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.monitors.watching import (
    INTERVAL_S,
    REGIONS,
    StandIn,
    health_key,
    numbers_are_those_of,
    right_to_the_second,
    watching,
)
from tests.processes import Instance
from tests.servers.nginx import Client, Nginx
from tests.servers.rabbitmq import Broker

pytestmark = [pytest.mark.processes, pytest.mark.servers, pytest.mark.timeout(480)]

PROBES = """
[[probe]]
kind = "connections"
service = "clowder"
access_log = "{log}"
interval = 3
[[probe]]
kind = "queue"
service = "clowder"
url = "amqp://127.0.0.1:{port}"
vhost = "{vhost}"
queue = "{queue}"
password_env = "QUEUE_PASSWORD"
interval = {interval}
timeout = 1.0
retries = 0
"""

COUNTING_BEGAN = 'eventsink_monitor_checks_total{kind="connections",result="unknown",service="clowder"}'


async def test_clowder_goes_then_the_broker_then_both_come_back(
    tmp_path: Path, broker: Broker, nginx: Nginx, free_port: Callable[[], int]
) -> None:
    # clowder     ======x             =======x      =======
    # broker      ==========x     =========================
    # monitor us  ============x  ==========================
    # maintenance                        ===============
    # requests     xxx  xxx     xxx xxx
    # told        every result, by way of outbox and spool
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
    nginx.start()
    clowder = StandIn(free_port())
    await clowder.come_back()
    service = await instance.start("up", free_port())
    probes = PROBES.format(
        log=nginx.log, interval=INTERVAL_S, port=broker.node.port, vhost=broker.vhost, queue=broker.queue
    )
    async with watching(
        tmp_path, service.url, key, clowder.port, free_port, more=probes, QUEUE_PASSWORD="guest"
    ) as monitors:
        await monitors.until_more("up", 2)
        await monitors.until(COUNTING_BEGAN, lambda checks: checks > 0)
        ask(nginx, 20)
        await clowder.go_away()
        await monitors.until_more("down", 2)
        broker.node.kill()
        ask(nginx, 20)
        await monitors.kill("us")
        ask(nginx, 20)
        await asyncio.to_thread(nginx.rotate_by_rename, "nocompress")
        await monitors.start("us")
        await monitors.until_more("down", 4)
        broker.node.start()
        await monitors.until_more("down", 1)
        await clowder.come_back()
        await monitors.until_more("up", 2)
        ask(nginx, 20)
        await monitors.maintenance("eu", "start")
        await clowder.go_away(planned=True)
        await monitors.until_more("down", 2)
        await clowder.come_back()
        await monitors.until_more("up", 1)
        await monitors.maintenance("asia", "end")
        await monitors.until_more("measured", 1, kind="connections")
        measured = await monitors.stop()
    events = await right_to_the_second(instance, clowder, measured)
    for name in ("service_connections", "queue_length"):
        await numbers_are_those_of(instance, events, name)
    assert requests(await instance.events()) == dict.fromkeys(REGIONS, nginx.lines())
    await clowder.end()
    assert await service.stop() == 0
    assert "Traceback" not in service.output


def ask(nginx: Nginx, times: int) -> None:
    """Requests that stand in the log when they are answered, or a moment later."""
    client = Client(nginx.port)
    for _ in range(times):
        client.ask()
    client.close()


def requests(events: list[dict[str, Any]]) -> dict[str, int]:
    """All that the monitor of each region has counted. ``connections`` would be less: of the period in which a monitor
    was away it is what an interval had on average."""
    found = dict.fromkeys(REGIONS, 0)
    for each in events:
        if each["type"] == "health.connections_counted":
            found[each["region"]] += each["requests"]
    return found
