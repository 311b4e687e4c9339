"""The programs of docs/guides/analysis.md run as they are written, and come to the numbers that were counted."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from pathlib import Path

import pytest

from agents import ROLLUPS
from tests.servers.influxdb import Influx
from tests.web.serving import NOW_MS, served
from topology.influxdb.sink import InfluxRollups
from topology.sinks import Point

GUIDE = (Path(__file__).parents[1] / "docs/guides/analysis.md").read_text()
PROGRAMS = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL))
NOW_S = NOW_MS // 1000

pytestmark = pytest.mark.timeout(240)


async def printed(name: str, folder: Path, **environment: str) -> str:
    """What a program of the guide prints. It ends well and warns of nothing."""
    file = folder / f"{name}.py"
    file.write_text(PROGRAMS[name])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        str(file),
        cwd=folder,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b""), err.decode()
    return out.decode()


def test_every_program_of_the_guide_is_run_here_and_is_short() -> None:
    assert set(PROGRAMS) == {"from_csv", "from_parquet", "from_influxdb"}
    assert len(re.findall(r"^```python", GUIDE, re.MULTILINE)) == 3
    for name, program in PROGRAMS.items():
        assert len([line for line in program.splitlines() if line]) <= 10, name


async def test_csv_and_parquet(tmp_path: Path) -> None:
    def storage(hours_ago: int, space: str, **fields: int) -> Point:
        tags = (("space_id", space),)
        return Point("space_storage", "1h", NOW_S - 3600 * hours_ago, tags, fields)

    def uptime(hours_ago: int, up_s: float, down_s: float, region: str = "all") -> Point:
        tags = (("service", "clowder"), ("region", region))
        fields = {"up_s": up_s, "down_s": down_s}
        return Point("service_uptime", "1h", NOW_S - 3600 * hours_ago, tags, fields)

    async with served(tmp_path) as app:
        await app.stores.rollups.write(
            [
                storage(30, "007", bytes_added=5_000_000_000, bytes_removed=1),
                storage(1, "007", bytes_added=1),
                storage(1, "b", bytes_added=10, bytes_removed=4),
                uptime(30, 3600.0, 0.0),
                uptime(1, 1800.0, 1800.0),
                uptime(1, 0.0, 3600.0, region="eu"),
            ]
        )
        where = f"http://127.0.0.1:{app.client.port}"
        csv = await printed("from_csv", tmp_path, EVENTSINK=where)
        assert "4,999,999,999" in csv
        assert "largest: {'007': 5000000000.0}" in csv
        parquet = await printed("from_parquet", tmp_path, EVENTSINK=where)
        assert "minutes down: 30.0" in parquet
        assert re.search(r"2026-11-23 clowder +1800.0 +1800.0 +0.5", parquet)


@pytest.mark.servers
async def test_influxdb(tmp_path: Path, influx: Influx) -> None:
    hour = int(time.time()) // 3600 * 3600

    def traffic(hours_ago: int, action: str, events: int) -> Point:
        tags = (("action", action), ("resource_type", "file"), ("space_id", "a"))
        return Point("resource_traffic", "1h", hour - 3600 * hours_ago, tags, {"events": events})

    keys = {rollup.name: rollup.key for rollup in ROLLUPS.values()}
    sink = InfluxRollups(influx.url, influx.token, influx.org, influx.bucket, keys=keys)
    await sink.open()
    await sink.write(
        [
            traffic(1, "viewed", 3),
            traffic(2, "viewed", 4),
            traffic(2, "downloaded", 5),
            traffic(24 * 8, "viewed", 9),
        ]
    )
    await sink.close()
    said = await printed(
        "from_influxdb", tmp_path, INFLUX=influx.url, BUCKET=influx.bucket, TOKEN=influx.token
    )
    assert "events: {'downloaded': 5, 'viewed': 7}" in said
