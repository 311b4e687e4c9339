"""A death at every step between an answer and the log: everything that was answered arrives, in order, under its own
stamp."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.processes import STARTED
from tests.web.dying_spool import MESSAGES, NEVER_TAKEN
from tests.web.spools import NOW_MS, FileBroker, life

pytestmark = pytest.mark.processes

STEPS = [
    f"{name}:{moment}:{number}"
    for name, number in (
        ("web.spool:Spool._write", 1),
        ("web.spool:Spool._write", 5),
        ("web.spool:Spool.first", 1),
        ("tests.web.spools:Broker.publish", 3),
        ("tests.web.spools:FileBroker.publish", 3),
        ("tests.web.spools:FileBroker.publish", 8),
        ("web.spool:Spool.put_aside", 1),
        ("web.spool:Spool.remove", 1),
        ("web.spool:Spool.remove", 2),
        ("web.spool:Spool.take_up_again", 1),
        ("web.spool:Spool.close", 1),
    )
    for moment in ("before", "after")
]


async def dies(step: str, folder: Path, first: int) -> dict[int, str]:
    """What was answered before it died."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.web.dying_spool", step, str(folder), str(first)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    STARTED.append(process)
    said, complained = await process.communicate()
    assert process.returncode == -signal.SIGKILL, f"{step}: {complained.decode()}"
    lines = [line.split() for line in said.splitlines(keepends=True) if line.endswith(b"\n")]
    return {int(number): where.decode() for number, where in lines}


@pytest.mark.parametrize("step", STEPS)
async def test_what_was_answered_before_a_death_arrives(tmp_path: Path, step: str) -> None:
    answered: dict[int, str] = {}
    if "take_up_again" in step:  # there must be something to take up
        answered |= await dies("web.spool:Spool.close:before:1", tmp_path, 0)
    answered |= await dies(step, tmp_path, MESSAGES)
    broker = FileBroker(tmp_path / "log")
    async with life(tmp_path, broker) as lived:
        await lived.until(lambda: lived.spool.empty and lived.drainer.direct)
        refused = lived.spool.held.refused_events
    log = [line.split() for line in broker.lines()]
    taken = list(dict.fromkeys(int(name.removeprefix("id-")) for name, _ in log))
    lost = answered.keys() - set(taken)
    assert all(number % MESSAGES in NEVER_TAKEN for number in lost)
    assert refused >= len(lost)
    assert all(int(received) == NOW_MS + int(name.removeprefix("id-")) for name, received in log)
    # Those that were answered in turn; what was sent at once has no order.
    in_turn = [n for n in taken if answered.get(n) == "spool" and n % 30 >= 10]
    assert in_turn == sorted(in_turn)
