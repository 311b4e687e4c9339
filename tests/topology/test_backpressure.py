"""Agents that are slower than the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faust
from yarl import URL

from topology.transports import LogTransport


class _AsIs(faust.Schema[Any, Any]):
    def loads_value(self, app: Any, message: Any, **options: Any) -> Any:
        return message.value


async def test_reading_goes_on_as_soon_as_a_slow_agent_has_room(tmp_path: Path) -> None:
    app = faust.App(
        "test",
        broker=[URL(f"sqlite://{tmp_path / 'log.db'}")],
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=2,
        web_enabled=False,
    )
    values = range(40)
    complete = asyncio.Event()
    received: list[int] = []

    async def source() -> AsyncIterator[object]:
        for value in values:
            yield value

    async def reader(stream: faust.StreamT[Any]) -> None:
        async for value in stream:
            await asyncio.sleep(0.005)
            received.append(value)
            if len(received) == len(values):
                complete.set()

    transport = app.transport
    assert isinstance(transport, LogTransport)
    transport.use(transport.log, {"slow": source})
    app.agent(app.topic("slow", schema=_AsIs(), acks=False), name="slow")(reader)
    await app.start()
    try:
        # 40 times 5 ms. Faust's own consumer would sleep for a second each time that the buffer is full.
        async with asyncio.timeout(60):
            await complete.wait()
    finally:
        await app.stop()
    assert received == list(values)
