"""`kill -9` of a monitor, at any line of the code that keeps and posts."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.monitors.namespaces import ROOT
from tests.monitors.targets import port_without_listener, serving
from tests.processes import STARTED

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

LIVES = 56


async def test_whenever_it_is_killed_every_request_and_every_result_counts_once(tmp_path: Path) -> None:
    got: list[dict[str, Any]] = []

    async def ingest(request: web.Request) -> web.Response:
        events = [json.loads(line) for line in (await request.read()).splitlines()]
        got.extend(events)
        return web.json_response({"accepted": len(events), "rejected": []}, status=202)

    async with serving(ingest) as port:
        (tmp_path / "monitors.toml").write_text(f"""
            endpoint = "http://127.0.0.1:{port}"
            [[probe]]
            kind = "connections"
            service = "clowder"
            access_log = "{tmp_path}/access.log"
            [[probe]]
            kind = "port"
            service = "clowder"
            host = "127.0.0.1"
            port = {port_without_listener()}
            retries = 0
        """)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.monitors.dying", tmp_path / "monitors.toml", str(LIVES)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        STARTED.append(process)
        out, _ = await process.communicate()
    assert process.returncode == 0
    told = json.loads(out)
    assert told["killed"] > LIVES / 2, told

    events = {each["id"]: each for each in got}
    # What came twice, since the answer was lost, is the same event.
    assert all(events[each["id"]] == each for each in got)
    assert sum(each.get("requests", 0) for each in events.values()) == told["written"], told
    # And whatever was kept has come, in order.
    outbox = sqlite3.connect(tmp_path / "monitor-data" / "outbox.db")
    assert outbox.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
    assert outbox.execute("SELECT seq FROM sqlite_sequence").fetchone() == (len(events),)
    outbox.close()
    for kind in ("health.connections_counted", "health.pinged"):
        times = [each["time"] for each in events.values() if each["type"] == kind]
        assert times == sorted(times)
