"""Events come in while everything else is down, and arrive: each once."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cli.settings_sources import NAMES
from tests.processes import Instance, Service
from tests.servers.rabbitmq import Broker
from tests.test_crash import Dying
from tests.web.test_spool_on_rabbitmq import does

pytestmark = [pytest.mark.processes, pytest.mark.timeout(360)]

CONNECTIONS = 32
#: Between two requests of a connection, so that the agents have not more to read than the proof needs.
BETWEEN_REQUESTS_S = 0.05
PATIENCE_S = 120.0
#: Accepted between two faults.
SOME = 300
#: The sender of a test is one key; how many requests that may make is another test's matter.
UNLIMITED: dict[str, str] = {
    name: "1000000" for name in ("EVENTSINK_KEY_RATE", "EVENTSINK_KEY_BURST") if name in NAMES
}


async def new_key(instance: Instance) -> str:
    made = await instance.run("keys", "create", "--name", "test", "--scopes", "events,read")
    assert made.code == 0, made.err
    return made.out.split()[-1]


class Load:
    """Requests from 32 connections without end, each event once: no request is repeated. Single events and NDJSON of
    five in turn."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._numbers = itertools.count()
        self._sending: list[asyncio.Task[None]] = []
        self._enough = False
        #: Events that were answered 202, by where they were then.
        self.accepted: dict[str, str] = {}
        #: Other answers, by status; 0 is none at all.
        self.others: Counter[int] = Counter()

    def start(self) -> None:
        self._sending = [asyncio.create_task(self._send()) for _ in range(CONNECTIONS)]

    async def stop(self) -> None:
        self._enough = True
        await asyncio.gather(*self._sending)

    async def accepts(self, more: int, *, where: str | None = None) -> None:
        """Wait until so many more were accepted, and are ``where``."""

        def count() -> int:
            return sum(where in {None, each} for each in self.accepted.values())

        wanted = count() + more
        async with asyncio.timeout(PATIENCE_S):
            while count() < wanted:
                await asyncio.sleep(0.01)

    async def _send(self) -> None:
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers) as session:
            for size in itertools.cycle((1, 5)):
                if self._enough:
                    return
                await self._post(session, [str(next(self._numbers)) for _ in range(size)])
                await asyncio.sleep(BETWEEN_REQUESTS_S)

    async def _post(self, session: aiohttp.ClientSession, ids: list[str]) -> None:
        body = b"\n".join(_upload(number) for number in ids)
        kind = {"Content-Type": "application/x-ndjson"}
        try:
            async with session.post(f"{self._url}/v1/events", data=body, headers=kind) as answer:
                if answer.status == 202:
                    durable = (await answer.json())["durable"]
                    self.accepted.update(dict.fromkeys(ids, durable))
                else:
                    self.others[answer.status] += 1
        except aiohttp.ClientError:
            self.others[0] += 1  # nobody was there, or died over it: these may have arrived, or not


def _upload(number: str) -> bytes:
    event = {
        "type": "storage.file_uploaded",
        "file_id": number,
        "space_id": f"s{int(number) % 7}",
        "bytes": 1,
    }
    return json.dumps(event).encode()


@pytest.mark.servers
async def test_every_202_arrives_once_though_broker_and_web_process_are_killed_under_load(
    broker: Broker, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    instance = Instance(tmp_path, {"EVENTSINK_BROKER_URL": broker.url, **UNLIMITED})
    key = await new_key(instance)
    worker = await instance.start("worker", free_port())
    port = free_port()
    web = await instance.start("web", port)
    load = Load(web.url, key)
    load.start()
    await load.accepts(SOME, where="broker")

    async def web_is_killed() -> None:
        nonlocal web
        await web.kill()
        web = await instance.start("web", port)

    await asyncio.to_thread(broker.node.kill)
    await load.accepts(SOME, where="spool")
    await web_is_killed()
    await load.accepts(SOME, where="spool")
    await web.kill()
    # The next one dies when it has published the first batch, and has not removed it yet.
    dying = asyncio.ensure_future(Dying(instance).dies("web.spool:Spool.remove:before:1", "web", port))
    await load.accepts(SOME, where="spool")
    await asyncio.to_thread(broker.node.start)
    await dying
    web = await instance.start("web", port)
    await load.accepts(SOME, where="broker")
    await web_is_killed()
    await load.accepts(SOME, where="broker")
    await load.stop()
    assert set(load.others) <= {0}  # whoever was answered was answered 202
    await until_shown(web, "eventsink_spool_events 0.0")

    archived = await archived_ids(instance, load.accepted.keys())
    assert not load.accepted.keys() - archived.keys()
    assert set(archived.values()) == {1}
    await counted_once(instance, archived)
    doubled = re.findall(
        r'^eventsink_events_total\{.*outcome="duplicate".*\} (\S+)$', await worker.metrics(), re.MULTILINE
    )
    assert sum(map(float, doubled)) > 0
    assert await web.stop() == 0
    assert await worker.stop() == 0
    assert "Traceback" not in web.output + worker.output


async def archived_ids(instance: Instance, wanted: Collection[str]) -> Counter[str]:
    """How often each event is in the archive, once those that are wanted are there."""
    found: Counter[str] = Counter()
    deadline = time.monotonic() + PATIENCE_S
    while set(wanted) - found.keys() and time.monotonic() < deadline:
        found = Counter(event["file_id"] for event in await instance.events())
    return found


async def counted_once(instance: Instance, archived: Counter[str]) -> None:
    """The rollup comes to exactly what the archive holds, and stays there."""
    want = Counter(f"s{int(number) % 7}" for number in archived)
    counted: Counter[str] = Counter()
    deadline = time.monotonic() + PATIENCE_S
    while counted != want and time.monotonic() < deadline:
        counted = Counter()
        for (_, space), row in (await instance.printed_rows("space_storage", "1d")).items():
            counted[space] += row["files_added"]
            assert row["files_added"] == row["bytes_added"]
    assert counted == want


async def until_shown(service: Service, line: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while line not in (await service.metrics()).splitlines():
            await asyncio.sleep(0.02)


async def test_the_web_application_alone_takes_events_while_every_server_is_away(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    nobody = [free_port() for _ in range(3)]
    instance = Instance(
        tmp_path,
        {
            "EVENTSINK_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{nobody[0]}/",
            "EVENTSINK_MONGO_URL": f"mongodb://127.0.0.1:{nobody[1]}/",
            "EVENTSINK_INFLUX_URL": f"http://127.0.0.1:{nobody[2]}",
            "EVENTSINK_INFLUX_TOKEN": "secret",
        },
    )
    key = await new_key(instance)
    web = await instance.start("web", free_port())
    async with aiohttp.ClientSession(web.url, headers={"Authorization": f"Bearer {key}"}) as session:
        async with session.get("/readyz") as answer:
            assert answer.status == 200
            document = await answer.json()
            assert document["dependencies"] == {"spool": "ok"}
            assert "is the broker running?" in document["spooling"]
        async with session.get("/healthz") as answer:
            assert answer.status == 200

        async def asks(path: str) -> int:
            async with session.get(path) as answer:
                assert answer.headers.get("Retry-After")
                return answer.status

        asking = [asks("/v1/events"), asks("/v1/rollups/space_storage?window=1h")]
        queries = asyncio.gather(*asking)
        for n in range(20):
            async with session.post("/v1/events", json=json.loads(_upload(str(n)))) as answer:
                assert answer.status == 202
                assert (await answer.json())["durable"] == "spool"
        assert await queries == [503, 503]
        await until_shown(web, "eventsink_spool_events 20.0")
    assert await web.stop() == 0, web.output
    assert "Traceback" not in web.output


@pytest.mark.servers
async def test_a_web_process_that_is_terminated_drains_and_a_second_one_beside_it_takes_events_too(
    broker: Broker, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    instance = Instance(tmp_path, {"EVENTSINK_BROKER_URL": broker.url, **UNLIMITED})
    key = await new_key(instance)
    await asyncio.to_thread(broker.node.stop)
    loads = []
    services = []
    for _ in range(2):
        service = await instance.start("web", free_port())
        services.append(service)
        loads.append(Load(service.url, key))
        loads[-1].start()
    for load in loads:
        await load.accepts(SOME, where="spool")
        await load.stop()
    await asyncio.to_thread(broker.node.start)
    for service in services:
        await until_shown(service, "eventsink_spool_events 0.0")
        assert await service.stop() == 0, service.output
    worker = await instance.start("worker", free_port())
    want = Counter(number for load in loads for number in load.accepted)  # both counted from 0
    archived = await archived_ids(instance, want)
    assert archived == want
    assert await worker.stop() == 0


async def ready(session: aiohttp.ClientSession) -> dict[str, Any]:
    async with session.get("/readyz") as answer:
        assert answer.status == 200
        document: dict[str, Any] = await answer.json()
    return document


@pytest.mark.servers
@pytest.mark.parametrize("fault", ["blocked", "paused"])
async def test_a_broker_that_takes_nothing_is_told_by_readiness_and_delays_no_end(
    broker: Broker, tmp_path: Path, free_port: Callable[[], int], fault: str
) -> None:
    instance = Instance(tmp_path, {"EVENTSINK_BROKER_URL": broker.url, **UNLIMITED})
    key = await new_key(instance)
    web = await instance.start("web", free_port())
    load = Load(web.url, key)
    load.start()
    await load.accepts(SOME, where="broker")
    await does(broker, fault)
    try:
        await load.accepts(SOME, where="spool")
        # A confirm may stay away before the alarm is told of.
        words = "low on disk" if fault == "blocked" else "did not confirm"
        async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession(web.url) as session:
            while words not in (document := await ready(session))["spooling"]:
                await asyncio.sleep(0.05)
        assert document["dependencies"] == {"spool": "ok"}
        await load.stop()
        # `stop` itself fails when the process takes longer than its limit.
        assert await web.stop() == 0, web.output
    finally:
        await does(broker, {"blocked": "unblocked", "paused": "continued"}[fault])
    web = await instance.start("web", free_port())
    await until_shown(web, "eventsink_spool_events 0.0")
    assert await web.stop() == 0
