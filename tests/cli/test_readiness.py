"""What ``/readyz`` of a worker says: each dependency by itself, an agent that makes no progress among them. And what
``/healthz`` says: only what a restart mends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from cli import process, settings
from cli.running import Running, opened
from topology import progress
from topology.errors import Unavailable
from topology.log import JSON, Outgoing
from topology.views import View

UPLOAD = {"type": "storage.file_uploaded", "file_id": "f", "space_id": "s", "bytes": 1}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


async def test_an_agent_that_hangs_makes_the_worker_not_ready_and_says_which(
    tmp_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(self: View) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(View, "archive", hangs)
    monkeypatch.setattr(progress, "STUCK_AFTER_S", 0.0)
    part = await opened(stack, settings.load({}, data=tmp_path), patience=process.START_PATIENCE)
    running = Running(stack, settings.load({}, data=tmp_path), part)
    await running.start_agents(("archive",))
    client = await stack.enter_async_context(TestClient(TestServer(running.probes_application())))
    answer = await client.get("/readyz")
    assert answer.status == 200
    assert {"log", "state"} <= (await answer.json())["dependencies"].keys()

    await part.log.publish([Outgoing(json.dumps(UPLOAD).encode(), JSON, None, None)])
    assert running.health is not None
    async with asyncio.timeout(60):
        while not running.health.stuck:
            await running.health.look()
            await asyncio.sleep(0.01)
    answer = await client.get("/readyz")
    assert answer.status == 503
    document = await answer.json()
    wrong = {name: said for name, said in document["dependencies"].items() if said != "ok"}
    assert list(wrong) == ["archive"]
    assert wrong["archive"].startswith("makes no progress for")
    assert "archive: makes no progress" in document["detail"]
    assert 'eventsink_agent_stuck{agent="archive"} 1.0' in await (await client.get("/metrics")).text()
    # Whoever restarts what is not healthy restarts it: that mends it, and costs nobody anything.
    unhealthy = await client.get("/healthz")
    assert unhealthy.status == 503
    assert (await unhealthy.json())["detail"].startswith("archive makes no progress for")


async def test_a_server_that_is_away_leaves_the_worker_alive_for_no_restart_brings_it_back(
    tmp_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = await opened(stack, settings.load({}, data=tmp_path), patience=process.START_PATIENCE)
    running = Running(stack, settings.load({}, data=tmp_path), part)
    await running.start_agents(("archive",))
    client = await stack.enter_async_context(TestClient(TestServer(running.probes_application())))
    assert (await (await client.get("/healthz")).text()) == "healthy\n"

    async def away() -> int:
        raise Unavailable("the disk is gone")

    monkeypatch.setattr(part.log, "end_offset", away)
    assert running.health is not None
    await running.health.look()
    assert (await client.get("/readyz")).status == 503
    assert (await client.get("/healthz")).status == 200
