"""A backup of InfluxDB 1.8 as docs/deploy.md has it, on a real influxd (Debian's is a 1.6); and rollups that come back
without one."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agents import ROLLUPS
from tests.deployments import rollups_in
from tests.processes import SAMPLE, Instance, comes_to_the_expected_numbers
from tests.servers.influxdb import Influx, Influxd

PAGE = (Path(__file__).parent.parent / "docs/deploy.md").read_text("utf-8")
#: More than the whole sample.
RANGE = ("--since", "2026-01-01", "--until", "now")

pytestmark = [pytest.mark.processes, pytest.mark.servers, pytest.mark.timeout(480)]


class Commands:
    """Those of the page, given to this influxd with this database in the place of ``eventsink``."""

    def __init__(self, influxd: Influxd, influx: Influx, folder: Path) -> None:
        self._influxd = influxd
        self._database = influx.bucket
        self._folder = folder

    def backup(self) -> None:
        self._run(r"influxd backup .+")

    def restore(self) -> None:
        self._ask(r"DROP DATABASE .+")
        self._run(r"influxd restore .+")
        self._ask(r"GRANT ALL .+")

    def _run(self, line: str) -> None:
        (found,) = re.findall(rf"^\$ ({line})$", PAGE, re.MULTILINE)
        words = [self._database if word == "eventsink" else word for word in shlex.split(found)]
        *options, folder = words
        subprocess.run(
            [*options, "-host", f"127.0.0.1:{self._influxd.rpc_port}", folder],
            cwd=self._folder,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def _ask(self, statement: str) -> None:
        (found,) = re.findall(rf"-execute '({statement})'$", PAGE, re.MULTILINE)
        self._influxd.ask(re.sub(r"(DATABASE|ON) eventsink", rf"\1 {self._database}", found))


@pytest.fixture
def instance(tmp_path: Path, influx: Influx) -> Instance:
    return Instance(tmp_path, rollups_in(influx))


async def test_rollups_come_back_from_a_backup_and_without_one(
    instance: Instance,
    influxd: Influxd,
    influx: Influx,
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    commands = Commands(influxd, influx, tmp_path)
    service = await instance.start("up", free_port())
    assert (await instance.run("send", str(SAMPLE))).code == 0
    await comes_to_the_expected_numbers(instance)

    commands.backup()
    influx.rows("DELETE FROM space_storage_1h")
    commands.restore()
    await comes_to_the_expected_numbers(instance)

    influxd.ask(f"DROP DATABASE {influx.bucket}")
    influx.open_bucket()
    for rollup in ROLLUPS:
        ended = await instance.run("rebuild", rollup, *RANGE)
        assert ended.code == 0, ended.err
    await comes_to_the_expected_numbers(instance)
    assert await service.stop() == 0
