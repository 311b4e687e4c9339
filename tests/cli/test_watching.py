"""``--watch``: the same table again and again on a terminal, until interrupted."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli import parts
from cli.settings import load
from topology.sinks import Point

pytestmark = pytest.mark.timeout(120)

HOUR = int(time.time()) // 3600 * 3600
LIMIT_S = 40.0


def write(folder: Path, files: int) -> None:
    async def fill() -> None:
        settings = load({"EVENTSINK_DATA": str(folder)})
        shared = parts.Shared(settings)
        await shared.database().open()
        fields = {"bytes_added": 2048, "files_added": files}
        await parts.rollup_sink(settings, shared).write(
            [Point("space_storage", "1h", HOUR, (("space_id", "a"),), fields)]
        )
        await shared.database().close()

    asyncio.run(fill())


class Screen:
    """A terminal of 100 columns and what was written to it."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._text = ""

    def shows(self, pattern: str) -> None:
        """Wait until something like this has been written since the last time."""
        ends = time.monotonic() + LIMIT_S
        while not (found := re.search(pattern, self._text)):
            left = ends - time.monotonic()
            assert left > 0, self._text
            if select.select([self._master], [], [], left)[0]:
                self._text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(self._master, 65536).decode())
        self._text = self._text[found.end() :]


@contextmanager
def on_a_terminal(folder: Path, *args: str) -> Iterator[tuple[Screen, subprocess.Popen[bytes]]]:
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "LINES": "24", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *args, "--data", str(folder)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
    )
    os.close(slave)
    try:
        yield Screen(master), process
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.mark.parametrize(
    "args", [("rollups", "space_storage", "--window", "1h"), ("top", "spaces", "--since", "now-1d")], ids=str
)
def test_what_changes_is_seen_and_an_interrupt_ends_it_well(tmp_path: Path, args: tuple[str, ...]) -> None:
    write(tmp_path, 7)
    with on_a_terminal(tmp_path, *args, "--watch") as (screen, process):
        screen.shows(r"2\.0 KiB +7")
        write(tmp_path, 8)
        screen.shows(r"2\.0 KiB +8")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0


def test_events_are_watched_the_newest_first(tmp_path: Path) -> None:
    write(tmp_path, 1)  # makes the file
    with on_a_terminal(tmp_path, "events", "--type", "activity.*", "--watch") as (screen, process):
        screen.shows("no events of this type yet")
        with sqlite3.connect(tmp_path / "eventsink.db") as database:
            database.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, 'activity.logged_in', NULL, ?, '{}')",
                [
                    (str(at), at, at, at, f'{{"type":"activity.logged_in","user_id":"user-{at}"}}')
                    for at in range(60)
                ],
            )
        database.close()
        screen.shows(r"user-59\s")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
