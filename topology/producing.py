"""Appending to a log by way of Faust: what ``topic.send`` does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Any

from faust.transport.producer import Producer
from faust.types import TP, RecordMetadata

from topology.feeds import CONTENT_TYPE_HEADER
from topology.log import ID_HEADER, JSON, RECEIVED_HEADER, Outgoing
from topology.uuid7 import uuid7

#: A service of Faust's, and logs with its others.
logger = logging.getLogger("faust.transport.log")


class LogProducer(Producer):
    """Appends to the log, whatever the topic: topics are readings of it.

    Raises ``Unavailable`` while the broker does not take messages (then send the same again), ``ValueError`` for
    what a message of the log cannot carry: a key, or headers other than ``content-type`` and ``x-eventsink-id``.
    """

    transport: Any  # a ``topology.transports.LogTransport``
    logger = logger

    async def on_start(self) -> None:
        """Faust's start of a service."""
        await super().on_start()
        await self.transport.open()

    async def on_shutdown(self) -> None:
        """Faust's end of a service."""
        await self.transport.close()

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Append one message; durable when this returns. The offset in the answer is -1: a broker does not tell."""
        if key is not None:
            raise ValueError(f"a message of the log has no key, got {key!r}: put it into the value")
        carried = {str(name): _text(content) for name, content in dict(headers or {}).items()}
        content_type = carried.pop(CONTENT_TYPE_HEADER, JSON)
        now_ms = int((time.time() if timestamp is None else timestamp) * 1000)
        event_id = carried.pop(ID_HEADER, None) or str(uuid7(now_ms))
        carried.pop(RECEIVED_HEADER, None)
        if carried:
            raise ValueError(f"a message of the log carries no headers {', '.join(sorted(carried))}")
        await self.transport.log.publish([Outgoing(value or b"", content_type, event_id, now_ms)])
        return RecordMetadata(topic, 0, TP(topic, 0), -1, now_ms / 1000, 0)

    async def send(self, *args: Any, **kwargs: Any) -> Awaitable[RecordMetadata]:
        """As ``send_and_wait``: durable when this returns. To send many, await them together: their confirms are
        waited for at once."""
        sent: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        sent.set_result(await self.send_and_wait(*args, **kwargs))
        return sent

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics need no declaration: they are readings of the log, which ``open`` declared."""

    def key_partition(self, topic: str, key: bytes) -> TP:
        """There is one partition."""
        return TP(topic, 0)


def _text(content: str | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content
