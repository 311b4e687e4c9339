"""Servers go away while events flow, and come back: everything catches up, exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deployments import on_servers
from tests.processes import (
    SAMPLE,
    Instance,
    Service,
    comes_to_the_expected_numbers,
    holds_each_event_once,
    sample_lines,
)
from tests.servers.influxdb import Influx
from tests.servers.mongo import Mongo
from tests.servers.rabbitmq import Broker

pytestmark = [pytest.mark.processes, pytest.mark.servers, pytest.mark.timeout(600)]


def halves() -> tuple[bytes, bytes]:
    lines = sample_lines()
    return b"\n".join(lines[:1500]), b"\n".join(lines[1500:])


async def send(instance: Instance, lines: bytes) -> None:
    sent = await instance.run("send", "-", input=lines)
    assert sent.code == 0, sent.err


async def says(service: Service, text: str) -> None:
    """Wait until the service has written this."""
    async with asyncio.timeout(60):
        while text not in service.output:
            await asyncio.sleep(0.02)


async def ends_well(instance: Instance, service: Service) -> None:
    await comes_to_the_expected_numbers(instance)
    await holds_each_event_once(instance, sample_lines())
    assert "Traceback" not in service.output
    assert await service.stop() == 0


@pytest.fixture
def instance(tmp_path: Path, request: pytest.FixtureRequest) -> Instance:
    return on_servers(tmp_path, request)


@pytest.fixture
async def service(instance: Instance, free_port: Callable[[], int]) -> Service:
    """A worker that is ready."""
    return await instance.start("worker", free_port())


async def test_an_influxdb_that_is_away_is_owed_its_values_and_gets_them(
    instance: Instance,
    service: Service,
    influx: Influx,
    free_port: Callable[[], int],
) -> None:
    first, second = halves()
    await asyncio.to_thread(influx.go_away)
    await send(instance, first)
    # The archive waits for nobody: it has everything while the sink of the rollups is away.
    await holds_each_event_once(instance, sample_lines()[:1500])
    await says(service, "is away, its rollups are owed")
    await service.kill()
    influx.fail_next(503, times=2, retry_after=1)
    influx.drop_next(forwarded=True)
    await asyncio.to_thread(influx.come_back)
    service = await instance.start("worker", free_port())
    await send(instance, second)
    await ends_well(instance, service)


async def test_a_mongodb_that_is_away_pauses_reading_and_loses_nothing(
    instance: Instance,
    service: Service,
    mongo: Mongo,
) -> None:
    first, second = halves()
    await send(instance, first)
    await asyncio.to_thread(mongo.stop)
    await says(service, "is away, waiting for it")
    await send(instance, second)
    await asyncio.to_thread(mongo.start)
    await ends_well(instance, service)


async def test_answers_of_mongodb_that_are_lost_double_nothing(
    instance: Instance,
    service: Service,
    mongo: Mongo,
) -> None:
    first, second = halves()
    for command in ("update", "insert", "findAndModify"):
        mongo.lose_answer(command)
    await send(instance, first)
    mongo.lose_answer("update")
    await send(instance, second)
    await ends_well(instance, service)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_broker_that_restarts_is_read_on_where_reading_was(
    instance: Instance,
    service: Service,
    broker: Broker,
    how: str,
) -> None:
    first, second = halves()
    await send(instance, first)
    await asyncio.to_thread(getattr(broker.node, how))
    await asyncio.to_thread(broker.node.start)
    await send(instance, second)
    await ends_well(instance, service)


async def test_sending_goes_on_after_the_connections_were_closed_by_the_server(
    instance: Instance,
    service: Service,
    broker: Broker,
) -> None:
    sending = asyncio.ensure_future(instance.run("send", str(SAMPLE), "--rate", "1000"))
    await says(service, "metrics and health")
    await asyncio.to_thread(broker.node.ctl, "close_all_connections", "--vhost", broker.vhost, "a test")
    sent = await sending
    assert sent.code == 0, sent.err
    await ends_well(instance, service)
