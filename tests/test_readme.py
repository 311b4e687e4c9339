"""The commands of the README do what it says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from schemas.events import EVENT_TYPES
from tests.deployments import embedded
from tests.processes import SAMPLE, holds_each_event_once, sample_lines

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


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


def test_the_table_of_events_has_every_type_with_what_it_must_have() -> None:
    (table,) = re.findall(r"^\| type \| must have .*\n\|---.*\n((?:\|.*\n)+)", README, re.MULTILINE)
    shown: dict[str, set[str]] = {}
    for row in table.splitlines():
        types, fields, _ = (cell.strip() for cell in row.strip("|").split("|"))
        first, *others = re.findall(r"`([^`]+)`", types)
        family = first.partition(".")[0]
        for name in (first, *others):
            shown[f"{family}{name}" if name.startswith(".") else name] = set(re.findall(r"`(\w+)`", fields))
    assert shown == {
        str(kind.__struct_config__.tag): {each.name for each in msgspec.structs.fields(kind) if each.required}
        for kind in EVENT_TYPES
    }


def test_make_run_takes_a_port_that_is_given_to_it_and_none_that_a_shell_exports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORT", "5")

    def run(*arguments: str) -> str:
        # -o: what `make setup` does is no part of it.
        said = ["make", "--dry-run", "--no-print-directory", "-o", "setup", "run", *arguments]
        return subprocess.run(said, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    assert run() == "exec .venv/bin/eventsink up"
    assert run("PORT=9090") == "exec .venv/bin/eventsink up --port '9090'"


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

    accepted = []
    for line in commands():
        if not line.startswith(("curl", "printf")):
            continue
        ran = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            line.replace("http://127.0.0.1:8080", service.url).replace(
                "curl", "curl --silent --fail-with-body"
            ),
            cwd=tmp_path,
            env={**os.environ, "KEY": key},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await ran.communicate()
        assert ran.returncode == 0, (line, out)
        if "-X POST" in line:
            answer = json.loads(out)
            assert (answer["rejected"], answer["durable"]) == ([], "log")
            accepted.append(answer["accepted"])
        elif line.startswith("curl"):
            answer = json.loads(out)
            assert answer["rollup"] in line
            assert answer["rows"]
    assert accepted == [1, 2, 1]
    assert await service.stop() == 0


def test_the_picture_of_the_rollups_is_that_of_the_code() -> None:
    from agents import ROLLUPS

    for rollup in ROLLUPS.values():
        key = " ".join(f"`{tag}`" for tag in rollup.key)
        fields = " ".join(f"`{field}`" for field in rollup.fields)
        assert f"| `{rollup.name}` | {key} | {fields} |" in README
