"""The applications in the guides run as they are written."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from yarl import URL

from tests.servers.rabbitmq import Broker

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/guides/faust-on-rabbitmq.md").read_text()
APPS = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL))

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


class App:
    """An app of the guide in a folder of its own, on the broker."""

    def __init__(self, name: str, folder: Path, broker: Broker) -> None:
        self._file = f"{name}.py"
        self._folder = folder
        (folder / self._file).write_text(APPS[name])
        password = folder / "password"
        password.write_text("guest\n")
        url = URL(broker.url).with_password(None)
        url = url.with_query(exchange="numbers", queue="numbers.log", password_file=str(password))
        self._environment = os.environ | {"BROKER": str(url), "PYTHONPATH": str(ROOT)}

    async def run(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start it as the guide says."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *(self._file, *arguments),
            cwd=self._folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def worked(self, word: str, *, until: int) -> list[int]:
        """Work until it prints ``word`` and that number; every number that it printed so. It must end well when it
        is told to."""
        process = await self.run("worker", "--without-web", "-l", "info")
        assert process.stdout is not None
        said = ""
        try:
            async with asyncio.timeout(100):
                while not (found := _numbers(word, said)) or found[-1] < until:
                    line = (await process.stdout.readline()).decode()
                    assert line, said
                    said += line
                process.send_signal(signal.SIGTERM)
                said += (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, said
        assert "Traceback" not in said, said
        assert "guest:" not in said
        return _numbers(word, said)


def _numbers(word: str, said: str) -> list[int]:
    return [int(number) for number in re.findall(rf"{word} (\d+)", said)]


def test_every_app_of_the_guide_is_run_here() -> None:
    assert set(APPS) == {"listener", "batches", "saving"}
    assert len(re.findall(r"^```python", GUIDE, re.MULTILINE)) == 3


def test_the_first_app_of_the_guide_has_ten_lines() -> None:
    assert len([line for line in APPS["listener"].splitlines() if line]) == 10


async def test_the_ten_lines_read_what_is_sent(tmp_path: Path, broker: Broker) -> None:
    app = App("listener", tmp_path, broker)
    for number in (7, 8):
        sending = await app.run("send", "numbers", str(number))
        said, _ = await sending.communicate()
        assert sending.returncode == 0, said.decode()
    assert await app.worked("got", until=8) == [7, 8]


async def test_the_app_of_batches_counts_what_it_sends(tmp_path: Path, broker: Broker) -> None:
    assert (await App("batches", tmp_path, broker).worked("total", until=3))[:3] == [1, 2, 3]


async def test_the_app_that_saves_its_position_goes_on_where_it_was(tmp_path: Path, broker: Broker) -> None:
    app = App("saving", tmp_path, broker)
    first = await app.worked("total", until=3)
    again = await app.worked("total", until=first[-1] + 3)
    assert again == list(range(again[0], again[-1] + 1))
    assert first[-1] < again[0] <= first[-1] + 2  # one may have been on its way when the first run ended
