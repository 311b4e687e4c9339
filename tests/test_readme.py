"""The commands of the README do what it says."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.deployments import embedded
from tests.processes import SAMPLE, holds_each_event_once, sample_lines

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


def commands() -> list[str]:
    """Every command line of every console block, continuations joined."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    text = "".join(blocks).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def eventsink_commands() -> list[list[str]]:
    """Those of `eventsink` that end by themselves and need no server, as arguments."""
    prefix = ".venv/bin/eventsink "
    found = [
        shlex.split(line.removeprefix(prefix), comments=True)
        for line in commands()
        if line.startswith(prefix)
    ]
    return [arguments for arguments in found if arguments[0] not in {"up", "monitor"}]


def test_make_knows_the_targets_that_are_named() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in set(re.findall(r"`?make ([a-z-]+)", README)):
        assert f"make {target} " in listed, target


async def test_the_commands_work_in_the_order_in_which_they_stand(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    instance = embedded(tmp_path)
    del instance.environment["EVENTSINK_KEEP"]  # a user has not set it
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    service = await instance.start("up", free_port())
    (key,) = re.findall(r"shown this once: (\S+)", service.output)
    asked = eventsink_commands()
    assert ["send", f"tests/data/{SAMPLE.name}", "--shift-to-now"] in asked
    for arguments in asked:
        ended = await instance.run(*arguments)
        assert ended.code == 0, f"{arguments}: {ended.err}"
    await holds_each_event_once(instance, sample_lines())
    events = await instance.events()
    assert abs(datetime.fromisoformat(events[0]["time"]) - datetime.now(UTC)).total_seconds() < 100

    for line in commands():
        if not line.startswith("curl"):
            continue
        line = line.replace("http://127.0.0.1:8080", service.url).replace("$KEY", key)
        curl = await asyncio.create_subprocess_exec(
            *shlex.split(line),
            "--silent",
            "--fail-with-body",
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await curl.communicate()
        assert curl.returncode == 0, out
        answer = json.loads(out)
        if "-X POST" in line:
            assert answer == {"accepted": 1, "rejected": [], "durable": "log"}
        else:
            assert answer["rollup"] == "user_activity"
            assert answer["rows"]
    assert await service.stop() == 0


def test_the_picture_of_the_rollups_is_that_of_the_code() -> None:
    from agents import ROLLUPS

    for rollup in ROLLUPS.values():
        key = " ".join(f"`{tag}`" for tag in rollup.key)
        fields = " ".join(f"`{field}`" for field in rollup.fields)
        assert f"| `{rollup.name}` | {key} | {fields} |" in README
