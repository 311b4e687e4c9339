"""`eventsink monitor maintenance`: what is said arrives, at once or when the endpoint is back."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.monitors.targets import port_without_listener
from tests.processes import Instance

pytestmark = pytest.mark.processes

KEY = "es_swordfish-swordfish-swordfish"


def configured(folder: Path, port: int, key: str = KEY) -> Instance:
    """A monitor's configuration beside an instance."""
    (folder / "monitors.toml").write_text(
        f'endpoint = "http://127.0.0.1:{port}"\nkey_env = "MONITOR_KEY"\nregion = "eu"\n'
        '[[probe]]\nkind = "port"\nservice = "clowder"\nhost = "127.0.0.1"\nport = 9\n'
    )
    return Instance(folder, {"MONITOR_KEY": key})


def said(word: str, *more: str) -> list[str]:
    return ["monitor", "maintenance", word, "--config", "monitors.toml", "--service", "clowder", *more]


async def test_start_and_end_are_events_with_their_times(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    maker = Instance(tmp_path)
    made = await maker.run("keys", "create", "--name", "monitor", "--scopes", "health")
    instance = configured(tmp_path, port, made.out.strip())
    service = await instance.start("up", port)
    started = await instance.run(*said("start", "--reason", "new disks", "--at", "2026-01-31T22:00:00Z"))
    ended = await instance.run(*said("end", "--at", "2026-01-31T23:30:00Z"))
    assert (started.code, ended.code) == (0, 0), started.err + ended.err
    # An item of more than 64 KiB is refused for good.
    refused = await instance.run(*said("start", "--reason", "x" * 70_000))
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"eventsink: http://127.0.0.1:{port} will never take it, it is dropped: ")
    assert len(refused.err.splitlines()) == 1
    async with asyncio.timeout(60):
        while len(events := await instance.events()) < 2:
            await asyncio.sleep(0.05)
    last, first = events
    assert (first["type"], first["time"]) == ("health.maintenance_started", "2026-01-31T22:00:00.000Z")
    assert (first["service"], first["reason"], first["source"]) == ("clowder", "new disks", "monitor-eu")
    assert (last["type"], last["time"]) == ("health.maintenance_ended", "2026-01-31T23:30:00.000Z")
    assert first["id"] != last["id"]
    await service.stop()


async def test_while_the_endpoint_is_away_it_is_kept_and_that_is_said(tmp_path: Path) -> None:
    instance = configured(tmp_path, port_without_listener())
    ended = await instance.run(*said("start", "--at", "2026-01-31T22:00:00Z"))
    assert ended.code == 1
    assert KEY not in ended.out + ended.err
    (said_once,) = ended.err.splitlines()
    assert "not posted yet" in said_once
    assert "Connection refused; the event waits" in said_once
    assert "do not repeat" in said_once
    ((body,),) = _kept(tmp_path)
    event = json.loads(body)
    assert (event["type"], event["time"]) == ("health.maintenance_started", 1769896800000)
    assert event["id"]


def _kept(folder: Path) -> list[tuple[bytes]]:
    outbox = sqlite3.connect(folder / "monitor-data" / "outbox.db")
    try:
        return outbox.execute("SELECT body FROM outbox").fetchall()
    finally:
        outbox.close()


async def test_planned_maintenance_of_a_service_without_a_probe_is_told_of_in_one_line(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    instance = configured(tmp_path, port_without_listener())
    with (tmp_path / "monitors.toml").open("a") as file:
        file.write(
            '[[maintenance]]\nservice = "clowdr"\nsince = 2999-01-01T00:00:00Z\nuntil = 2999-01-01T01:00:00Z\n'
        )
    port = free_port()
    running = await instance.start("monitor", port, "--config", "monitors.toml")
    await running.stop()
    (line,) = [line for line in running.output.splitlines() if "maintenance" in line]
    assert "maintenance of 'clowdr': watched by no probe here, did you mean 'clowder'?" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["monitor", "maintenance", "start", "--config", "monitors.toml"], "--service"),
        (["monitor", "maintenance", "start", "--service", "clowder"], "--config"),
        (said("end", "--at", "2999-01-01T00:00:00Z"), "lies ahead"),
        (said("end", "--service", " "), "is empty"),
        (
            said("start", "--service", "cloder"),
            "'cloder' is in no probe of monitors.toml, did you mean clowder? It has clowder",
        ),
        (said("start", "--service", "wiki"), "'wiki' is in no probe of monitors.toml, which has clowder"),
    ],
)
async def test_wrong_use_ends_with_2_and_keeps_nothing(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    ended = await configured(tmp_path, port_without_listener()).run(*arguments)
    assert ended.code == 2
    assert says in ended.err
    assert not (tmp_path / "monitor-data").exists()
