"""The whole embedded engine in one process, as tests drive it: real log, real Faust, real stores, a clock by hand."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from yarl import URL

from agents import AGENTS, ROLLUPS
from schemas.canonical import canonical
from schemas.events import Event
from tests.oracle import WINDOWS_MS, Rollups
from tests.topology.by_hand import Bare, LogByHand, Patience
from tests.topology.stores import Stores, opened
from topology.flow import Flow
from topology.group.delivery import Delivery
from topology.group.groups import Group
from topology.group.reading import ALLOWED_DISORDER_MS
from topology.log import JSON, NDJSON, Outgoing
from topology.parts import GroupParts
from topology.position import place

NOW_MS = 1_795_467_600_000


class Engine:
    """``parts`` may be replaced before ``start`` by ones that fail on order.

    ``by_hand``: nothing happens by itself: the log is quiet, and the watermark follows the clock, when the test says so
    (``quiet``), and the agents of ``groups`` alone are driven, without Faust, which costs 0.1 s to start and stop.
    ``parts``: further members of ``GroupParts``.
    """

    def __init__(
        self,
        stores: Stores,
        *,
        keep: timedelta = timedelta(days=36500),
        by_hand: bool = False,
        groups: Sequence[str] = ("rollups",),
        **parts: Any,
    ) -> None:
        self.stores = stores
        self.now_ms = NOW_MS
        self._by_hand = [agent for agent in AGENTS if agent.group in groups] if by_hand else None
        self._patience = Patience()
        self.parts = GroupParts(
            log=stores.log,
            store=stores.state,
            rollup_sink=stores.rollups,
            raw_events=stores.raw_events,
            dead_letters=stores.dead_letters,
            metrics=stores.metrics,
            outages=stores.outages,
            clock_ms=lambda: self.now_ms,
            # Checkpoints are called by the test; the timer of a year never comes.
            checkpoint_every=timedelta(days=365),
            keep=keep,
            **parts,
        )
        if by_hand:
            log: Any = LogByHand(stores.log, self._patience)
            self.parts = dataclasses.replace(self.parts, log=log)
        self.flow: Flow | Bare | None = None

    async def start(self) -> None:
        if self._by_hand is None:
            self.flow = Flow(URL("sqlite:///unused"), AGENTS, self.parts)
        else:
            self.flow = Bare(self._by_hand, self.parts)
        self.stores.at_end.append(self.crash)  # a test that fails leaves nothing running
        await self.flow.start()

    @property
    def groups(self) -> Sequence[Group]:
        assert self.flow is not None
        return self.flow.groups

    async def folded(self) -> None:
        """Wait until every agent has folded everything that is in the log, and no longer."""
        end = await self.stores.log.end_offset()
        while not all(
            end == 0 or (position >= 0 and place(position).offset == end - 1)
            for group in self.groups
            for position in group.reading.positions.values()
        ):
            await asyncio.sleep(0.001)

    async def quiet(self) -> None:
        """Nothing came for a while, so the watermark follows the clock. Only by hand, with everything folded."""
        await self.folded()
        while not all(
            watermark is not None and watermark >= self.now_ms - ALLOWED_DISORDER_MS
            for watermark in (group.reading.watermark for group in self.groups)
        ):
            self._patience.over()  # again and again: a reader that is being opened has not waited yet
            await asyncio.sleep(0.001)

    async def delivered(self) -> None:
        """Wait until the sink has every value that is due as of the last checkpoint."""
        while not all(group._delivery is None or _rests(group._delivery) for group in self.groups):
            await asyncio.sleep(0.001)

    async def looked_at(self) -> None:
        """How far the agents are is exported."""
        if isinstance(self.flow, Flow):
            await self.flow.health.look()

    async def tick(self) -> None:
        """Let the others work for a moment."""
        await asyncio.sleep(0.001)

    async def checkpoint(self) -> None:
        for group in self.groups:
            await group.checkpoint()

    async def stop(self) -> None:
        assert self.flow is not None
        await self.flow.stop()

    async def crash(self) -> None:
        """End without saving anything: what a kill leaves behind."""
        self.give_up()
        if self.flow is not None:
            await self.flow.stop()

    def give_up(self) -> None:
        """From here on nothing is saved any more."""
        if self.flow is not None:
            for group in self.flow.groups:
                group.fail(RuntimeError("killed by the test"))


async def publish(stores: Stores, events: Iterable[Mapping[str, Any]]) -> None:
    """Append events as a foreign producer does: one a message, nothing stamped."""
    await stores.log.publish([Outgoing(json.dumps(event).encode(), JSON, None, None) for event in events])


async def unsynced(stores: Stores) -> None:
    """Let these stores not wait for the disk: whoever dies in a test does not take the machine along."""
    await stores.log._database.read(lambda connection: connection.execute("PRAGMA synchronous = OFF"))


async def publish_batches(stores: Stores, batches: Sequence[Sequence[Event]]) -> None:
    """Append canonical events as the web application does, a batch a message, but for the stamp."""
    messages = []
    for events in batches:
        bodies = [canonical(event, time_ms=event.time or 0) for event in events]
        content_type = JSON if len(bodies) == 1 else NDJSON
        messages.append(Outgoing(b"\n".join(bodies), content_type, None, None))
    await stores.log.publish(messages)


def _rests(delivery: Delivery) -> bool:
    return not delivery._wake.is_set()  # it sleeps only when nothing is left, in its hands or in the store


async def every_rollup(stores: Stores) -> Rollups:
    """Everything that the sink holds."""
    return {(name, window): await rollup(stores, name, window) for name in ROLLUPS for window in WINDOWS_MS}


async def rollup(stores: Stores, name: str, window: str) -> dict[tuple[int, tuple[str, ...]], dict[str, Any]]:
    """What the sink holds: fields by window start and tag values."""
    points = await stores.rollups.query(name, window, since=None, until=None, where={}, limit=100_000)
    return {(point.time, tuple(value for _, value in point.tags)): dict(point.fields) for point in points}


@asynccontextmanager
async def started(folder: Path, **options: Any) -> AsyncIterator[Engine]:
    """An engine that runs; stopped at the end."""
    async with opened(folder) as stores:
        engine = Engine(stores, **options)
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()
