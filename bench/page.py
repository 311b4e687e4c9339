"""The page over an embedded store with many keys: its weight, its first chart, and how long its figures take.

    python -m bench page

1000 spaces with bytes and traffic in every window (each minute of an hour, each hour of seven days, each day of
thirty), 5 services from 4 regions, 30 extractors. Figures are made anew each time; the browser is Debian's Chromium,
with an empty cache, on localhost.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from playwright.async_api import Browser, CDPSession, async_playwright

from agents import ROLLUPS
from cli.parts import SCHEMA
from cli.tables import print_table
from topology.sinks import Point, Value
from topology.sqlite.file import Database
from topology.sqlite.rollups import SqliteRollups
from topology.windows import DAY, HOUR, MINUTE, Tumbling
from web.overview import snapshots, spans
from web.overview.figures import Figures

EVENTSINK = Path(sys.executable).with_name("eventsink")
SPACES = 1000
SERVICES, REGIONS = 5, ("all", "eu-west", "us-east", "ap-south")
EXTRACTORS = 30
ROUNDS = 40
VISITS = 10
#: How many windows of each size there are.
KEPT = ((MINUTE, 60), (HOUR, 7 * 24), (DAY, 30))


def main() -> None:
    """Fill a store, and look at it."""
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-") as folder:
        asyncio.run(_measured(Path(folder)))


async def _measured(folder: Path) -> None:
    now = int(time.time())
    rows = await _fill(folder / "eventsink.db", now)
    print_table(
        ["figures of", "rows in the store", "p50 ms", "p95 ms", "longest ms", "p50 ms of CPU"],
        [
            [name, f"{rows:,}", *taken]
            for name, taken in (await _figures(folder / "eventsink.db", now)).items()
        ],
    )
    print_table(["the page", "median", "longest"], await _looked_at(folder))


async def _fill(path: Path, now: int) -> int:
    database = Database(path, schema=SCHEMA)
    sink = SqliteRollups(database)
    await sink.open()
    written = 0
    for window, count in KEPT:
        for back in range(count):
            points = list(_points(window, window.start(now) - back * window.seconds, back))
            await sink.write(points)
            written += len(points)
    await sink.close()
    return written


def _points(window: Tumbling, at: int, back: int) -> Iterator[Point]:
    def point(rollup: str, fields: dict[str, Value], **tags: str) -> Point:
        return Point(rollup, window.name, at, tuple(tags.items()), fields)

    for space in range(SPACES):
        name = f"{space:024x}"
        yield point(
            "space_storage",
            {
                "bytes_added": space * 1000 + back,
                "bytes_removed": space,
                "files_added": 3,
                "files_removed": 1,
            },
            space_id=name,
        )
        for action in ("viewed", "downloaded"):
            fields: dict[str, Value] = {"events": 5, "bytes": space, "items": 1, "unique_users": 3}
            yield point("resource_traffic", fields, action=action, resource_type="file", space_id=name)
    for service in range(SERVICES):
        for region in REGIONS:
            up = window.seconds - back % 7
            yield point(
                "service_uptime",
                {
                    "up_s": float(up),
                    "down_s": float(back % 7),
                    "unknown_s": 0.0,
                    "maintenance_s": 0.0,
                    "checks": 60,
                    "failures": back % 7,
                    "coverage": 1.0,
                    "uptime_ratio": up / window.seconds,
                    "response_ms_mean": 40.0,
                    "response_ms_max": 200.0,
                    "response_ms_p95": 90.0 + back,
                },
                service=f"service-{service}",
                region=region,
            )
    for extractor in range(EXTRACTORS):
        yield point(
            "extractor_runtime",
            {
                "submitted": 9,
                "started": 9,
                "succeeded": 8,
                "failed": 1,
                "skipped": 0,
                "retried": 0,
                "runtime_s_count": 9,
                "runtime_s_sum": 90.0,
                "runtime_s_min": 1.0,
                "runtime_s_max": 40.0,
                "runtime_s_p50": 8.0,
                "runtime_s_p95": 30.0,
                "runtime_s_p99": 40.0,
            },
            extractor=f"extractor-{extractor}",
        )
    for action in ("logged_in", "signed_up"):
        yield point("user_activity", {"events": 40, "unique_users": 30}, action=action)


async def _figures(path: Path, now: int) -> dict[str, Sequence[str]]:
    snapshots.LEAST_AGE_S = 0
    snapshots.SHARE = 0
    database = Database(path, schema=SCHEMA)
    sink = SqliteRollups(database)
    await sink.open()
    figures = Figures(sink, ROLLUPS)
    parts: dict[str, snapshots.Part] = {
        "uptime": figures.uptime,
        "storage": figures.storage,
        "extractors": figures.extractors,
        "activity": figures.activity,
    }
    made = snapshots.Snapshots(parts, lambda: now * 1000)
    taken: dict[str, Sequence[str]] = {}
    for name in spans.RANGES:
        times, busy = [], []
        for _ in range(ROUNDS):
            began, worked = time.perf_counter(), time.process_time()
            assert b'"away":{}' in snapshots.document(await made.fresh(name))
            times.append(1000 * (time.perf_counter() - began))
            busy.append(1000 * (time.process_time() - worked))
        times.sort()
        shown = (
            statistics.median(times),
            times[int(0.95 * (len(times) - 1))],
            times[-1],
            statistics.median(busy),
        )
        taken[name] = [f"{each:.0f}" for each in shown]
    await sink.close()
    return taken


async def _looked_at(folder: Path) -> list[list[str]]:
    running = await asyncio.create_subprocess_exec(
        EVENTSINK, "up", "--port", "0", "--data", folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert running.stdout is not None
        while b" at http" not in (line := await running.stdout.readline()):
            assert line, "it ended"
        url = line.decode().rpartition(" at ")[2].strip().rstrip("/")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"] if os.geteuid() == 0 else []
            )
            visits = [await _visit(browser, url) for _ in range(VISITS)]
            await browser.close()
    finally:
        running.terminate()
        await running.wait()
    charts, weights, plain = zip(*visits, strict=True)
    return [
        [
            "first chart, ms after the navigation began",
            f"{statistics.median(charts):.0f}",
            f"{max(charts):.0f}",
        ],
        [
            "sent, KiB (gzip, headers and first figures included)",
            f"{statistics.median(weights):.0f}",
            f"{max(weights):.0f}",
        ],
        ["unpacked, KiB", f"{statistics.median(plain):.0f}", f"{max(plain):.0f}"],
    ]


async def _visit(browser: Browser, url: str) -> tuple[float, float, float]:
    """Time to the first chart, bytes sent, and bytes unpacked, up to then."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    network: CDPSession = await context.new_cdp_session(page)
    sent = plain = 0.0

    def came(event: dict[str, float]) -> None:
        nonlocal sent, plain
        sent += max(0.0, event["encodedDataLength"])
        plain += event["dataLength"]

    def headers(event: dict[str, dict[str, float]]) -> None:
        nonlocal sent
        sent += event["response"]["encodedDataLength"]

    network.on("Network.dataReceived", came)
    network.on("Network.responseReceived", headers)
    await network.send("Network.enable")
    await page.goto(url)
    while not (
        marks := await page.evaluate("performance.getEntriesByName('chart').map(one => one.startTime)")
    ):
        await asyncio.sleep(0.01)
    first: float = marks[0]
    await context.close()
    return first, sent / 1024, plain / 1024
