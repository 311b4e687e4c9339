"""A RabbitMQ node of the benchmarks' own, and logs on it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.load import canonical_events, lines
from cli.publishing import MESSAGE_EVENTS, Packed, stamped
from tests.servers.rabbitmq import RabbitNode
from topology.log import JSON, Outgoing
from topology.rabbitmq.log import RabbitLog

EXCHANGE = "clowder.metrics"
QUEUE = "eventsink.log"
#: No alarm is to stop a publisher: what a node needs is measured, not bounded, here.
MEMORY = "4GB"
#: Messages of one publish where nothing is said about it.
TOGETHER = 1000


@contextmanager
def running_node() -> Iterator[RabbitNode]:
    """The node; gone with the block, and what it holds with it."""
    folder = Path(tempfile.mkdtemp(prefix="eventsink-bench-rabbitmq-"))
    node = RabbitNode(folder)
    try:
        node.start()
        node.ctl("set_vm_memory_high_watermark", "absolute", MEMORY)
        yield node
    finally:
        node.end()
        shutil.rmtree(folder, ignore_errors=True)


class StreamLog(NamedTuple):
    """A stream on a virtual host of its own, and how much is in it."""

    node: RabbitNode
    vhost: str
    events: int
    messages: int

    @property
    def url(self) -> str:
        return self.node.url(self.vhost)

    def log(self) -> RabbitLog:
        """To be opened."""
        return RabbitLog(self.url, EXCHANGE, QUEUE)


def empty(node: RabbitNode) -> StreamLog:
    """A log that is declared and holds nothing."""
    return _filled(node, [], 0, TOGETHER)


def singles(node: RabbitNode, count: int, length: timedelta, together: int = TOGETHER) -> StreamLog:
    """A log of messages with one event each, without ids, as Clowder sends; the six hours of the sample take
    ``length``. So many messages are published ``together`` before their confirms are waited for: a stream is stored,
    and sent, in chunks of what came together, and that decides how fast a broker can send it."""
    messages = [Outgoing(line, JSON, None, None) for line in lines(count, length)]
    return _filled(node, messages, count, together)


def hundreds(node: RabbitNode, count: int, length: timedelta) -> StreamLog:
    """A log of messages with a hundred events each, canonical and stamped, as `eventsink send` sends."""
    encoded = [msgspec.json.encode(event) for event in canonical_events(count, length)]
    packed = [
        Packed(b"\n".join(some), len(some), start)
        for start in range(0, count, MESSAGE_EVENTS)
        for some in [encoded[start : start + MESSAGE_EVENTS]]
    ]
    return _filled(node, stamped(packed, time.time_ns() // 1_000_000), count, TOGETHER)


def _filled(node: RabbitNode, messages: Sequence[Outgoing], events: int, together: int) -> StreamLog:
    stream = StreamLog(node, node.fresh_vhost(), events, len(messages))

    async def fill() -> None:
        log = stream.log()
        await log.open()
        try:
            for start in range(0, len(messages), together):
                await log.publish(messages[start : start + together])
        finally:
            await log.close()

    asyncio.run(fill())
    return stream
