"""Whatever is killed, and whenever: nothing is lost and nothing is counted twice."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.deployments import BOTH, Deployment
from tests.processes import (
    SAMPLE,
    START_LIMIT_S,
    STARTED,
    Instance,
    comes_to_the_expected_numbers,
    holds_each_event_once,
    sample_lines,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(800)]

#: At random moments, of each run.
KILLS = 3

#: Ten deaths on either kind of store: the call that is meant, the moment, and which such call it is.
EMBEDDED_STEPS = [
    f"topology.{step}"
    for step in (
        "sqlite.state:SqliteState.begin:after:1",
        "sqlite.state:SqliteState.load_rows:before:9",
        "sqlite.state:SqliteState.save_rows:before:1",
        "sqlite.state:SqliteState.save_rows:after:1",
        "sqlite.rollups:SqliteRollups.write:before:1",
        "sqlite.rollups:SqliteRollups.write:after:1",
        "sqlite.state:SqliteState.settle_rows:before:1",
        "sqlite.state:SqliteState.save_group:before:2",
        "sqlite.state:SqliteState.save_group:after:3",
        "sqlite.events:SqliteRawEvents.insert:before:1",
    )
]
SERVER_STEPS = [
    f"topology.{step}"
    for step in (
        "mongo.state:MongoState.begin:before:2",
        "mongo.state:MongoState.save_rows:before:1",
        "mongo.state:MongoState.save_rows:after:1",
        "influxdb.sink:InfluxRollups.write:before:1",
        "influxdb.sink:InfluxRollups.write:after:1",
        "mongo.state:MongoState.settle_rows:before:1",
        "mongo.state:MongoState.settle_rows:after:1",
        "mongo.state:MongoState.save_group:before:2",
        "mongo.state:MongoState.save_group:after:2",
        "mongo.events:MongoRawEvents.insert:after:1",
    )
]


class Dying(Instance):
    """One whose worker dies at a step, see ``tests/dying.py``; ``run`` and the other commands do not."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance.folder)
        self.environment = instance.environment | {"PYTHONPATH": str(Path(__file__).parents[1])}

    async def dies(self, step: str, command: str, port: int) -> None:
        """Start, and come to the step."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.dying", step, command, "--port", str(port)),
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        STARTED.append(process)
        ending = asyncio.ensure_future(process.communicate())
        done, _ = await asyncio.wait([ending], timeout=START_LIMIT_S)
        if not done:
            process.terminate()
        said, _ = await ending
        assert process.returncode == -signal.SIGKILL, f"{step}: {said.decode(errors='replace')}"


def command_of(instance_is_embedded: bool) -> str:
    return "up" if instance_is_embedded else "worker"


@pytest.mark.parametrize("deployment", BOTH)
async def test_a_worker_killed_at_ten_steps_and_at_random_moments_comes_to_the_same_numbers(
    deployment: Deployment,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    free_port: Callable[[], int],
) -> None:
    instance = deployment(tmp_path, request)
    embedded = "EVENTSINK_BROKER_URL" not in instance.environment
    moments = random.Random(20261124)
    port = free_port()
    # A log before there is a worker: what is sent first is already there at its first start. As each worker dies, it
    # leaves the next one something to do.
    lines = sample_lines()
    deaths = [*(EMBEDDED_STEPS if embedded else SERVER_STEPS), *[""] * KILLS]
    moments.shuffle(deaths)
    dying = Dying(instance)
    share = -(-len(lines) // len(deaths))
    for number, step in enumerate(deaths):
        some = lines[number * share : (number + 1) * share]
        sending = asyncio.ensure_future(instance.run("send", "-", input=b"\n".join(some)))
        if step:
            await dying.dies(step, command_of(embedded), port)
        else:
            service = await instance.begin(command_of(embedded), port)
            await asyncio.wait([sending], timeout=moments.uniform(0.3, 3.0))
            await service.kill()
        sent = await sending
        assert sent.code == 0, sent.err
    service = await instance.start(command_of(embedded), port)
    await comes_to_the_expected_numbers(instance)
    await holds_each_event_once(instance, lines)
    assert await service.stop() == 0


@pytest.mark.servers
async def test_a_stream_queue_deleted_and_made_again_after_half_swallows_nothing_of_the_second_half(
    tmp_path: Path, request: pytest.FixtureRequest, free_port: Callable[[], int]
) -> None:
    from tests.deployments import on_servers

    instance = on_servers(tmp_path, request)
    broker = request.getfixturevalue("broker")
    lines = sample_lines()
    half = len(lines) // 2
    service = await instance.start("worker", free_port())
    assert (await instance.run("send", "-", input=b"\n".join(lines[:half]))).code == 0
    await holds_each_event_once(instance, lines[:half])
    await asyncio.to_thread(broker.node.ctl, "delete_queue", broker.queue, "--vhost", broker.vhost)
    assert (await instance.run("send", "-", input=b"\n".join(lines[half:]))).code == 0
    await comes_to_the_expected_numbers(instance)
    await holds_each_event_once(instance, lines)
    assert "the log is a new one" in service.output
    assert await service.stop() == 0


@pytest.mark.parametrize("deployment", BOTH)
async def test_events_without_a_time_keep_their_arrival_through_a_crash(
    deployment: Deployment,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    free_port: Callable[[], int],
) -> None:
    instance = deployment(tmp_path, request)
    embedded = "EVENTSINK_BROKER_URL" not in instance.environment
    lines = [
        json.dumps({"type": "storage.file_uploaded", "file_id": str(n), "bytes": 2**n}).encode()
        for n in range(40)
    ]
    port = free_port()
    for at in range(0, 40, 10):
        service = await instance.start(command_of(embedded), port)
        sent = await instance.run("send", "-", input=b"\n".join(lines[at : at + 10]))
        assert sent.code == 0, sent.err
        await service.kill()
    service = await instance.start(command_of(embedded), port)
    await holds_each_event_once(instance, lines)
    archived: Counter[str] = Counter()
    for event in await instance.events():
        minute = int(datetime.fromisoformat(event["time"]).timestamp()) // 60 * 60
        archived[str(minute)] += event["bytes"]
    assert archived.total() == 2**40 - 1
    added: Counter[str] = Counter()
    async with asyncio.timeout(60):
        while added != archived:
            rows = await instance.rows("space_storage", "1m")
            added = Counter({key[0]: row["bytes_added"] for key, row in rows.items()})
    assert await service.stop() == 0


@pytest.mark.servers
async def test_of_two_workers_started_by_mistake_the_first_stops_with_an_error_and_the_numbers_are_exact(
    tmp_path: Path, request: pytest.FixtureRequest, free_port: Callable[[], int]
) -> None:
    from tests.deployments import on_servers

    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    first_instance, instance = (on_servers(folder, request) for folder in folders)
    first = await first_instance.start("worker", free_port())
    sending = asyncio.ensure_future(instance.run("send", str(SAMPLE), "--rate", "600"))
    second = await instance.start("worker", free_port())
    assert await first.ended() == 1
    assert "another worker took over group" in first.output
    assert "Traceback" not in first.output
    sent = await sending
    assert sent.code == 0, sent.err
    # What the first one had under way when it ended is told again in the second minute, or in the one after that.
    await comes_to_the_expected_numbers(instance, limit_s=300)
    await holds_each_event_once(instance, sample_lines())
    assert await second.stop() == 0
