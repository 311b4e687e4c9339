"""What an event costs between the log and the rows: the real flow and the agents of the group `rollups`, three windows
each, checkpoints on, rows and points in SQLite. The log is a list of messages, so that no broker's cost is in it.

    python -m bench.folding [EVENTS]
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import uvloop
from prometheus_client import CollectorRegistry
from yarl import URL

from agents import AGENTS
from bench.load import LENGTH, START, canonical_events, lines
from cli.parts import SCHEMA
from schemas.times import EPOCH
from topology.flow import Flow, agents_of
from topology.log import JSON, NDJSON, LogStart, Message, Outgoing
from topology.metrics import Metrics
from topology.outages import Outages
from topology.parts import GroupParts
from topology.position import position
from topology.sqlite.events import SqliteDeadLetters, SqliteRawEvents
from topology.sqlite.file import Database
from topology.sqlite.rollups import SqliteRollups
from topology.sqlite.state import SqliteState

PER_MESSAGE = 100
#: Six hours in this time are 31 000 events a second: a minute's row takes many, as when so many really come. In the
#: history of a small installation, replayed as it was, most rows of a minute take one or two.
BUSY = timedelta(seconds=0.1)
#: A broker's reader hands out what its prefetch allows.
MOST_AT_ONCE = 500


ENDS_MS = (START + LENGTH - EPOCH) // timedelta(milliseconds=1)


class ListLog:
    """A log that holds these messages and takes no others."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        #: When reading began: clock and CPU. What starts before that is paid once.
        self.began = 0.0, 0.0

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """It takes none."""
        raise NotImplementedError

    async def reader(self, offset: int) -> ListReader:
        """A reader from ``offset`` on."""
        self.began = time.monotonic(), time.process_time()
        return ListReader(self.messages, offset)

    async def message_at(self, offset: int) -> Message | None:
        """The message there."""
        return self.messages[offset] if offset < len(self.messages) else None

    async def first_offset(self) -> int | None:
        """Always 0."""
        return 0

    async def offset_since(self, start: LogStart) -> int:
        """From the first one on."""
        return 0

    async def end_offset(self) -> int:
        """How many there are."""
        return len(self.messages)


class ListReader:
    """Hands out what is there."""

    def __init__(self, messages: Sequence[Message], at: int) -> None:
        self._messages = messages
        self._at = at

    async def fetch(self, *, limit: int, max_bytes: int, timeout: timedelta) -> Sequence[Message]:
        """As ``LogReader.fetch``."""
        await asyncio.sleep(0)
        taken: list[Message] = []
        size = 0
        while self._at < len(self._messages) and len(taken) < min(limit, MOST_AT_ONCE):
            size += len(self._messages[self._at].body)
            if taken and size > max_bytes:
                break
            taken.append(self._messages[self._at])
            self._at += 1
        if not taken:
            await asyncio.sleep(0.05)
        return taken

    @property
    def cut(self) -> int:
        """Nothing is."""
        return 0

    async def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._messages)

    async def close(self) -> None:
        """Nothing to do."""


async def folded(messages: Sequence[Message]) -> tuple[float, float]:
    """Seconds, and seconds of CPU, until every agent has folded all of it and it is saved."""
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-") as folder:
        database = Database(Path(folder) / "eventsink.db", schema=SCHEMA)
        await database.open()
        log = ListLog(messages)
        flow = Flow(
            URL("sqlite:///unused"),
            agents_of(AGENTS, ["rollups"]),
            GroupParts(
                log=log,
                store=SqliteState(database),
                rollup_sink=SqliteRollups(database),
                raw_events=SqliteRawEvents(database),
                dead_letters=SqliteDeadLetters(database),
                metrics=Metrics(CollectorRegistry()),
                outages=Outages(),
                # The clock stands where the sample ends: after it a service that says nothing has a row each minute.
                clock_ms=lambda: ENDS_MS,
                checkpoint_every=timedelta(seconds=1),
                keep=timedelta(days=36500),
            ),
        )
        await flow.start()
        (group,) = flow.groups
        while min(group.reading.positions.values()) < position(0, len(messages) - 1):
            await asyncio.sleep(0.005)
        await group.checkpoint()
        began, began_cpu = log.began
        took = time.monotonic() - began, time.process_time() - began_cpu
        await flow.stop()
        await database.close()
        return took


def single(count: int, length: timedelta) -> list[Message]:
    """Clowder's: one event a message, nothing stamped."""
    return [Message(offset, line, JSON) for offset, line in enumerate(lines(count, length))]


def hundreds(count: int, length: timedelta) -> list[Message]:
    """Our own producers': canonical events, a hundred a message, stamped once, as they happened."""
    events = list(canonical_events(count, length))
    encoded = [msgspec.json.encode(event) for event in events]
    return [
        Message(
            number,
            b"\n".join(encoded[at : at + PER_MESSAGE]),
            NDJSON,
            f"message-{number}",
            max(event.time or 0 for event in events[at : at + PER_MESSAGE]),
        )
        for number, at in enumerate(range(0, count, PER_MESSAGE))
    ]


def main(count: int) -> None:
    """Measure and print."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    for name, made in (("single", single), ("hundreds", hundreds)):
        for life, length in (("live", BUSY), ("replayed", LENGTH)):
            messages = made(count, length)
            for _ in range(2):
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    took, cpu = runner.run(folded(messages))
                print(
                    f"{name:9} {life:9} {count / took:9.0f} events/s  {cpu / count * 1e6:6.2f} µs CPU an event"
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
