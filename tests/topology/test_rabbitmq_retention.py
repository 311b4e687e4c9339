"""How the log on a real node is kept longer than its queue was made for: the command of the runbook."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import pytest

from tests.servers.rabbitmq import Broker
from topology.log import Outgoing
from topology.rabbitmq.log import RabbitLog

RUNBOOK = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text("utf-8")
MAX_BYTES = 100_000

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


async def fill(log: RabbitLog) -> None:
    """Three times what the queue was made for, in many segments."""
    for _ in range(60):
        await log.publish([Outgoing(b"x" * (MAX_BYTES // 20), "application/json", None, None)])


async def is_cut(log: RabbitLog) -> None:
    """Wait until retention has deleted something."""
    async with asyncio.timeout(120):
        while await log.first_offset() == 0:
            await fill(log)


async def test_the_policy_of_the_runbook_goes_before_the_arguments_of_the_queue(broker: Broker) -> None:
    (command,) = re.findall(r"^\$ sudo rabbitmqctl set_policy (.*)$", RUNBOOK, re.MULTILINE)
    options = [each.replace(r"eventsink\.log", re.escape(broker.queue)) for each in shlex.split(command)]
    log = RabbitLog(broker.url, broker.exchange, broker.queue, max_bytes=MAX_BYTES)
    await log.open()
    try:
        await asyncio.to_thread(broker.node.ctl, "set_policy", "-p", broker.vhost, *options)
        await fill(log)
        assert await log.first_offset() == 0
        await asyncio.to_thread(broker.node.ctl, "clear_policy", "-p", broker.vhost, "eventsink-log")
        await is_cut(log)
    finally:
        await log.close()
