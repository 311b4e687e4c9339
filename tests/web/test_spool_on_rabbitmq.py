"""The spool before a real broker that goes away, takes nothing, or says nothing: nobody waits for it twice, and it gets
everything in order."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.servers.rabbitmq import Broker
from tests.web.spools import stamped
from topology.log import Message
from topology.rabbitmq.log import RabbitLog
from web.delivery import BrokerDelivery
from web.spool import Spool

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

#: A second for the confirm, and what a busy machine adds.
ANSWERED_WITHIN_S = 4.0
PATIENCE_S = 60.0


@pytest.fixture
async def log(broker: Broker) -> AsyncIterator[RabbitLog]:
    log = RabbitLog(broker.url, broker.exchange, broker.queue)
    await log.open()
    yield log
    await log.close()


@pytest.fixture
async def delivery(log: RabbitLog, tmp_path: Path) -> AsyncIterator[BrokerDelivery]:
    delivery = BrokerDelivery(log, Spool(tmp_path / "spool.db", max_bytes=10_000_000))
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
    broker: Broker, log: RabbitLog, delivery: BrokerDelivery, fault: str, end: str
) -> None:
    answers: list[str] = []
    slow = 0

    async def send() -> None:
        nonlocal slow
        begun = time.monotonic()
        answers.append(await delivery.deliver(stamped(len(answers))))
        took = time.monotonic() - begun
        assert took < ANSWERED_WITHIN_S
        slow += took > 0.9

    async def send_until(where: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while answers[-1:] != [where]:
                await send()

    for _ in range(20):
        await send()
    assert set(answers) == {"broker"}
    await does(broker, fault)
    try:
        await send_until("spool")
        for _ in range(200):
            await send()
        assert answers[-200:] == ["spool"] * 200
        # The first one, and at most one that a connection on its last legs confirmed late.
        assert slow <= 2
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
