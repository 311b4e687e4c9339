"""Contestants, each in a process of its own, one after the other and again: what they measured, in the middle.

Machines are shared: contestants alternate for a few rounds, every other round in the opposite order, and a ratio is
that of two contestants in the same round. What is shown is the median over the rounds.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from bench.spans import RESULT

LIMIT_S = 180.0
STOP_LIMIT_S = 15.0
BROKER_LOOKED_AT_EVERY_S = 0.02


class Outcome(NamedTuple):
    """One run: between the first message and the last. ``more`` are lists of numbers that came with it."""

    events: int
    took_s: float
    cpu_s: float
    broker_cpu_s: float
    peak_kib: int
    more: Sequence[Sequence[float]]

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.took_s


class Contestant(NamedTuple):
    """``command`` prints a result after ``events`` events, which came in ``messages``. ``folder_setting`` names the
    variable that gets an empty folder in each run. ``meanwhile`` is called once a line of output holds ``ready``."""

    name: str
    command: Sequence[str]
    events: int
    messages: int
    environment: Mapping[str, str] = {}
    folder_setting: str | None = None
    result_lists: int = 0
    ready: str = ""
    meanwhile: Callable[[], None] | None = None


def run(contestant: Contestant, broker_pid: int) -> Outcome:
    """Run it once. Raises ``RuntimeError`` with what it said if it does not come to a result."""
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-", ignore_cleanup_errors=True) as folder:
        own = {} if contestant.folder_setting is None else {contestant.folder_setting: folder}
        return _run(contestant, broker_pid, {**contestant.environment, **own})


def _run(contestant: Contestant, broker_pid: int, environment: Mapping[str, str]) -> Outcome:
    process = subprocess.Popen(
        contestant.command,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    listening = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
    listening.start()
    limit = threading.Timer(LIMIT_S, process.kill)
    limit.start()
    try:
        with BrokerCpu(broker_pid) as broker:
            measured: list[float] = []
            for line in process.stdout:
                if line.startswith(RESULT):
                    measured = [float(number) for number in line.split()[1:]]
                    break
                if contestant.meanwhile is not None and contestant.ready in line:
                    contestant.meanwhile()
        more = [
            [float(number) for number in process.stdout.readline().split()]
            for _ in range(contestant.result_lists)
        ]
        if not measured:
            process.wait(STOP_LIMIT_S)
            listening.join(STOP_LIMIT_S)
            raise RuntimeError(f"{contestant.name} came to no result: {''.join(said)[-2000:]}")
        began, ended, cpu = measured
        return Outcome(
            contestant.events,
            ended - began,
            cpu,
            broker.between(began, ended),
            peak_kib(process.pid),
            more,
        )
    finally:
        limit.cancel()
        process.stdin.close()
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def rounds(contestants: Sequence[Contestant], broker_pid: int, times: int) -> dict[str, list[Outcome]]:
    """The outcomes of each, round by round."""
    outcomes: dict[str, list[Outcome]] = {contestant.name: [] for contestant in contestants}
    for number in range(times):
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            outcome = run(contestant, broker_pid)
            outcomes[contestant.name].append(outcome)
            print(
                f"  round {number + 1}, {contestant.name}: {outcome.rate:,.0f} events/s",
                file=sys.stderr,
                flush=True,
            )
    return outcomes


def ratio(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> float:
    """How many times as fast, in the middle."""
    return statistics.median(one.rate / other.rate for one, other in zip(ours, theirs, strict=True))


class BrokerCpu:
    """Looks at the CPU of the broker's process all the time, so that it can be told for any span afterwards."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def between(self, began: float, ended: float) -> float:
        """Seconds of CPU between two moments of the monotonic clock."""
        return self._at(ended) - self._at(began)

    def _at(self, moment: float) -> float:
        return next((cpu for at, cpu in self._seen if at >= moment), self._seen[-1][1])

    def _look(self) -> None:
        while True:
            self._seen.append((time.monotonic(), cpu_s(self._pid)))
            if self._ended.wait(BROKER_LOOKED_AT_EVERY_S):
                self._seen.append((time.monotonic(), cpu_s(self._pid)))
                return


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def peak_kib(pid: int) -> int:
    """The most memory that was resident."""
    return status_kib(pid, "VmHWM")


def status_kib(pid: int, field: str) -> int:
    """A field of ``/proc/PID/status``, 0 where it has none."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0
