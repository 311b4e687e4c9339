"""A real Prometheus with the shipped configuration, over the real processes: what the rules are about is there."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.monitors.targets import saying, serving
from tests.processes import Instance
from tests.prometheus.rules import CONFIG, metrics_of, recorded, rules
from tests.servers.prometheus import RUNBOOK, Prometheus

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(360)]

LIMIT_S = 60.0
JOBS = ("eventsink-worker", "eventsink-web", "eventsink-monitor")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


def events() -> Sequence[dict[str, Any]]:
    """An upload, a service seen from two regions, and a job that began two days ago and never ended."""
    now_ms = time.time_ns() // 1_000_000
    pinged = {"type": "health.pinged", "service": "clowder", "up": True, "valid_for_s": 600, "time": now_ms}
    job = {"type": "extraction.started", "job_id": "j", "extractor": "x", "time": now_ms - 2 * 86_400_000}
    upload = {"type": "storage.file_uploaded", "file_id": "f", "space_id": "s", "bytes": 1}
    return [job, {**pinged, "region": "east"}, {**pinged, "region": "west"}, upload]


async def test_every_series_that_a_rule_names_is_scraped_from_the_running_processes(
    tmp_path: Path, free_port: Callable[[], int], stack: AsyncExitStack
) -> None:
    ports = {job: free_port() for job in JOBS}
    nobody = free_port()  # no broker and no vendor listens there

    (tmp_path / "worker").mkdir()
    forwarding = {
        "EVENTSINK_WEBHOOK_URL": f"http://127.0.0.1:{nobody}/",
        "EVENTSINK_WEBHOOK_SECRET": "a-secret-of-this-test-alone",
    }
    embedded = Instance(tmp_path / "worker", forwarding)
    worker = await embedded.start("worker", ports["eventsink-worker"])
    sent = await embedded.run("send", "-", input="\n".join(map(json.dumps, events())).encode())
    assert sent.code == 0, sent.err

    (tmp_path / "web").mkdir()
    away = Instance(tmp_path / "web", {"EVENTSINK_BROKER_URL": f"amqp://127.0.0.1:{nobody}/"})
    web = await away.start("web", ports["eventsink-web"])

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    page = await stack.enter_async_context(serving(saying("hello"), tls=tls))
    (tmp_path / "monitor").mkdir()
    (tmp_path / "monitor" / "m.toml").write_text(
        f'endpoint = "{web.url}"\nregion = "east"\n\n'
        f'[[probe]]\nkind = "page"\nservice = "clowder"\nurl = "https://127.0.0.1:{page}/"\n'
        f'ca_file = "{tmp_path}/ca.pem"\ninterval = 1\n'
    )
    monitor = await Instance(tmp_path / "monitor").begin(
        "monitor", ports["eventsink-monitor"], "--config", "m.toml"
    )

    prometheus = Prometheus(tmp_path, free_port(), CONFIG, ports)
    stack.callback(prometheus.end)
    prometheus.start()

    named = {name for rule in rules() for name in metrics_of(rule["expr"])}
    missing = named | set(recorded())
    until = time.monotonic() + LIMIT_S
    while missing:
        assert time.monotonic() < until, f"not there: {sorted(missing)}"
        there = prometheus.query('count by (__name__) ({__name__=~".*eventsink_.*|eventsink:.*"})')
        missing -= {series["metric"]["__name__"] for series in there}
        await asyncio.sleep(0.2)

    up = {each["metric"]["job"]: each["value"][1] for each in prometheus.query("up")}
    assert up == dict.fromkeys(JOBS, "1")
    assert {
        rule["name"]: rule.get("lastError", "") for rule in prometheus.rules() if rule["health"] != "ok"
    } == {}
    ready = prometheus.query('eventsink_service_up{service="clowder",region="all"}')
    assert [each["value"][1] for each in ready] == ["1"]
    assert prometheus.labels() == {"runbook": RUNBOOK}
    lag = prometheus.query('eventsink_agent_lag_events{agent!="webhook"}')
    assert {each["value"][1] for each in lag} == {"0"}
    for service in (worker, web, monitor):
        assert await service.stop() == 0
