"""The spool before a real broker that goes away, takes nothing, or says nothing: nobody waits for it twice, and it gets
everything in order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.servers.rabbitmq import Broker
from tests.web.spools import stamped
from topology.log import Message, Outgoing
from topology.rabbitmq.log import RabbitLog
from web.delivery import BrokerDelivery
from web.draining import Drainer
from web.spool import Spool

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

PATIENCE_S = 120.0


@pytest.fixture
async def log(broker: Broker) -> AsyncIterator[RabbitLog]:
    log = RabbitLog(broker.url, broker.exchange, broker.queue)
    await log.open()
    yield log
    await log.close()


class Asked:
    """The log, as those who deliver ask it; ``given_up`` counts what was waited for in vain."""

    def __init__(self, log: RabbitLog) -> None:
        self._log = log
        self.given_up = 0

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        try:
            await self._log.publish(messages)
        except asyncio.CancelledError:
            self.given_up += 1
            raise


@pytest.fixture
def asked(log: RabbitLog) -> Asked:
    return Asked(log)


@pytest.fixture
async def delivery(log: RabbitLog, asked: Asked, tmp_path: Path) -> AsyncIterator[BrokerDelivery]:
    spool = Spool(tmp_path / "spool.db", max_bytes=10_000_000)
    only_asked: Any = asked
    delivery = BrokerDelivery(only_asked, spool, Drainer(log, spool))
    await delivery.open()
    yield delivery
    await delivery.close()


async def does(broker: Broker, fault: str) -> None:
    """The fault, or its end."""
    node = broker.node
    match fault:
        case "stopped":
            await asyncio.to_thread(node.stop)
        case "killed":
            await asyncio.to_thread(node.kill)
        case "started":
            await asyncio.to_thread(node.start)
        case "blocked":
            await asyncio.to_thread(node.ctl, "set_disk_free_limit", "900000GB")
        case "unblocked":
            await asyncio.to_thread(node.ctl, "set_disk_free_limit", "1MB")
        case "paused":
            os.kill(node.pid, signal.SIGSTOP)
        case "continued":
            os.kill(node.pid, signal.SIGCONT)


async def whole(log: RabbitLog) -> list[Message]:
    """Everything that is in the log."""
    messages: list[Message] = []
    reader = await log.reader(0)
    while not messages or messages[-1].offset + 1 < await log.end_offset():
        messages += await reader.fetch(limit=1000, max_bytes=1 << 30, timeout=timedelta(seconds=5))
    await reader.close()
    return messages


@pytest.mark.parametrize(
    ("fault", "end"),
    [("stopped", "started"), ("killed", "started"), ("blocked", "unblocked"), ("paused", "continued")],
)
async def test_a_broker_that_is_away_for_a_while_gets_everything_in_order(
    broker: Broker, log: RabbitLog, asked: Asked, delivery: BrokerDelivery, fault: str, end: str
) -> None:
    answers: list[str] = []

    async def send() -> None:
        async with asyncio.timeout(PATIENCE_S):
            answers.append(await delivery.deliver(stamped(len(answers))))

    async def send_until(where: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while answers[-1:] != [where]:
                await send()

    async with asyncio.timeout(PATIENCE_S):
        while answers.count("broker") < 20:
            await send()
    before = asked.given_up
    await does(broker, fault)
    try:
        await send_until("spool")
        for _ in range(200):
            await send()
        assert answers[-200:] == ["spool"] * 200
        # The first one, and at most one that a connection on its last legs confirmed late.
        assert asked.given_up - before <= 2
        assert delivery.spooling is not None
    finally:
        await does(broker, end)
    await send_until("broker")
    found = await whole(log)
    assert list(dict.fromkeys(message.event_id for message in found)) == [
        stamped(n).event_id for n in range(len(answers))
    ]
    assert all(
        message.received_ms == stamped(int(str(message.event_id).removeprefix("id-"))).received_ms
        for message in found
    )
