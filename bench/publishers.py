"""Publishing single events, every one confirmed by the broker.

    python -m bench.publishers eventsink|aio-pika URL EXCHANGE QUEUE COUNT

eventsink publishes as the web application and `eventsink send` do, mandatory and persistent, a batch of messages at
a time; aio-pika as its documentation shows, `await exchange.publish(...)` for each, just as safe.
"""

from __future__ import annotations

import asyncio
import sys
import time

import aio_pika
import uvloop

from bench.load import lines
from bench.spans import Span, until_told
from topology.log import JSON, Outgoing
from topology.rabbitmq.log import RabbitLog
from topology.uuid7 import uuid7

BATCH = 1000


async def eventsink(url: str, exchange: str, queue: str, count: int) -> None:
    """By way of the log."""
    now_ms = time.time_ns() // 1_000_000
    messages = [Outgoing(line, JSON, uuid7(now_ms), now_ms) for line in lines(count)]
    log = RabbitLog(url, exchange, queue)
    await log.open()
    try:
        await log.publish(messages[:1])  # the connection for publishing is made now
        span = Span()
        span.begin()
        for start in range(0, count, BATCH):
            await log.publish(messages[start : start + BATCH])
        span.end()
        await asyncio.to_thread(until_told)
    finally:
        await log.close()


async def plain_aio_pika(url: str, exchange: str, queue: str, count: int) -> None:
    """One by one."""
    bodies = list(lines(count))
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        declared = await channel.get_exchange(exchange, ensure=False)
        span = Span()
        span.begin()
        for body in bodies:
            await declared.publish(
                aio_pika.Message(body, content_type=JSON, delivery_mode=aio_pika.DeliveryMode.PERSISTENT),
                routing_key="",
                mandatory=True,
            )
        span.end()
        await asyncio.to_thread(until_told)


CONTESTANTS = {"eventsink": eventsink, "aio-pika": plain_aio_pika}

if __name__ == "__main__":
    name, url, exchange, queue, count = sys.argv[1:]
    uvloop.run(CONTESTANTS[name](url, exchange, queue, int(count)))
