"""A reader or a question that is given up at any moment. On a real node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from tests.broker_logs import MAKE_LOG
from tests.servers.rabbitmq import Broker
from tests.topology.test_log import event
from topology.errors import Unavailable
from topology.rabbitmq.log import RabbitLog

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
async def log(make_log: MAKE_LOG) -> RabbitLog:
    return await make_log()


async def test_a_log_that_is_closed_at_any_moment_leaves_no_call_cut_off(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    for turns in range(0, 600, 50):
        log = RabbitLog(broker.url, broker.exchange, broker.queue)
        await log.open()
        await log.publish([event(turns)])
        for _ in range(turns):
            await asyncio.sleep(0)
        await log.close()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("aiormq")] == []


async def test_a_look_that_is_cut_off_at_any_moment_does_not_hold_up_its_connection(
    broker: Broker, log: RabbitLog
) -> None:
    await log.publish([event(number) for number in range(1000)])
    await log.publisher.close()  # else it looks, too
    for turns in [*range(1, 120)] * 4:
        look = asyncio.create_task(log.end_offset())
        for _ in range(turns):
            await asyncio.sleep(0)
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)
        try:
            async with asyncio.timeout(7):
                assert await log.end_offset() == 1000
        except Unavailable:
            pass  # aiormq lost track of a channel number: said at once, and the next use connects anew


async def reader_opened(log: RabbitLog) -> None:
    await (await log.reader(0)).close()


@pytest.mark.parametrize("ask", [reader_opened, RabbitLog.end_offset, RabbitLog.first_offset])
async def test_a_cancellation_at_any_moment_of_a_question_ends_the_task(
    log: RabbitLog, ask: Callable[[RabbitLog], Awaitable[object]]
) -> None:
    """Or else a worker that is told to end while it looks into the log never does."""
    await log.publish([event(1)])
    loop = asyncio.get_running_loop()
    began = loop.time()
    await ask(log)
    took = loop.time() - began
    cancelled = 0
    for moment in range(150):
        asking = asyncio.ensure_future(ask(log))
        until = loop.time() + took * moment / 100
        while loop.time() < until and not asking.done():
            await asyncio.sleep(0)
        if asking.cancel():
            await asyncio.wait({asking})
            assert asking.cancelled(), f"at moment {moment} it went on to {asking}"
            cancelled += 1
        else:
            with suppress(Unavailable):  # aiormq: a cancelled call before it may have cost the connection
                await asking
    assert cancelled > 10
