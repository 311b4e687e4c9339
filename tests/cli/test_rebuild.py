"""The command `rebuild`: what it refuses, what it says, and that it works with a worker and without one."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import eventsink
from tests.deployments import BOTH, Deployment
from tests.processes import Instance

pytestmark = pytest.mark.timeout(600)

#: 2026-01-31
DAY = ("--since", "2026-01-31T00:00:00Z", "--until", "2026-02-01T00:00:00Z")
FILES = b"".join(
    json.dumps(
        {
            "type": "storage.file_uploaded",
            "time": f"2026-01-31T{hour:02}:30:00Z",
            "file_id": "f",
            "space_id": "s",
            "bytes": 1 << hour,
        }
    ).encode()
    + b"\n"
    for hour in range(10)
)


def run(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(eventsink, ["rebuild", *args, "--data", str(folder)])


# -- wrong use --


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["space_strage", *DAY], "space_storage?"),
        (["nonsense", *DAY], "user_activity"),
        (["space_storage"], "--since"),
        (["space_storage", *DAY[:2]], "--until"),
        (["space_storage", "--since", "now", "--until", "now-1h"], "the range is empty"),
        (["space_storage", "--since", DAY[1], "--until", DAY[1]], "the range is empty"),
        (
            ["space_storage", "--since", "1950-01-01T00:00:00Z", "--until", "1960-01-01T00:00:00Z"],
            "not a time",
        ),
        (["space_storage", "--since", "yesterday", "--until", "now"], "now-1h"),
        (["space_storage", "--since", "now-99999999w", "--until", "now"], "1970"),
        (["space_storage", "--since", "now", "--until", "10000-01-01T00:00:00Z"], "not a time"),
    ],
)
def test_wrong_use_is_2_and_one_line(tmp_path: Path, args: list[str], hint: str) -> None:
    result = run(tmp_path / "none", *args)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_before_the_first_start_it_is_said_what_to_do(tmp_path: Path) -> None:
    result = run(tmp_path / "none", "space_storage", *DAY)
    assert result.exit_code == 1
    assert "eventsink up" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_the_help_shows_examples() -> None:
    result = CliRunner().invoke(eventsink, ["rebuild", "--help"])
    assert result.exit_code == 0
    assert "eventsink rebuild service_uptime --since now-7d --until now --check" in result.stdout


# -- with a worker and without one --


async def day(instance: Instance) -> dict[str, Any]:
    (fields,) = (await instance.rows("space_storage", "1d")).values()
    return fields


async def lived(instance: Instance) -> None:
    """Until the day is counted, and the archive has it."""
    assert (await instance.run("send", "-", input=FILES)).code == 0
    async with asyncio.timeout(60):
        while (
            not (rows := await instance.rows("space_storage", "1d"))
            or next(iter(rows.values()))["files_added"] < 10
        ):
            await asyncio.sleep(0.1)
        while len(await instance.events()) < 10:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("deployment", BOTH)
async def test_it_is_done_beside_a_worker_and_without_one(
    tmp_path: Path, free_port: Callable[[], int], deployment: Deployment, request: pytest.FixtureRequest
) -> None:
    instance = deployment(tmp_path, request)
    service = await instance.start("up", free_port())
    await lived(instance)
    before = await day(instance)
    assert before["bytes_added"] == 1023
    # Without a worker once: the command gives one on another machine its time to answer.
    for running, several in ((True, ([], ["--check"], ["--force"])), (False, ([],))):
        if not running:
            assert await service.stop() == 0
        for options in several:
            ended = await instance.run("rebuild", "space_storage", *DAY, *options)
            assert (ended.code, ended.out) == (0, ""), ended.err
            said = "would change" if options == ["--check"] else "changed"
            assert f"space_storage: 10 events read, 21 rows computed, 0 {said}" in ended.err
        assert await day(instance) == before
    service = await instance.start("up", free_port())
    assert (await instance.run("rebuild", "space_storage", *DAY)).code == 0
    assert await service.stop() == 0


async def test_what_was_lost_comes_back_and_is_told(tmp_path: Path, free_port: Callable[[], int]) -> None:
    instance = Instance(tmp_path)
    service = await instance.start("up", free_port())
    await lived(instance)
    assert await service.stop() == 0
    before = await day(instance)
    statements = ("DELETE FROM rollups", "DELETE FROM rows WHERE kind = 'space_storage/1d'")
    changed(tmp_path, *statements)
    ended = await instance.run("rebuild", "space_storage", *DAY, "--check")
    assert ended.code == 0
    assert ended.out == (
        "1d 2026-01-31T00:00:00Z space_id=s: bytes_added nothing → 1023, bytes_removed nothing → 0, "
        "files_added nothing → 10, files_removed nothing → 0\n"
    )
    assert "1 would change" in ended.err
    assert await instance.rows("space_storage", "1d") == {}
    ended = await instance.run("rebuild", "space_storage", *DAY)
    assert ended.code == 0
    assert "1 changed" in ended.err
    assert await day(instance) == before
    assert len(await instance.rows("space_storage", "1m")) == 10

    changed(tmp_path, "DELETE FROM events WHERE time < 1769823000000")  # 01:30
    ended = await instance.run("rebuild", "space_storage", *DAY)
    assert ended.code == 1
    lines = ended.err.splitlines()
    alone = [line for line in lines if line.startswith("left alone: ")]
    assert "left alone: 1m 2026-01-31T00:30:00Z space_id=s: 1 events in it, the archive holds 0" in alone
    assert "left alone: 1d 2026-01-31T00:00:00Z space_id=s: 10 events in it, the archive holds 9" in alone
    assert len(alone) == 3
    assert "--force" in lines[-1]
    assert await day(instance) == before
    assert (await instance.run("rebuild", "space_storage", *DAY, "--force")).code == 0
    assert (await day(instance))["bytes_added"] == 1022


def changed(folder: Path, *statements: str) -> None:
    connection = sqlite3.connect(folder / "data" / "eventsink.db")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def requests(folder: Path) -> int:
    connection = sqlite3.connect(folder / "data" / "eventsink.db")
    (count,) = connection.execute("SELECT count(*) FROM requests").fetchone()
    connection.close()
    return int(count)


async def test_an_interrupted_command_takes_its_request_back(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    instance = Instance(tmp_path)
    # A worker without the group of the rollups holds the folder, so the command waits for one that has it.
    service = await instance.start("worker", free_port(), "--groups", "archive")
    process = await instance._spawn("rebuild", "space_storage", *DAY)
    async with asyncio.timeout(60):
        while not requests(tmp_path):
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert b"Traceback" not in err
    assert requests(tmp_path) == 0
    assert await service.stop() == 0


async def test_commands_at_once_end_no_worker(tmp_path: Path, free_port: Callable[[], int]) -> None:
    instance = Instance(tmp_path)
    service = await instance.start("up", free_port())
    await lived(instance)
    names = ["space_storage", "user_activity", "service_uptime", "extractor_runtime", "space_storage"]
    ended = await asyncio.gather(*(instance.run("rebuild", name, *DAY) for name in names))
    assert [each.code for each in ended] == [0] * len(names)
    assert requests(tmp_path) == 0
    assert await service.stop() == 0
