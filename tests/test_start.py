"""What is wrong at the start is one line that says what and what to do, and exit code 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.deployments import embedded, on_servers
from tests.processes import Instance

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


async def refused(instance: Instance, *command: str) -> str:
    """The one line with which the command ends."""
    ended = await instance.run(*command)
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("eventsink: ")]
    return line


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("EVENTSINK_KEEP", "yesterday", "EVENTSINK_KEEP"),
        ("EVENTSINK_BROKER_URL", "http://x/", "EVENTSINK_BROKER_URL"),
        ("EVENTSINK_BROKRE_URL", "amqp://x/", "EVENTSINK_BROKER_URL"),
        ("EVENTSINK_CHECKPOINT_EVERY", "-1s", "EVENTSINK_CHECKPOINT_EVERY"),
    ],
)
async def test_a_wrong_setting_is_named(tmp_path: Path, name: str, value: str, says: str) -> None:
    instance = embedded(tmp_path)
    instance.environment[name] = value
    assert says in await refused(instance, "up", "--port", "0")


async def test_a_second_up_on_a_data_folder_is_refused_and_the_first_goes_on(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    instance = embedded(tmp_path)
    service = await instance.start("up", free_port())
    line = await refused(instance, "up", "--port", "0")
    assert f"in use by process {service.process.pid}" in line
    assert "in use" in await refused(instance, "worker", "--port", "0")
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/healthz") as answer:
        assert answer.status == 200
    assert await service.stop() == 0


async def test_a_taken_port_is_named(tmp_path: Path, free_port: Callable[[], int]) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    port = free_port()
    service = await embedded(folders[0]).start("up", port)
    line = await refused(embedded(folders[1]), "up", "--port", str(port))
    assert f"127.0.0.1:{port}" in line
    assert "`make run PORT=9090`" in line
    # Nothing was begun, so nothing is left.
    assert not (folders[1] / "data").exists()
    assert await service.stop() == 0


async def test_a_file_that_is_no_database_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    foreign = tmp_path / "data" / "eventsink.db"
    foreign.write_bytes(b"somebody's notes\n" * 1000)
    assert "not an eventsink database" in await refused(embedded(tmp_path), "up", "--port", "0")
    assert foreign.read_bytes() == b"somebody's notes\n" * 1000


async def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    assert "data is a file" in await refused(embedded(tmp_path), "up", "--port", "0")


@pytest.mark.servers
async def test_wrong_credentials_end_at_once_and_are_not_shown(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    instance = on_servers(tmp_path, request)
    good = dict(instance.environment)
    broker = request.getfixturevalue("broker")
    wrong = {
        "EVENTSINK_BROKER_URL": broker.node.url(broker.vhost, password="hunter22"),
        "EVENTSINK_INFLUX_TOKEN": "nobody:hunter22",
    }
    for name, value in wrong.items():
        instance.environment = good | {name: value}
        ended = await instance.run("worker", "--port", "0")
        assert ended.code == 1
        assert "Traceback" not in ended.err
        assert "hunter22" not in ended.out + ended.err
        assert "waiting up to" not in ended.err
