"""The embedded default, as a user has it: `eventsink up` in one process, `eventsink send` in another.

Timed from the start of `send` until every agent has folded and archived every event. Limits: 100 000 events in under
12 s on two cores; under 200 MB over a million events (`python -m bench.embedded 1000000`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.contest import cpu_s, peak_kib, status_kib
from bench.load import lines

EVENTSINK = Path(sys.executable).with_name("eventsink")
AGENTS = ("storage", "extractions", "uptime", "traffic", "activity", "archive")


def main(count: int = 100_000) -> float:
    """Measure and print; returns the most memory that was resident, in MiB."""
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-") as folder:
        file = Path(folder) / "events.jsonl"
        file.write_bytes(b"\n".join(lines(count)) + b"\n")
        environment = {**os.environ, "EVENTSINK_DATA": folder, "EVENTSINK_KEEP": "36500d"}
        service = subprocess.Popen(
            [EVENTSINK, "up", "--port", "0"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            url = _address(service)
            started = time.monotonic()
            sending = subprocess.Popen(
                [EVENTSINK, "send", str(file)],
                env=environment,
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            highest = 0
            while min(_processed(url).values()) < count:
                highest = max(highest, status_kib(service.pid, "VmRSS"))
                if service.poll() is not None or sending.poll() not in (None, 0):
                    raise RuntimeError("up or send ended before its time")
                time.sleep(0.1)
            took = time.monotonic() - started
            cpu = cpu_s(service.pid)
            highest = max(highest, peak_kib(service.pid))
            sending.wait()
        finally:
            service.terminate()
            service.wait()
        on_disk = (Path(folder) / "eventsink.db").stat().st_size  # after its end nothing is left in the WAL
    print(
        f"embedded, {count} events: {took:.1f} s, {count / took:.0f} events/s, "
        f"{cpu / count * 1e6:.0f} µs CPU an event, {highest / 1024:.0f} MiB resident at most, "
        f"{on_disk / count:.0f} bytes on disk an event"
    )
    return highest / 1024


def _address(service: subprocess.Popen[str]) -> str:
    assert service.stdout is not None
    for line in service.stdout:
        found = re.search(r"http://[0-9.:]+", line)
        if found:
            return found.group()
    raise RuntimeError("up printed no address")


def _processed(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    return {
        agent: sum(
            float(value)
            for value in re.findall(
                rf'^eventsink_events_total{{agent="{agent}",.*}} (\S+)$', text, re.MULTILINE
            )
        )
        for agent in AGENTS
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
