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

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


async def totals(name: str, folder: Path, broker: Broker, *, until: int) -> list[int]:
    """Run the app until it prints that total; every total that it printed. It must end well when it is told to."""
    (folder / f"{name}.py").write_text(APPS[name])
    password = folder / "password"
    password.write_text("guest\n")
    url = URL(broker.url).with_password(None)
    url = url.with_query(exchange="numbers", queue="numbers.log", password_file=str(password))
    environment = os.environ | {
        "BROKER": str(url),
        "PYTHONPATH": str(ROOT),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(f"{name}.py", "worker", "--without-web", "-l", "info"),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(50):
            while not (found := in_words(said)) or found[-1] < until:
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
    return in_words(said)


def in_words(said: str) -> list[int]:
    return [int(total) for total in re.findall(r"total (\d+)", said)]


def test_every_app_of_the_guide_is_run_here() -> None:
    assert set(APPS) == {"adder", "batches", "saving"}
    assert len(re.findall(r"^```python", GUIDE, re.MULTILINE)) == 3


@pytest.mark.parametrize("name", ["adder", "batches"])
async def test_an_app_of_the_guide_counts_what_it_sends(name: str, tmp_path: Path, broker: Broker) -> None:
    assert (await totals(name, tmp_path, broker, until=3))[:3] == [1, 2, 3]


async def test_the_app_that_saves_its_position_goes_on_where_it_was(tmp_path: Path, broker: Broker) -> None:
    first = await totals("saving", tmp_path, broker, until=3)
    again = await totals("saving", tmp_path, broker, until=first[-1] + 3)
    assert again == list(range(again[0], again[-1] + 1))
    assert first[-1] < again[0] <= first[-1] + 2  # one may have been on its way when the first run ended
