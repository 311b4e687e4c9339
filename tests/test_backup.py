"""A backup made while everything runs, and what comes back from it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from cli import backup
from cli.settings import load
from tests.deployments import embedded
from tests.processes import (
    Instance,
    comes_to_the_expected_numbers,
    holds_each_event_once,
    sample_lines,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

#: Lines that are held back until the backup is made, so that it lies in the middle.
LAST = 500


def lines_in(file: Path) -> list[bytes]:
    """The log in a file that nobody works on."""
    with closing(sqlite3.connect(file)) as connection:
        bodies = connection.execute("SELECT body FROM log ORDER BY offset").fetchall()
    return [line for (body,) in bodies for line in bytes(body).split(b"\n")]


def last_offset(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        (offset,) = connection.execute("SELECT max(offset) FROM log").fetchone()
    return int(offset)


async def send_all(instance: Instance, lines: list[bytes], *, while_not: asyncio.Event) -> None:
    """Send without a pause until the event, all but the last lines; then those too."""
    process = await instance._spawn("send", "-")
    assert process.stdin is not None
    for start in range(0, len(lines), 20):
        if start > len(lines) - LAST:
            await while_not.wait()
        process.stdin.write(b"".join(line + b"\n" for line in lines[start : start + 20]))
        await process.stdin.drain()
        await asyncio.sleep(0.01)
    process.stdin.close()
    _, said = await process.communicate()
    assert process.returncode == 0, said


async def test_numbers_and_positions_go_on_exactly_where_the_backup_was_made(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    # log        0 ─────── k ──────────── n     k: the backup is made, in the middle of sending
    # restored   0 ─────── k, then k … n are sent to it
    before = embedded(tmp_path / "before")
    before.folder.mkdir()
    service = await before.start("up", free_port())
    (key,) = [line.split()[-1] for line in service.output.splitlines() if "shown this once" in line]
    lines = sample_lines()
    made = asyncio.Event()
    sending = asyncio.ensure_future(send_all(before, lines, while_not=made))
    while not await before.rows("user_activity", "1m"):
        await asyncio.sleep(0.02)
    ended = await before.run("backup", str(tmp_path / "backup"))
    assert ended.code == 0, ended.err
    made.set()
    await sending
    await service.kill()  # whatever happened to the old one

    after = embedded(tmp_path / "after")
    after.folder.mkdir()
    shutil.copytree(tmp_path / "backup", after.folder / "data")
    held = lines_in(after.folder / "data/eventsink.db")
    assert held == lines[: len(held)]
    assert 0 < len(held) < len(lines)
    end = last_offset(after.folder / "data/eventsink.db")

    service = await after.start("up", free_port())
    assert "shown this once" not in service.output  # keys came along
    sent = await after.run("send", input=b"".join(line + b"\n" for line in lines[len(held) :]))
    assert sent.code == 0, sent.err
    await holds_each_event_once(after, lines)
    await comes_to_the_expected_numbers(after)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        body = {"type": "activity.logged_in", "user_id": "u1"}
        async with session.post(f"{service.url}/v1/events", json=body) as answer:
            assert answer.status == 202
    assert await service.stop() == 0
    assert last_offset(after.folder / "data/eventsink.db") > end
    assert lines_in(after.folder / "data/eventsink.db")[: len(lines)] == lines


def partial_folders(folder: Path) -> list[Path]:
    return list(folder.glob("*.partial"))


async def ran(instance: Instance, *arguments: str) -> tuple[int, str]:
    ended = await instance.run(*arguments)
    return ended.code, ended.err


async def with_an_event(folder: Path) -> Instance:
    instance = embedded(folder)
    ended = await instance.run("send", input=b'{"type":"activity.logged_in"}\n')
    assert ended.code == 0, ended.err
    return instance


async def test_it_holds_what_the_folder_held_for_its_owner_alone(tmp_path: Path) -> None:
    instance = await with_an_event(tmp_path)
    await instance.run("keys", "create", "--name", "n", "--scopes", "read")
    ended = await instance.run("backup", "b")
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["eventsink.db", "keys.json"]
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "b").iterdir()} == {0o600}
    assert json.loads((tmp_path / "b/keys.json").read_text()) == json.loads(
        (tmp_path / "data/keys.json").read_text()
    )
    assert lines_in(tmp_path / "b/eventsink.db") == [b'{"type":"activity.logged_in"}']


async def test_what_is_wrong_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    empty = embedded(tmp_path)
    assert await ran(empty, "backup", "b") == (
        1,
        f"eventsink: nothing is in {tmp_path}/data: name the data folder with --data\n",
    )
    instance = await with_an_event(tmp_path)
    (tmp_path / "there").mkdir()
    assert await ran(instance, "backup", "there") == (
        1,
        "eventsink: there is there already: name a folder that is not\n",
    )
    (tmp_path / "file").touch()
    code, said = await ran(instance, "backup", "file/b")
    assert (code, said.count("\n")) == (1, 1)
    assert "choose another place" in said
    assert partial_folders(tmp_path) == []


async def test_a_damaged_file_is_told_of_and_is_no_backup(tmp_path: Path) -> None:
    instance = await with_an_event(tmp_path)
    file = tmp_path / "data/eventsink.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(file.read_bytes())
    content[size:] = b"\xff" * (len(content) - size)
    file.write_bytes(content)
    code, said = await ran(instance, "backup", "b")
    assert code == 1
    assert "cannot be copied" in said
    assert not (tmp_path / "b").exists()


async def test_what_servers_hold_is_named(tmp_path: Path) -> None:
    instance = await with_an_event(tmp_path)
    instance.environment["EVENTSINK_INFLUX_URL"] = "http://127.0.0.1:1"
    instance.environment["EVENTSINK_MONGO_URL"] = "mongodb://127.0.0.1:1"
    ended = await instance.run("backup", "b")
    assert ended.code == 0
    named, order = ended.err.splitlines()
    assert named == "not in it: what is in InfluxDB, MongoDB; back that up with each server's own tools"
    assert order.startswith("positions are in MongoDB: a dump of it has to be older than this backup")


async def logs_in(instance: Instance, times: int, *, in_all: int) -> None:
    """Send events and wait until every one of the log is in rollups and archive."""
    ended = await instance.run("send", input=times * b'{"type":"activity.logged_in","user_id":"u1"}\n')
    assert ended.code == 0, ended.err
    await counts(instance, in_all)


async def counts(instance: Instance, in_all: int) -> None:
    async with asyncio.timeout(60):
        while await logins(instance) < in_all or len(await instance.events()) < in_all:
            await asyncio.sleep(0.02)


async def logins(instance: Instance) -> int:
    return sum(row["events"] for row in (await instance.rows("user_activity", "1d")).values())


async def test_positions_in_a_file_of_their_own_are_never_ahead_of_the_log(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # log   0 1 2 ─┼─ 3 4     ┼: between the copies of positions and log, the worker reads on
    before = embedded(tmp_path / "before")
    before.folder.mkdir()
    state, log = tmp_path / "positions.db", before.folder / "data/eventsink.db"
    before.environment["EVENTSINK_STATE_URL"] = f"sqlite://{state}"
    service = await before.start("up", free_port())
    await logs_in(before, 3, in_all=3)
    loop, copy = asyncio.get_running_loop(), backup._copy_database
    copied: list[Path] = []

    def copy_while_it_reads_on(source: Path, target: Path) -> None:
        copy(source, target)
        copied.append(source)
        if len({state, log}.intersection(copied)) == 1 and source in {state, log}:
            asyncio.run_coroutine_threadsafe(logs_in(before, 2, in_all=5), loop).result()

    monkeypatch.setattr(backup, "_copy_database", copy_while_it_reads_on)
    settings = load({**before.environment, "EVENTSINK_DATA": str(log.parent)})
    await asyncio.to_thread(backup.copied, settings, tmp_path / "backup")
    assert {state, log} <= set(copied)
    await service.kill()

    after = embedded(tmp_path / "after")
    after.folder.mkdir()
    shutil.copytree(tmp_path / "backup", after.folder / "data")
    after.environment["EVENTSINK_STATE_URL"] = f"sqlite://{after.folder}/data/positions.db"
    service = await after.start("up", free_port())
    held = len(lines_in(after.folder / "data/eventsink.db"))
    await logs_in(after, 1, in_all=held + 1)
    assert await logins(after) == held + 1
    await holds_each_event_once(after, (held + 1) * [b""])
    assert await service.stop() == 0
    assert "the log is a new one" not in service.output


async def test_two_files_of_one_name_are_told_of(tmp_path: Path) -> None:
    instance = await with_an_event(tmp_path)
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "data/eventsink.db", tmp_path / "other/eventsink.db")
    instance.environment["EVENTSINK_STATE_URL"] = f"sqlite://{tmp_path}/other/eventsink.db"
    code, said = await ran(instance, "backup", "b")
    assert (code, said.count("\n")) == (1, 1)
    assert "have the name of another file" in said
    assert not (tmp_path / "b").exists()


async def test_where_positions_of_another_folder_go_is_told(tmp_path: Path) -> None:
    instance = await with_an_event(tmp_path)
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "data/eventsink.db", tmp_path / "other/positions.db")
    instance.environment["EVENTSINK_STATE_URL"] = f"sqlite://{tmp_path}/other/positions.db"
    ended = await instance.run("backup", "b")
    assert ended.code == 0, ended.err
    assert f"positions.db of it goes to {tmp_path}/other/positions.db\n" in ended.out
