"""Monitors that are killed, each a step later than the one before: `python -m tests.monitors.dying FILE LIVES`.

A step is a line of the code that keeps and posts. Each life checks everything once, over a log that has grown
meanwhile and now and then was rotated. The first life and the last one end by themselves. Prints as JSON how many lines
were written since the first, and how many lives were cut short.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from monitors.config import MonitorConfig, read
from monitors.running import opened
from monitors.schedule import Clocks

ROOT = Path(__file__).parents[2]
#: What writes and what sends: nothing else leaves a trace.
STEPS_OF = {
    *(str(ROOT / "monitors" / f"{name}.py") for name in ("keeping", "outbox", "posting", "running")),
    str(ROOT / "topology" / "sqlite" / "file.py"),
}
LINE = b'127.0.0.1 - - [24/Nov/2026:23:20:01 +0000] "GET /%d HTTP/1.1" 200 3 "-" "-"\n'
ROTATED_EVERY = 5


class Steps:
    """Counts steps; the process is killed at ``last``."""

    def __init__(self, last: int | None) -> None:
        self.count = 0
        self._last = last

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in STEPS_OF:
            return None
        if event == "line":
            self.count += 1
            if self.count == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


async def once(config: MonitorConfig) -> None:
    clocks = Clocks(wall_ms=lambda: time.time_ns() // 1_000_000)
    async with opened(config, os.environ, clocks) as monitor:
        await monitor.once()


def life(config: MonitorConfig, last: int | None) -> tuple[bool, int]:
    """Whether it was killed, else how many steps it took."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        steps = Steps(last)
        threading.settrace(steps)
        sys.settrace(steps)
        code = 1
        try:
            asyncio.run(once(config))
            sys.settrace(None)
            os.write(into, str(steps.count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out, "rb") as told:
        said = told.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True, 0
    assert os.WEXITSTATUS(status) == 0
    return False, int(said)


def main(file: Path, lives: int) -> None:
    config = read(file)
    log = file.parent / "access.log"
    log.touch()
    life(config, None)
    written = killed = 0

    def grow() -> None:
        nonlocal written
        with log.open("ab") as growing:
            growing.write(b"".join(LINE % (written + number) for number in range(3)))
        written += 3

    grow()
    _, steps = life(config, None)
    for number in range(lives):
        grow()
        if number % ROTATED_EVERY == 0:
            log.rename(log.with_name(f"access.log.{lives - number}"))
            grow()
        killed += life(config, 1 + number * steps // lives)[0]
    grow()
    life(config, None)
    json.dump({"written": written, "killed": killed, "steps": steps}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
