"""Readers of the stream as a user would otherwise write them: one handler that decodes JSON and adds one number.
Settings are the libraries' own but for what makes them faster: uvloop, no logging of each message, and the
prefetch that our reader has.

    python -m bench.readers faststream|aio-pika URL QUEUE COUNT PREFETCH
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage
from pamqp.common import FieldTable

from bench.spans import Span, until_told

FIRST: FieldTable = {"x-stream-offset": "first"}


class Sum:
    """Adds up the sizes of files; ``full`` once ``count`` events are in it."""

    def __init__(self, count: int) -> None:
        self.full = asyncio.Event()
        self._span = Span()
        self._left = count
        self._total = 0

    def begin(self) -> None:
        """Before an event is looked at."""
        self._span.begin()

    def add(self, event: dict[str, Any]) -> None:
        """One event."""
        size = event.get("size", 0)
        if isinstance(size, int):
            self._total += size
        self._left -= 1
        if self._left == 0:
            self._span.end()
            self.full.set()


async def faststream(url: str, queue: str, count: int, prefetch: int) -> None:
    """FastStream's subscriber, which decodes by itself."""
    from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

    sums = Sum(count)

    broker = RabbitBroker(url, logger=None, default_channel=Channel(prefetch_count=prefetch))
    stream = RabbitQueue(queue, queue_type=QueueType.STREAM, durable=True, declare=False)

    @broker.subscriber(stream, consume_args=FIRST)  # type: ignore[untyped-decorator, unused-ignore]
    async def handle(event: dict[str, Any]) -> None:
        sums.begin()
        sums.add(event)

    async with broker:
        await broker.start()
        await sums.full.wait()
        await asyncio.to_thread(until_told)


async def plain_aio_pika(url: str, queue: str, count: int, prefetch: int) -> None:
    """aio-pika's consumer, each message acknowledged when the handler is done with it."""
    sums = Sum(count)

    async def handle(message: AbstractIncomingMessage) -> None:
        async with message.process():
            sums.begin()
            sums.add(json.loads(message.body))

    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        stream = await channel.get_queue(queue, ensure=False)
        await stream.consume(handle, arguments=FIRST)
        await sums.full.wait()
        await asyncio.to_thread(until_told)


CONTESTANTS = {"faststream": faststream, "aio-pika": plain_aio_pika}

if __name__ == "__main__":
    name, url, queue, count, prefetch = sys.argv[1:]
    uvloop.run(CONTESTANTS[name](url, queue, int(count), int(prefetch)))
