"""What must not grow: with the number of keys, with the length of the run, with what a crash left behind.

    python -m bench limits

Each case is a process of its own: the real flow, the agents of the group `rollups`, rows and points in SQLite, the log
a list of messages. Times are of the CPU, of the loop's thread for stalls, so that other work on the machine is not in
them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry
from yarl import URL

from agents import AGENTS
from bench.folding import ENDS_MS, ListLog
from bench.load import canonical_lines
from cli.parts import SCHEMA
from topology.flow import Flow, agents_of
from topology.log import NDJSON, Message
from topology.metrics import Metrics
from topology.outages import Outages
from topology.parts import GroupParts
from topology.position import position
from topology.sqlite.events import SqliteDeadLetters, SqliteRawEvents
from topology.sqlite.file import Database
from topology.sqlite.rollups import SqliteRollups
from topology.sqlite.state import SqliteState

PER_MESSAGE = 100
KEYS = (100, 1_000, 10_000, 100_000)
EVENTS = 200_000
#: 100 000 rows: three windows of so many spaces.
SPACES_OF_LIVE_ROWS = 33_334
#: As many as the cache holds unsaved.
SPACES_IN_A_CHECKPOINT = 12_000
CATCHING_UP = 1_000_000
TICK_S = 0.001


@asynccontextmanager
async def running(
    folder: Path, messages: Sequence[Message], *, every: timedelta = timedelta(seconds=1)
) -> AsyncIterator[Flow]:
    """The flow over these messages, on what is in the folder."""
    database = Database(folder / "eventsink.db", schema=SCHEMA)
    await database.open()
    flow = Flow(
        URL("sqlite:///unused"),
        agents_of(AGENTS, ["rollups"]),
        GroupParts(
            log=ListLog(messages),
            store=SqliteState(database),
            rollup_sink=SqliteRollups(database),
            raw_events=SqliteRawEvents(database),
            dead_letters=SqliteDeadLetters(database),
            metrics=Metrics(CollectorRegistry()),
            outages=Outages(),
            clock_ms=lambda: ENDS_MS,
            checkpoint_every=every,
            keep=timedelta(days=36500),
            key_budget=10 * max(KEYS),
        ),
    )
    await flow.start()
    try:
        yield flow
    finally:
        await flow.stop()
        await database.close()


async def reached(flow: Flow, offset: int) -> None:
    """Return once every agent has folded up to there."""
    (group,) = flow.groups
    while min(group.reading.positions.values()) < position(0, offset):
        await asyncio.sleep(0.001)


def uploads(count: int, keys: int) -> list[Message]:
    """So many uploads into so many spaces, in one minute, a hundred a message."""
    chosen = random.Random(1)
    made = []
    for number, at in enumerate(range(0, count, PER_MESSAGE)):
        body = b"\n".join(
            json.dumps(
                {
                    "type": "storage.file_uploaded",
                    "time": ENDS_MS - 3_600_000 + at % 60_000,
                    "file_id": "f",
                    "space_id": f"space-{chosen.randrange(keys)}",
                    "bytes": 1,
                }
            ).encode()
            for at in range(at, at + PER_MESSAGE)
        )
        made.append(Message(number, body, NDJSON, f"message-{number}", ENDS_MS - 3_600_000))
    return made


class Ticking:
    """The longest time, of the CPU of the loop's thread, for which the loop did not come round."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(TICK_S)
            self.longest_s = max(self.longest_s, time.thread_time() - before)

    def stop(self) -> None:
        """No more."""
        self._task.cancel()


async def keys(number: int) -> dict[str, float]:
    """CPU an event, memory, and the longest stop of the loop, with so many keys."""
    messages = uploads(EVENTS, number)
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-") as folder:
        async with running(Path(folder), messages) as flow:
            ticking = Ticking()
            moments = []
            for part in range(1, 5):
                began = time.process_time()
                await reached(flow, len(messages) * part // 4 - 1)
                moments.append(time.process_time() - began)
            (group,) = flow.groups
            began = time.process_time()
            await group.checkpoint()
            last = time.process_time() - began
            ticking.stop()
    return {
        "keys": number,
        "us": (sum(moments) + last) / EVENTS * 1e6,
        "us_first_quarter": moments[0] / EVENTS * 4e6,
        "us_last_quarter": moments[3] / EVENTS * 4e6,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "stop_ms": ticking.longest_s * 1000,
    }


async def checkpoint(number: int) -> dict[str, float]:
    """The longest stop of the loop while one checkpoint saves the rows of so many spaces."""
    messages = uploads(2 * number, number)
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-") as folder:
        async with running(Path(folder), messages, every=timedelta(days=365)) as flow:
            await reached(flow, len(messages) - 1)
            (group,) = flow.groups
            rows = group.reading.rows.unsaved
            ticking = Ticking()
            began = time.process_time()
            await group.checkpoint()
            took = time.process_time() - began
            ticking.stop()
    return {"rows": rows, "us": took / rows * 1e6, "stop_ms": ticking.longest_s * 1000}


async def crash(number: int) -> dict[str, float]:
    """A crash with 100 000 live rows: how long the next process takes to the first event, and how it catches up."""
    before = uploads(2 * SPACES_OF_LIVE_ROWS * 2, SPACES_OF_LIVE_ROWS)
    lines = list(canonical_lines(number))
    after = [
        Message(
            len(before) + at,
            b"\n".join(lines[at * PER_MESSAGE : (at + 1) * PER_MESSAGE]),
            NDJSON,
            f"late-{at}",
            ENDS_MS,
        )
        for at in range(number // PER_MESSAGE)
    ]
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-") as name:
        folder = Path(name)
        async with running(folder, before) as flow:
            await reached(flow, len(before) - 1)
            (group,) = flow.groups
            await group.checkpoint()
        database = Database(folder / "eventsink.db", schema=SCHEMA)
        await database.open()
        rows = await database.read(
            lambda connection: connection.execute("SELECT count(*) FROM rows").fetchone()[0]
        )
        # As a crash leaves them: every value is still owed to the sink.
        await database.write(
            lambda connection: connection.execute("UPDATE rows SET owed = 1 WHERE kind LIKE '%/1_'")
        )
        await database.close()
        began, began_cpu = time.monotonic(), time.process_time()
        async with running(folder, [*before, *after]) as flow:
            await reached(flow, len(before))
            first, first_cpu = time.monotonic() - began, time.process_time() - began_cpu
            moments = []
            for part in range(1, 5):
                began_cpu = time.process_time()
                await reached(flow, len(before) + len(after) * part // 4 - 1)
                moments.append(time.process_time() - began_cpu)
    return {
        "rows": rows,
        "first_s": first,
        "first_cpu_s": first_cpu,
        "us_first_quarter": moments[0] / number * 4e6,
        "us_last_quarter": moments[3] / number * 4e6,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _in_a_process(case: str, number: int) -> dict[str, float]:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.limits", case, str(number)], stdout=subprocess.PIPE, check=True
    )
    measured: dict[str, float] = json.loads(ended.stdout)
    return measured


def main() -> None:
    """Measure and print."""
    print("uploads into so many spaces, all in one minute, three windows each:")
    first = 0.0
    for number in KEYS:
        got = _in_a_process("keys", number)
        first = first or got["us"]
        print(
            f"{number:8} keys {got['us']:7.1f} µs CPU an event ({got['us'] / first:.2f} of 100 keys), quarters "
            f"{got['us_first_quarter']:.1f} → {got['us_last_quarter']:.1f}, {got['mib']:4.0f} MiB at most, the loop "
            f"stopped for {got['stop_ms']:.0f} ms of CPU at most"
        )
    got = _in_a_process("checkpoint", SPACES_IN_A_CHECKPOINT)
    print(
        f"a checkpoint of {got['rows']:.0f} rows: {got['us']:.0f} µs CPU a row, the loop stopped for "
        f"{got['stop_ms']:.0f} ms of CPU at most"
    )
    got = _in_a_process("crash", CATCHING_UP)
    print(
        f"after a crash with {got['rows']:.0f} rows, all owed: {got['first_s']:.2f} s ({got['first_cpu_s']:.2f} s CPU) "
        f"to the first event; {CATCHING_UP} events to catch up: {got['us_first_quarter']:.1f} µs CPU an event in the "
        f"first quarter, {got['us_last_quarter']:.1f} in the last, {got['mib']:.0f} MiB at most"
    )


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    case = {"keys": keys, "checkpoint": checkpoint, "crash": crash}[sys.argv[1]]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(case(int(sys.argv[2])))))
