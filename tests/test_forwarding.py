"""Forwarding by the program itself: everything set, a wrong key, a vendor that is away, secrets."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deployments import log_and_state
from tests.processes import Instance, Service
from tests.servers.vendors import (
    AMPLITUDE_KEY,
    GA_ID,
    GA_SECRET,
    WEBHOOK_SECRET,
    Vendors,
    answers,
    resets,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

TOKEN = "webhook-token-0123456789"
PATIENCE_S = 120.0


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
            "user_id": f"5f3a{number:020x}",
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


async def doubtful(service: Service) -> float:
    """Events of which it is not known if Google has them, of this process."""
    text = await service.metrics()
    name = 'eventsink_forwarded_events_total{agent="google",result="doubtful"} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def newest(hits: Sequence[Mapping[str, Any]], first: int) -> int:
    """How many of them are of the events of ``lines`` from the first one on."""
    return sum(int(hit["events"][0]["params"]["resource_id"], 16) >= first for hit in hits)


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

    await until(lambda: len(vendors.events) == len(vendors.hooked) == 50, service)
    async with asyncio.timeout(PATIENCE_S):
        while len(vendors.hits) + await doubtful(service) < 50:
            await asyncio.sleep(0.05)
    assert len(vendors.hits) + await doubtful(service) == 50
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
        while "EVENTSINK_AMPLITUDE_API_KEY" not in (await readiness(service))[1]:
            await asyncio.sleep(0.02)
    status, said = await readiness(service)
    assert status == 200  # events are accepted: no balancer is to take it out
    assert json.loads(said)["dependencies"]["amplitude"].startswith("Amplitude answers 400")
    assert "wrong-key" not in said + service.output
    # Everything else goes on.
    assert (await instance.run("send", "-", input=lines(20, 30))).code == 0
    await until(lambda: len(vendors.hits) == len(vendors.hooked) == 30, service)
    assert len(await instance.events()) == 30
    assert not vendors.events
    assert await service.stop() == 0
    # A worker accepts no events: what works on them is all that it has.
    worker = await instance.begin("worker", free_port(), "--groups", "amplitude")
    await until(lambda: "agent amplitude stops" in worker.output, worker)
    status, said = await readiness(worker)
    assert status == 503
    assert "EVENTSINK_AMPLITUDE_API_KEY" in said
    assert await worker.stop() == 0
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
    await until(lambda: newest(vendors.hits, 300) == 10, service)
    assert set(vendors.counted.values()) == {1}
    ids = [hit["events"][0]["params"]["resource_id"] for hit in vendors.hits]
    assert len(ids) == len(set(ids))
    assert await service.stop() == 0


@pytest.mark.servers
@pytest.mark.timeout(360)
async def test_on_rabbitmq_and_mongodb_nothing_counts_twice_through_a_kill(
    tmp_path: Path, vendors: Vendors, free_port: Callable[[], int], request: pytest.FixtureRequest
) -> None:
    instance = Instance(
        tmp_path,
        {
            **log_and_state(request),
            "EVENTSINK_AMPLITUDE_API_KEY": AMPLITUDE_KEY,
            "EVENTSINK_AMPLITUDE_URL": f"{vendors.url}/2/httpapi",  # a thousand a request
            "EVENTSINK_GA_MEASUREMENT_ID": GA_ID,
            "EVENTSINK_GA_API_SECRET": GA_SECRET,
            "EVENTSINK_GA_URL": vendors.url,
        },
    )
    assert (await instance.run("send", "-", input=lines(0, 1200))).code == 0
    sent: Counter[str] = Counter()
    answered = 0

    async def counted(_: Vendors, request: Any, events: list[dict[str, Any]]) -> Any:
        sent.update(each["insert_id"] for each in events if "insert_id" in each)

    async def answers_once(served: Vendors, request: Any, events: list[dict[str, Any]]) -> Any:
        nonlocal answered
        await counted(served, request, events)
        answered += "httpapi" in request.path
        if "httpapi" in request.path and answered > 1:
            served.ingest(events)  # it has them, and nobody learns of it
            await asyncio.get_running_loop().create_future()

    vendors.always = answers_once
    worker = await instance.start("worker", free_port(), "--groups", "amplitude,google")
    await until(lambda: len(vendors.events) == 1200 and len(vendors.hits) > 50, worker)
    await worker.kill()

    vendors.always = counted
    assert (await instance.run("send", "-", input=lines(1200, 1300))).code == 0
    worker = await instance.start("worker", free_port(), "--groups", "amplitude,google")
    await until(lambda: len(vendors.events) == 1300, worker)
    await until(lambda: newest(vendors.hits, 1200) == 100, worker)
    async with asyncio.timeout(PATIENCE_S):
        while 'forward_pending_events{agent="google"} 0.0' not in await worker.metrics():
            await asyncio.sleep(0.05)
    in_doubt = await doubtful(worker)
    assert await worker.stop() == 0
    assert max(sent.values()) == 2  # what was in doubt went again
    hits = Counter(hit["events"][0]["params"]["resource_id"] for hit in vendors.hits)
    assert set(hits.values()) == {1}  # what was in doubt did not
    assert len(hits) <= 1300 <= len(hits) + in_doubt

    # The positions are in MongoDB: nothing but what is new goes now.
    shutil.rmtree(tmp_path / "data")
    sent.clear()
    assert (await instance.run("send", "-", input=lines(1300, 1310))).code == 0
    worker = await instance.start("worker", free_port(), "--groups", "amplitude,google")
    await until(lambda: len(vendors.events) == 1310 and len(vendors.hits) == len(hits) + 10, worker)
    assert await doubtful(worker) == 0
    assert await worker.stop() == 0
    assert len(sent) == 10
    resources = {each["event_properties"]["resource_id"] for each in vendors.events.values()}
    assert resources == {f"{number:024x}" for number in range(1310)}
    assert set(vendors.counted.values()) == {1}


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
    assert await service.stop() == 0  # within its limit: a vendor is waited for longer
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
    assert "30 events in 1 request to" in printed.err
    assert len(printed.out.splitlines()) < 30 + 15
    few = await instance.run("forward", "--dry-run", "google", "--limit", "2")
    assert few.out.count("/mp/collect?measurement_id=G-***&api_secret=***\n") == 2
    assert "2 events in 2 requests" in few.err
    assert "--limit" in few.err
    none = await instance.run("forward", "--dry-run", "google", "--until", "now-1h")
    assert none.out == ""
    assert (await instance.run("forward", "google")).code == 2
    assert await service.stop() == 0
    assert not vendors.requests
