"""The emergency ingest: `eventsink web` on a real broker, durable, beside a bare aiohttp handler that only decodes.

    python -m bench ingest

wrk (Debian's) makes the load of single events and of NDJSON; the latency is measured by an open loop of our own, from
the moment at which a request was due. Contestants alternate; a ratio is that of two in the same round.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import uvloop

from bench.broker import running_node
from bench.contest import status_kib
from bench.load import lines
from cli.tables import print_table

EVENTSINK = Path(sys.executable).with_name("eventsink")
ROUNDS = 3
SECONDS = 6
CONNECTIONS = 64
ITEMS = 500
PACE = 1_000
PACED_S = 10
IDLE = 5_000

BARE = """
import json, sys
import uvloop
from aiohttp import web
async def take(request):
    json.loads(await request.read())
    return web.json_response({"accepted": 1}, status=202)
async def main():
    application = web.Application(client_max_size=1 << 20)
    application.router.add_post("/v1/events", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("http://127.0.0.1:%d/" % runner.addresses[0][1], flush=True)
    import asyncio
    await asyncio.Event().wait()
uvloop.run(main())
"""


class Server(NamedTuple):
    """A process that listens."""

    url: str
    key: str
    pid: int


def main() -> None:
    """Measure and print."""
    with running_node() as node, tempfile.TemporaryDirectory(prefix="eventsink-bench-") as folder:
        vhost = node.fresh_vhost()
        environment = {
            **os.environ,
            "EVENTSINK_DATA": folder,
            "EVENTSINK_BROKER_URL": node.url(vhost),
            # What is measured is the work, not the limit that is set on it.
            "EVENTSINK_KEY_RATE": "1000000",
            "EVENTSINK_KEY_BURST": "1000000",
        }
        with _eventsink(environment) as ours, _bare() as bare:
            single, many = next(lines(1)), b"\n".join(lines(ITEMS))
            found: dict[str, list[float]] = {"eventsink": [], "bare": [], "ndjson": []}
            latencies = uvloop.run(_paced(ours, single))  # before the broker has gigabytes to write
            for number in range(ROUNDS):
                contestants = [("eventsink", ours), ("bare", bare)]
                for name, server in contestants if number % 2 == 0 else reversed(contestants):
                    found[name].append(_wrk(server, single, "application/json", folder))
                found["ndjson"].append(ITEMS * _wrk(ours, many, "application/x-ndjson", folder))
            before, after = _idle(ours)
    ratio = statistics.median(
        one / other for one, other in zip(found["eventsink"], found["bare"], strict=True)
    )
    rate, events = statistics.median(found["eventsink"]), statistics.median(found["ndjson"])
    p99 = statistics.quantiles(latencies, n=100)[98] * 1000
    print_table(
        ("", "demanded", "measured"),
        [
            (f"single events, requests/s, {CONNECTIONS} at once", "8,000", f"{rate:,.0f}"),
            ("… of a bare aiohttp handler", "0.30", f"{ratio:.2f}"),
            (f"NDJSON of {ITEMS}, events/s", "100,000", f"{events:,.0f}"),
            (f"p99 at {PACE:,} requests/s, ms", "50", f"{p99:.1f}"),
            (f"{IDLE:,} idle connections, MiB", "300", f"{after / 1024:.0f} ({before / 1024:.0f} before)"),
        ],
    )


@contextmanager
def _eventsink(environment: Mapping[str, str]) -> Iterator[Server]:
    made = subprocess.run(
        [EVENTSINK, "keys", "create", "--name", "bench", "--scopes", "events"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    with _listening([str(EVENTSINK), "web", "--port", "0"], environment) as (url, pid):
        yield Server(url, made.stdout.strip(), pid)


@contextmanager
def _bare() -> Iterator[Server]:
    with _listening([sys.executable, "-c", BARE], os.environ) as (url, pid):
        yield Server(url, "", pid)


@contextmanager
def _listening(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if address := re.search(r"http://[0-9.:]+", line):
                yield address.group(), process.pid
                return
        raise RuntimeError(f"{command[0]} printed no address")
    finally:
        process.terminate()
        process.wait()


def _wrk(server: Server, body: bytes, content_type: str, folder: str) -> float:
    """Requests a second that were answered with 202."""
    script, content = Path(folder) / "post.lua", Path(folder) / "body"
    content.write_bytes(body)
    headers = {"Content-Type": content_type, "Authorization": f"Bearer {server.key}"}
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = io.open('{content}', 'rb'):read('*a')\n"
        + "".join(f"wrk.headers['{name}'] = '{value}'\n" for name, value in headers.items())
        + "taken = 0\n"
        "function setup(thread) thread:set('taken', 0); only = thread end\n"
        "function response(status) if status == 202 then taken = taken + 1 end end\n"
        "function done(summary) print('taken', only:get('taken'), summary.duration) end\n"
    )
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{SECONDS}s",
        "-s",
        str(script),
        f"{server.url}/v1/events",
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"^taken\s+(\d+)\s+(\d+)$", said, re.MULTILINE)
    if found is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"not everything was taken:\n{said}")
    taken, us = map(int, found.groups())
    return taken / us * 1e6


async def _paced(server: Server, body: bytes) -> list[float]:
    """Seconds that each request took, from the moment at which it was due."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {server.key}"}
    took: list[float] = []
    async with aiohttp.ClientSession(
        headers=headers, connector=aiohttp.TCPConnector(limit=CONNECTIONS)
    ) as session:

        async def one(due: float) -> None:
            await asyncio.sleep(due - time.monotonic())
            async with session.post(f"{server.url}/v1/events", data=body) as answer:
                await answer.read()
                answer.raise_for_status()
            took.append(time.monotonic() - due)

        begins = time.monotonic() + 1.0
        async with asyncio.TaskGroup() as group:
            for number in range(PACE * PACED_S):
                group.create_task(one(begins + number / PACE))
    return took


def _idle(server: Server) -> tuple[int, int]:
    """KiB resident before and while so many connections do nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, IDLE + 1000)), hard))
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    before = status_kib(server.pid, "VmRSS")
    sockets = [socket.create_connection((host, int(port))) for _ in range(IDLE)]
    try:
        # The last one is answered: so all are accepted.
        sockets[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sockets[-1].recv(100)
        return before, status_kib(server.pid, "VmRSS")
    finally:
        for each in sockets:
            each.close()
