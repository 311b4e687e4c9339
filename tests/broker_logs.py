"""What tests of a log on a real broker share: strangers on it, and conditions to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import aio_pika
from aio_pika.abc import AbstractChannel

from tests.servers.rabbitmq import Broker
from tests.topology.test_log import UNBOUNDED, read
from topology.errors import Unavailable
from topology.log import LogReader, LogReplaced, Message, Outgoing
from topology.rabbitmq.log import RabbitLog
from topology.rabbitmq.reader import RabbitReader

#: No look at the log but those that a test asks for by an event.
NEVER = timedelta(hours=1)
MAKE_LOG = Callable[..., Awaitable[RabbitLog]]


@asynccontextmanager
async def foreign(broker: Broker) -> AsyncIterator[AbstractChannel]:
    """A channel of somebody else."""
    connection = await aio_pika.connect(broker.url)
    try:
        channel = connection.channel(publisher_confirms=False)
        await channel.initialize()
        yield channel
    finally:
        await connection.close()


async def ids(log: RabbitLog) -> list[str | None]:
    """The ids of all messages in the log."""
    reader = await log.reader(0)
    try:
        return [message.event_id for message in await read(reader, await log.end_offset())]
    finally:
        await reader.close()


async def until_replaced(reader: LogReader) -> list[Message]:
    """What still comes before ``LogReplaced``, through any outage."""
    messages: list[Message] = []
    async with asyncio.timeout(60):
        while True:
            try:
                messages += await reader.fetch(
                    limit=1000, max_bytes=UNBOUNDED, timeout=timedelta(seconds=0.2)
                )
            except Unavailable:
                pass
            except LogReplaced:
                return messages


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


async def until_held(reader: RabbitReader, size: int) -> None:
    async with asyncio.timeout(60):
        while reader.held_bytes < size:
            await asyncio.sleep(0.01)


async def until_published(log: RabbitLog, *messages: Outgoing) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await log.publish(messages)
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def until_logged(broker: Broker, marker: str) -> None:
    """Returns when everything that the broker logged so far is in its file, which it writes with a delay."""
    await asyncio.to_thread(broker.node.ctl, "eval", f'rabbit_log:info("{marker}").')

    async def written() -> bool:
        return marker in broker.node.words

    await until(written)
