"""SIGTERM at any time ends a process cleanly, and the next one goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deployments import embedded
from tests.processes import SAMPLE, comes_to_the_expected_numbers, holds_each_event_once, sample_lines

pytestmark = [pytest.mark.processes, pytest.mark.timeout(480)]


async def test_terminated_while_busy_it_ends_with_0_and_the_next_one_goes_on(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    instance = embedded(tmp_path)
    sending = asyncio.ensure_future(instance.run("send", str(SAMPLE), "--rate", "600"))
    port = free_port()
    for _ in range(3):
        service = await instance.start("up", port)
        await asyncio.wait([sending], timeout=0.5)
        # `stop` itself fails when the process takes longer than its limit.
        assert await service.stop() == 0, service.output
        assert "Traceback" not in service.output
    service = await instance.start("up", port)
    assert (await sending).code == 0
    await comes_to_the_expected_numbers(instance)
    await holds_each_event_once(instance, sample_lines())
    assert await service.stop() == 0


async def test_terminated_while_it_waits_for_a_server_it_ends_with_0(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    instance = embedded(tmp_path)
    instance.environment["EVENTSINK_MONGO_URL"] = f"mongodb://127.0.0.1:{free_port()}/"
    service = await instance.begin("up", free_port())
    async with asyncio.timeout(60):
        while "waiting up to 30 s" not in service.output:
            await asyncio.sleep(0.02)
    assert await service.stop() == 0
    assert "Traceback" not in service.output
