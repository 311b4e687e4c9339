"""Forwarding by the program itself: everything set, a wrong key, a vendor that is away, secrets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.processes import Instance, Service
from tests.servers.vendors import (
    AMPLITUDE_KEY,
    GA_ID,
    GA_SECRET,
    WEBHOOK_SECRET,
    Vendors,
    answers,
    resets,
    serving,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

TOKEN = "webhook-token-0123456789"
PATIENCE_S = 60.0


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with serving() as served:
        yield served


def settings(vendors: Vendors, **others: str) -> Mapping[str, str]:
    return {
        "EVENTSINK_AMPLITUDE_API_KEY": AMPLITUDE_KEY,
        "EVENTSINK_AMPLITUDE_URL": vendors.url,
        "EVENTSINK_GA_MEASUREMENT_ID": GA_ID,
        "EVENTSINK_GA_API_SECRET": GA_SECRET,
        "EVENTSINK_GA_URL": vendors.url,
        "EVENTSINK_GA_VALIDATE": "1",
        "EVENTSINK_WEBHOOK_URL": f"{vendors.url}/hook?token={TOKEN}",
        "EVENTSINK_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "EVENTSINK_LOG_FORMAT": "text",
        **others,
    }


def lines(first: int, after: int) -> bytes:
    now = time.time_ns() // 1_000_000
    events = [
        {
            "type": "traffic.resource_viewed",
            "time": now - 60_000 + number,
            "resource_type": "dataset",
            "resource_id": f"{number:024x}",
            "user_id": f"someone-{number}",
        }
        for number in range(first, after)
    ]
    return b"\n".join(json.dumps(event).encode() for event in events)


async def until(condition: Callable[[], bool], service: Service) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            assert service.process.returncode is None, service.output
            await asyncio.sleep(0.02)


async def readiness(service: Service) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/readyz") as answer:
        return answer.status, await answer.text()


def no_secret_in(text: str) -> None:
    for secret in (AMPLITUDE_KEY, GA_SECRET, WEBHOOK_SECRET, TOKEN):
        assert secret not in text


async def test_all_vendors_get_every_event_and_no_secret_comes_out(
    tmp_path: Path, vendors: Vendors, free_port: Callable[[], int]
) -> None:
    # Trouble of every kind first, so that there is something to log.
    vendors.script.extend([resets, answers(500), answers(503), answers(429), resets, answers(502)])
    instance = Instance(tmp_path, settings(vendors, EVENTSINK_GA_VALIDATE="0"))
    assert (await instance.run("send", "-", input=lines(0, 50))).code == 0
    service = await instance.start("up", free_port())

    async def doubtful() -> float:
        text = await service.metrics()
        name = 'eventsink_forwarded_events_total{agent="google",result="doubtful"} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    await until(lambda: len(vendors.events) == len(vendors.hooked) == 50, service)
    async with asyncio.timeout(PATIENCE_S):
        while len(vendors.hits) + await doubtful() < 50:
            await asyncio.sleep(0.05)
    assert len(vendors.hits) + await doubtful() == 50
    metrics = await service.metrics()
    assert 'eventsink_ledger_imbalance_events{agent="google"} 0.0' in metrics
    ready, said = await readiness(service)
    assert ready == 200
    assert await service.stop() == 0
    checked = await instance.run("check")
    dry = [
        await instance.run("forward", "--dry-run", vendor) for vendor in ("amplitude", "google", "webhook")
    ]
    no_secret_in(service.output + metrics + said + checked.out + checked.err)
    for ended in dry:
        assert ended.code == 0, ended.err
        no_secret_in(ended.out + ended.err)
    assert set(vendors.counted.values()) == {1}


async def test_a_wrong_key_stops_one_agent_and_readiness_says_so(
    tmp_path: Path, vendors: Vendors, free_port: Callable[[], int]
) -> None:
    instance = Instance(tmp_path, settings(vendors, EVENTSINK_AMPLITUDE_API_KEY="wrong-key-0123456789"))
    service = await instance.start("up", free_port())
    assert (await instance.run("send", "-", input=lines(0, 20))).code == 0
    await until(lambda: len(vendors.hits) == len(vendors.hooked) == 20, service)
    async with asyncio.timeout(PATIENCE_S):
        while (await readiness(service))[0] == 200:
            await asyncio.sleep(0.02)
    status, said = await readiness(service)
    assert status == 503
    assert "EVENTSINK_AMPLITUDE_API_KEY" in said
    assert "wrong-key" not in said + service.output
    # Everything else goes on.
    assert (await instance.run("send", "-", input=lines(20, 30))).code == 0
    await until(lambda: len(vendors.hits) == len(vendors.hooked) == 30, service)
    assert len(await instance.events()) == 30
    assert not vendors.events
    assert await service.stop() == 0
    # With the right key nothing is missing.
    instance.environment["EVENTSINK_AMPLITUDE_API_KEY"] = AMPLITUDE_KEY
    service = await instance.start("worker", free_port(), "--groups", "amplitude")
    await until(lambda: len(vendors.events) == 30, service)
    assert await service.stop() == 0
    assert len(vendors.hits) == 30


async def test_after_a_kill_nothing_counts_twice(
    tmp_path: Path, vendors: Vendors, free_port: Callable[[], int]
) -> None:
    instance = Instance(tmp_path, settings(vendors, EVENTSINK_CHECKPOINT_EVERY="1h"))
    assert (await instance.run("send", "-", input=lines(0, 300))).code == 0
    service = await instance.start("worker", free_port(), "--groups", "amplitude,google,webhook")
    await until(lambda: len(vendors.events) == 300 and len(vendors.hits) > 30, service)
    await service.kill()
    instance.environment["EVENTSINK_CHECKPOINT_EVERY"] = "1s"
    assert (await instance.run("send", "-", input=lines(300, 310))).code == 0
    service = await instance.start("worker", free_port(), "--groups", "amplitude,google,webhook")
    await until(lambda: len(vendors.events) == len(vendors.hooked) == 310, service)

    def last_ten(hit: Mapping[str, Any]) -> bool:
        return int(hit["events"][0]["params"]["resource_id"], 16) >= 300

    await until(lambda: sum(map(last_ten, vendors.hits)) == 10, service)
    assert set(vendors.counted.values()) == {1}
    ids = [hit["events"][0]["params"]["resource_id"] for hit in vendors.hits]
    assert len(ids) == len(set(ids))
    assert await service.stop() == 0


async def test_nothing_is_forwarded_unless_a_vendor_is_set(
    tmp_path: Path, vendors: Vendors, free_port: Callable[[], int]
) -> None:
    instance = Instance(tmp_path)
    service = await instance.start("up", free_port())
    assert "forward" not in await service.metrics() or 'agent="amplitude"' not in await service.metrics()
    assert await service.stop() == 0
    alone = await instance.run("worker", "--groups", "amplitude", "--port", "0")
    assert alone.code == 1
    assert "amplitude" in alone.err
    assert not vendors.requests


async def test_a_vendor_that_never_answers_delays_nothing_else(
    tmp_path: Path, vendors: Vendors, free_port: Callable[[], int]
) -> None:
    silent = await asyncio.start_server(_silence, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    instance = Instance(tmp_path, settings(vendors, EVENTSINK_AMPLITUDE_URL=f"http://127.0.0.1:{port}"))
    service = await instance.start("up", free_port())
    assert (await instance.run("send", "-", input=lines(0, 200))).code == 0
    await until(lambda: len(vendors.hits) == len(vendors.hooked) == 200, service)
    assert len(await instance.events()) == 200
    started = time.monotonic()
    assert await service.stop() == 0
    assert time.monotonic() - started < 10
    silent.close()


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_a_dry_run_prints_the_requests_of_a_range(tmp_path: Path, vendors: Vendors) -> None:
    instance = Instance(tmp_path)
    port = 0
    service = await instance.begin("up", port)
    assert (await instance.run("send", "-", input=lines(0, 30))).code == 0
    async with asyncio.timeout(PATIENCE_S):
        while len(await instance.events()) < 30:
            await asyncio.sleep(0.05)
    printed = await instance.run("forward", "--dry-run", "amplitude", "--since", "now-1h")
    assert printed.code == 0, printed.err
    assert printed.out.startswith("POST https://api2.amplitude.com/batch\n")
    assert printed.out.count('"insert_id"') == 30
    assert '"api_key": "***"' in printed.out
    assert "30 events in 1 requests" in printed.err
    none = await instance.run("forward", "--dry-run", "google", "--until", "now-1h")
    assert none.out == ""
    assert (await instance.run("forward", "google")).code == 2
    assert await service.stop() == 0
    assert not vendors.requests
