"""The whole pipeline on a broker, in this process, kept busy while something happens to the broker. It can say at
any time what its numbers must be, by arithmetic of its own.

    feed ──▶ RabbitLog.publish ──▶ exchange, stream ──▶ Flow: rollups, archive ──▶ SQLite
     │            again, the very same messages, while it says Unavailable             │
     └───────────────────────── totals(what was published) ════════════════════════════┘
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any

from yarl import URL

from agents import AGENTS
from tests.topology.engine import rollup
from tests.topology.stores import Stores
from topology.errors import Unavailable
from topology.flow import Flow
from topology.log import JSON, NDJSON, Message, Outgoing
from topology.outages import Outages
from topology.parts import GroupParts
from topology.position import place
from topology.rabbitmq.log import RabbitLog
from topology.uuid7 import uuid7

#: One minute before a day of 2025 begins, so that soon there are two days, and many minutes.
FIRST_MS = 1_751_327_940_000
BETWEEN_EVENTS_MS = 250
SPACES = 7
#: Windows in seconds, as the contract has them.
WINDOWS = {"1m": 60, "1h": 3600, "1d": 86_400}
#: Of each turn of the feed so many events travel alone, and as many in one message.
ALONE, TOGETHER = 10, 10
BETWEEN_TURNS_S = 0.02
#: Published and counted before a fault, and again after it: so many that every part is at work.
SOME_EVENTS = 200
PATIENCE_S = 150.0
GROUPS = ("rollups", "archive")

Rollup = dict[tuple[int, tuple[str, ...]], dict[str, int]]


def event(number: int) -> dict[str, Any]:
    """The event of this number: one file more or less in one of the spaces."""
    made: dict[str, Any] = {
        "type": "storage.file_deleted" if number % 5 == 0 else "storage.file_uploaded",
        "time": FIRST_MS + number * BETWEEN_EVENTS_MS,
        "file_id": str(number),
        "space_id": f"space-{number % SPACES}",
        "bytes": number * number + 1,
    }
    if number % 2:
        made |= {"source": "test", "id": f"own-{number}"}  # the others have only the id of their message
    return made


def totals(numbers: Collection[int], window_s: int) -> Rollup:
    """What ``space_storage`` must be after these events."""
    sums: Rollup = defaultdict(
        lambda: {"bytes_added": 0, "bytes_removed": 0, "files_added": 0, "files_removed": 0}
    )
    for number in numbers:
        seconds = (FIRST_MS + number * BETWEEN_EVENTS_MS) // 1000
        fields = sums[seconds - seconds % window_s, (f"space-{number % SPACES}",)]
        what = "removed" if number % 5 == 0 else "added"
        fields[f"bytes_{what}"] += number * number + 1
        fields[f"files_{what}"] += 1
    return dict(sums)


def numbers_in(messages: Sequence[Message]) -> list[int]:
    """Which events these messages hold."""
    return [int(json.loads(line)["file_id"]) for message in messages for line in message.body.splitlines()]


class Pipeline:
    """``start`` it; let things happen; ``comes_out_exact``. ``log`` is open, and closed by the caller."""

    def __init__(self, log: RabbitLog, stores: Stores) -> None:
        self.log = log
        self.stores = stores
        self.flow = self._new_flow()
        #: Numbers of the events of which the log said that they are durable.
        self.published: list[int] = []
        #: What the log said each time that it was not certain.
        self.refusals: list[str] = []
        self._numbers = itertools.count()
        self._enough = False
        self._feeding: asyncio.Task[None] | None = None

    # -- life --

    async def start(self) -> None:
        """Start agents and feed; returns when events come out at the other end."""
        await self.flow.start()
        self.feed()
        await self.goes_on()

    def feed(self) -> None:
        """Publish without end."""
        self._enough = False
        self._feeding = asyncio.create_task(self._feed())

    async def feed_no_more(self) -> None:
        """Come to the end of what is being published."""
        self._enough = True
        if self._feeding is not None:
            async with asyncio.timeout(PATIENCE_S):
                await self._feeding

    async def restart_agents(self) -> None:
        """As a process that ends and starts again."""
        await self.flow.stop()
        self.flow = self._new_flow()
        await self.flow.start()

    async def end(self) -> None:
        """Stop everything; idempotent."""
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)
        await self.flow.stop()

    # -- the feed --

    async def publish(self, count: int = ALONE + TOGETHER) -> None:
        """The next events, in one call, again and again until the log has them."""
        numbers = list(itertools.islice(self._numbers, count))
        messages = list(_messages(numbers))
        while True:
            try:
                await self.log.publish(messages)
            except Unavailable as error:
                self.refusals.append(str(error))
                await asyncio.sleep(BETWEEN_TURNS_S)
            else:
                self.published += numbers
                return

    async def _feed(self) -> None:
        while not self._enough:
            await self.publish()
            await asyncio.sleep(BETWEEN_TURNS_S)

    # -- what comes out --

    async def goes_on(self) -> None:
        """Returns when events that are published from now on have been counted."""
        wanted = len(self.published) + SOME_EVENTS

        async def counted() -> bool:
            return len(self.published) >= wanted and await self._counted() >= wanted

        await self.until(counted)

    async def rests(self) -> None:
        """Returns when everything that the log has is counted and saved. Not while the feed feeds."""

        async def counted() -> bool:
            return await self._counted() >= len(self.published) and await self._at_rest()

        await self.until(counted)

    async def comes_out_exact(self, lost: Collection[int] = ()) -> None:
        """End the feed, and prove that every event published, but for those ``lost``, is in the numbers and in the
        archive, and is there once."""
        await self.feed_no_more()
        numbers = sorted(set(self.published) - set(lost))
        want = {window: totals(numbers, size) for window, size in WINDOWS.items()}

        async def all_there() -> bool:
            return await self._counted() >= len(numbers) and await self._at_rest()

        try:
            await self.until(all_there)
        finally:
            # Compared in any case: the difference says more than "in time".
            for window, rows in want.items():
                assert await rollup(self.stores, "space_storage", window) == rows
        archived = await self.stores.raw_events.query(since=None, until=None, type=None, limit=1_000_000)
        assert Counter(int(json.loads(raw.event)["file_id"]) for raw in archived) == Counter(numbers)
        assert await self.stores.dead_letters.count() == 0
        for agent in (agent for group in self.flow.groups for agent in group.agents):
            assert self.metric("eventsink_ledger_imbalance_events", agent=agent) in (None, 0)

    async def until(self, holds: Callable[[], Awaitable[bool]], limit_s: float = PATIENCE_S) -> None:
        """Wait, unless the agents fail meanwhile."""
        failed = self.flow.failed
        assert failed is not None
        async with asyncio.timeout(limit_s):
            while not await holds():
                if failed.done():
                    failed.result()
                await asyncio.sleep(0.02)

    async def _counted(self) -> int:
        """How many events are in the days that the sink has."""
        days = await rollup(self.stores, "space_storage", "1d")
        return sum(fields["files_added"] + fields["files_removed"] for fields in days.values())

    async def _at_rest(self) -> bool:
        """Whether the agents have read the log to its end, and everything that follows is saved and written."""
        end = await self.log.end_offset() - 1
        epoch = await self.stores.state.epoch()
        positions = [at for group in self.flow.groups for at in group.reading.positions.values()]
        if any(at < 0 or (place(at).epoch, place(at).offset) < (epoch, end) for at in positions):
            return False
        for group in self.flow.groups:
            await group.checkpoint()
        return self.metric("eventsink_sink_pending", sink=self.stores.rollups.name) == 0

    def metric(self, name: str, **labels: str) -> float | None:
        """What is exported, None if it never was."""
        return self.stores.registry.get_sample_value(name, labels)

    def _new_flow(self) -> Flow:
        stores = self.stores
        return Flow(
            URL("amqp://unused/"),
            AGENTS,
            GroupParts(
                log=self.log,
                store=stores.state,
                rollup_sink=stores.rollups,
                raw_events=stores.raw_events,
                dead_letters=stores.dead_letters,
                metrics=stores.metrics,
                outages=Outages(),
                clock_ms=lambda: time.time_ns() // 1_000_000,
                # Often, so that faults fall between the steps of one.
                checkpoint_every=timedelta(seconds=0.2),
                keep=timedelta(days=36_500),
            ),
        )


def _messages(numbers: Sequence[int]) -> Iterator[Outgoing]:
    """Each stamped once, as our own producers do: so that to publish it again is harmless."""
    bodies = [json.dumps(event(number)).encode() for number in numbers]
    now_ms = time.time_ns() // 1_000_000
    for body in bodies[:ALONE]:
        yield Outgoing(body, JSON, uuid7(now_ms), now_ms)
    if bodies[ALONE:]:
        yield Outgoing(b"\n".join(bodies[ALONE:]), NDJSON, uuid7(now_ms), now_ms)
