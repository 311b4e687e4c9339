"""Questions about a day of 1000 spaces, asked over HTTP of `eventsink up` on the embedded store.

The store holds a day of every minute of every space, 1.44 million rows, and their hours. Each question is asked 100
times by one client, which reads the whole answer. Limit: the 95th percentile of each is under 100 ms.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.contest import cpu_s
from cli.parts import SCHEMA
from schemas.times import rfc3339
from topology.sinks import Point
from topology.sqlite.file import Database
from topology.sqlite.rollups import SqliteRollups

EVENTSINK = Path(sys.executable).with_name("eventsink")
SPACES = 1000
ASKED = 100
LIMIT_MS = 100.0
#: 2026-11-23T00:00:00Z
DAY_S = 1_795_392_000
RANGE = f"since={rfc3339(DAY_S * 1000)}&until={rfc3339((DAY_S + 86_400) * 1000)}"

QUESTIONS = {
    "hours of all spaces": "window=1h",
    "hours of all spaces, as CSV": "window=1h&format=csv",
    "hours, all spaces together": "window=1h&group_by=",
    "the ten that added most": "window=1h&total=true&order=-bytes_added&limit=10",
    "minutes of one space": "window=1m&space_id=space-500",
    "minutes of ten spaces": "window=1m" + "".join(f"&space_id=space-{each}" for each in range(10)),
    "hours of one space, gaps filled": "window=1h&space_id=space-500&fill=zero",
    "a page of minutes": "window=1m&limit=1000",
}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-") as folder:
        asyncio.run(_fill(Path(folder)))
        service = subprocess.Popen(
            [EVENTSINK, "up", "--port", "0"],
            env={**os.environ, "EVENTSINK_DATA": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            connection = http.client.HTTPConnection(_address(service))
            print(f"{'a day of 1000 spaces':32} {'rows':>7} {'kB':>6} {'CPU':>8} {'median':>9} {'p95':>9}")
            for name, query in QUESTIONS.items():
                _ask(connection, name, query, service.pid)
            connection.close()
        finally:
            service.terminate()
            service.wait()


def _ask(connection: http.client.HTTPConnection, name: str, query: str, pid: int) -> None:
    took_ms = []
    body = b""
    used_s = cpu_s(pid)
    for _ in range(ASKED):
        began = time.perf_counter()
        connection.request("GET", f"/v1/rollups/space_storage?{RANGE}&{query}")
        answer = connection.getresponse()
        body = answer.read()
        took_ms.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"{name}: {answer.status} {body[:200]!r}")
    cpu_ms = (cpu_s(pid) - used_s) / ASKED * 1000
    p95 = statistics.quantiles(took_ms, n=20)[-1]
    rows = body.count(b"Z") if "csv" in query else body.count(b'"time"')
    sizes = f"{rows:7} {len(body) / 1000:6.0f}"
    over = "" if p95 < LIMIT_MS else f"  over {LIMIT_MS:g} ms"
    print(f"{name:32} {sizes} {cpu_ms:5.1f} ms {statistics.median(took_ms):6.1f} ms {p95:6.1f} ms{over}")


async def _fill(folder: Path) -> None:
    database = Database(folder / "eventsink.db", schema=SCHEMA)
    sink = SqliteRollups(database)
    await sink.open()
    for hour in range(24):
        await sink.write(list(_points(hour)))
    await sink.close()


def _points(hour: int) -> Iterator[Point]:
    begins = DAY_S + 3600 * hour
    for window, times in (("1h", [begins]), ("1m", range(begins, begins + 3600, 60))):
        for at in times:
            for space in range(SPACES):
                added = (at * 7919 + space * 104_729) % 1_000_003
                fields = {
                    "bytes_added": added,
                    "bytes_removed": added // 3,
                    "files_added": added % 50,
                    "files_removed": 0,
                }
                yield Point("space_storage", window, at, (("space_id", f"space-{space}"),), fields)


def _address(service: subprocess.Popen[str]) -> str:
    assert service.stdout is not None
    for line in service.stdout:
        found = re.search(r"http://([0-9.:]+)", line)
        if found:
            return found.group(1)
    raise RuntimeError("up printed no address")


if __name__ == "__main__":
    main()
