"""A group: agents that share one reading of the log. Groups never wait for each other.

The group reads, its agents fold, and once a second a checkpoint saves what they did.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import msgspec

from topology.agents import Agent, Batches
from topology.batch import Batch
from topology.errors import Conflict, EventsinkError, Unavailable
from topology.forwarding.forwarder import Forwarder
from topology.forwarding.starting import started_forwarders
from topology.group.checkpoints import Checkpoints
from topology.group.delivery import SEEK_EVERY_S, Delivery
from topology.group.doubles import Doubles, DoublesTable
from topology.group.doubt import Notes
from topology.group.ids import Ids, IdTable
from topology.group.intake import FUTURE_MS, Intake
from topology.group.present_values import PresentValues
from topology.group.reading import Reading
from topology.group.rows import RowCache, Table
from topology.group.whereabouts import Whereabouts
from topology.log import LogReader, LogReplaced
from topology.metrics import OUTCOMES, WRITTEN
from topology.parts import GroupParts
from topology.position import Position
from topology.progress import Standing
from topology.rebuild.rebuilding import Rebuilding
from topology.rebuild.recomputing import Owner
from topology.rollups.operators import Kind, Scope, kinds
from topology.state import GroupState, RowKey
from topology.views import View

log = logging.getLogger(__name__)

T = TypeVar("T")

#: One micro-batch: enough to make the cost of a batch vanish, little enough to fold in tens of milliseconds.
MOST_MESSAGES = 2000
MOST_BYTES = 256 << 10
#: Also how soon a quiet log moves the watermark.
FETCH_TIMEOUT = timedelta(seconds=1)
#: A stop does not wait longer for a store that is away: what is not saved is read again.
LAST_CHECKPOINT_S = 2.5
LOOK_FOR_REQUESTS_EVERY_S = 1.0
#: How long a rebuild waits for a sink that answers, before it says that it is done.
REBUILT_PATIENCE_S = 60.0


class Group:
    """``start``, then let Faust pull ``read`` and push each agent's stream through ``batches``.

    ``failed`` is done, with the error, when the process must stop: another worker owns the group.
    """

    def __init__(self, name: str, agents: Sequence[Agent], parts: GroupParts) -> None:
        self.name = name
        self.agents: Mapping[str, Agent] = {agent.name: agent for agent in agents}
        #: A rebuild is nothing that the agents wait for, but for the turn that it has.
        self._rebuilding_parts = parts
        self._parts = parts = replace(parts, outages=parts.outages.part())
        self._ids_table = f"ids/{name}"
        self._doubles_table = f"doubles/{name}"
        self._rollups = [rollup for agent in agents for rollup in agent.rollups]
        self._kinds: dict[str, Kind] = {
            table: kind for rollup in self._rollups for table, kind in kinds(rollup).items()
        }
        self._tables: dict[str, Table] = {
            self._ids_table: IdTable(),
            self._doubles_table: DoublesTable(),
            **{name: kind.table for name, kind in self._kinds.items()},
        }
        self._owing = {name: kind.table for name, kind in self._kinds.items() if kind.owes}
        self._generation = 0
        self._versions: Iterator[int] = itertools.count(1)
        self._reading: Reading | None = None
        self._readings = 0
        self._delivery: Delivery | None = None
        self._checkpoints: Checkpoints | None = None
        self._forwarders: dict[str, Forwarder] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._whereabouts = Whereabouts(name, parts, self._save_beginning)
        #: One at a time; and a stop lets the one in hand come to its end: a write that was cut off may happen
        #: all the same, and the rows would then look as if another worker had written them.
        self._checkpointing = asyncio.Lock()
        #: Held by an agent while it has a batch in hand, and by a rebuild of its rows.
        self._turns = {agent.name: asyncio.Lock() for agent in agents}
        self._in_hand: set[str] = set()
        #: What runs each agent's body.
        self._tasks_of: dict[str, asyncio.Task[object] | None] = {}
        self.failed: asyncio.Future[None] | None = None

    # -- life --

    async def start(self) -> None:
        """Take the next generation, load the saved positions, begin to save and to deliver."""
        parts = self._parts
        self.failed = asyncio.get_running_loop().create_future()
        saved = await parts.store.begin(self.name)
        self._generation = saved.generation
        self._versions = itertools.count(saved.generation << 40 | 1)
        self._open_reading(saved)
        if self._rollups:
            self._delivery = Delivery(
                parts.rollup_sink,
                parts.store,
                self._settle,
                self._owing,
                PresentValues(self._kinds, lambda: self.reading, self._owned),
                Notes(self.name, parts.store, parts.outages, parts.clock_ms),
                dead_letters=parts.dead_letters,
                outages=parts.outages,
                metrics=parts.metrics,
                clock_ms=parts.clock_ms,
                sleep=parts.sleep,
            )
            self._spawn(self._delivery.run)
            self._spawn(self._seek_for_ever)
            self._spawn(self._rebuild_for_ever)
        self._forwarders = await started_forwarders(
            self.name, self.agents, saved.generation, parts, self.fail
        )
        checkpoints = Checkpoints(
            self.name,
            saved,
            (self._ids_table, self._doubles_table),
            self._kinds,
            self._delivery,
            parts,
        )
        self._checkpoints = checkpoints
        self._spawn(self._checkpoint_for_ever)
        for agent in self.agents:
            self._show(agent)
            parts.metrics.checkpoint_age_seconds(agent=agent).set_function(lambda: checkpoints.age_ms / 1000)

    async def stop(self) -> None:
        """Save what is folded, once, without waiting for anything that is away; idempotent.

        Call it after the agents have stopped.
        """
        forwarders, self._forwarders = self._forwarders, {}
        for forwarder in forwarders.values():
            await forwarder.stop()
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        if self.failed is not None and not self.failed.done():
            try:
                async with asyncio.timeout(LAST_CHECKPOINT_S):
                    await self.checkpoint()
            except (EventsinkError, TimeoutError) as error:
                log.warning(
                    "group %s ends without its last checkpoint and reads again from the one before: %s",
                    self.name,
                    str(error) or "the store is away",
                )
        await _ended(*tasks)
        if self._delivery is not None:
            with suppress(TimeoutError):  # a store that is away is told of elsewhere
                async with asyncio.timeout(LAST_CHECKPOINT_S):
                    await self._delivery.end()
        for agent in self.agents:
            self._parts.metrics.agent_up(agent=agent).set(0)

    def _show(self, agent: str) -> None:
        """Export what is counted as 0 from the start: Prometheus sees no rise in what was not there before."""
        metrics = self._parts.metrics
        metrics.agent_up(agent=agent).set(1)
        metrics.agent_stuck(agent=agent).set(0)
        metrics.ledger_imbalance_events(agent=agent)
        metrics.events_received(group=self.name)
        metrics.log_messages_cut(group=self.name)
        metrics.group_buffer_full(group=self.name)
        for outcome in OUTCOMES:
            metrics.events(group=self.name, agent=agent, outcome=outcome)
        for rollup in self.agents[agent].rollups:
            for tag in filter(None, rollup.budgeted):
                metrics.keys_over_budget(rollup=rollup.name, tag=tag)
        if self._delivery is not None:
            for written in WRITTEN:
                metrics.sink_writes(sink=self._parts.rollup_sink.name, outcome=written)

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - handed on: whoever runs the process stops it
                self.fail(error)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.append(task)
        return task

    def fail(self, error: BaseException) -> None:
        """The process cannot go on with this group; the first reason counts."""
        if self.failed is not None and not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()  # seen: asyncio is not to complain when the process ends by itself

    def _open_reading(self, saved: GroupState) -> None:
        parts = self._parts
        self._readings += 1
        rows = RowCache(
            parts.store,
            self._tables,
            owing=self._owing,
            versions=self._versions,
            max_bytes=parts.cache_bytes,
            outages=parts.outages,
        )
        ids = Ids(rows, self._ids_table)
        intake = Intake(
            self.name,
            ids,
            parts.store,
            parts.dead_letters,
            outages=parts.outages,
            metrics=parts.metrics,
            clock_ms=parts.clock_ms,
            # The archive keeps what came, as it came.
            doubles=Doubles(rows, self._doubles_table)
            if parts.doubled_downloads_once and self._rollups
            else None,
        )
        reading = Reading(self._readings, saved, self.agents, rows, ids, intake)
        reading.operate(
            self._rollups,
            Scope(
                rows=rows,
                horizon=lambda: reading.horizon,
                watermark=lambda: reading.watermark,
                told_ms=reading.told_ms,
                key_budget=parts.key_budget,
                over_budget=lambda rollup, tag: parts.metrics.keys_over_budget(rollup=rollup, tag=tag).inc(),
            ),
        )
        self._reading = reading

    @property
    def reading(self) -> Reading:
        """The present reading. Only after ``start``."""
        return self._started(self._reading)

    def _started(self, part: T | None) -> T:
        if part is None:
            raise RuntimeError(f"group {self.name} was not started")
        return part

    # -- reading --

    async def read(self) -> AsyncIterator[Batch]:
        """Batches without end, each event from the lowest saved position on; survives every outage.

        When rows were written by another worker, reading starts over at the saved positions.
        """
        while True:
            reading = self.reading
            try:
                async for batch in self._read_on(reading):
                    yield batch
            except LogReplaced:
                log.info("group %s reopens the log", self.name)

    async def _read_on(self, reading: Reading) -> AsyncIterator[Batch]:
        outages = self._parts.outages
        reader, epoch = await outages.ridden_out("log", lambda: self._opened(reading))
        counted = 0
        try:
            while reading is self._reading:
                messages = await outages.ridden_out(
                    "log",
                    lambda: reader.fetch(limit=MOST_MESSAGES, max_bytes=MOST_BYTES, timeout=FETCH_TIMEOUT),
                )
                if reader.cut > counted:
                    self._parts.metrics.log_messages_cut(group=self.name).inc(reader.cut - counted)
                    counted = reader.cut
                if not messages:
                    await self._quiet(reading, reader)
                    continue
                batch = await reading.intake.admit(messages, epoch=epoch, reading=reading.number)
                reading.handed(batch.last, batch.digest, messages=len(messages), events=batch.received)
                yield batch
        finally:
            await reader.close()

    async def _opened(self, reading: Reading) -> tuple[LogReader, int]:
        """A reader at the right place, and the epoch of its log. Looked up anew in every try, and once more when
        the reader is open: the log may have been replaced in between."""
        epoch, offset = await self._whereabouts.of(reading)
        reader = await self._parts.log.reader(offset)
        try:
            if await self._whereabouts.of(reading) != (epoch, offset):
                raise LogReplaced
        except BaseException:
            await reader.close()
            raise
        return reader, epoch

    async def _save_beginning(self, reading: Reading) -> None:
        async with self._checkpointing:
            await self._started(self._checkpoints).save_beginning(reading)

    async def _quiet(self, reading: Reading, reader: LogReader) -> None:
        """A quiet log at whose end we are moves the watermark with the clock."""
        if reading.lowest >= reading.read_up_to and await self._at_end(reader):
            for agent in self.agents:
                reading.seen(agent, self._parts.clock_ms())

    async def _at_end(self, reader: LogReader) -> bool:
        try:
            return await reader.at_end()
        except Unavailable:
            return False  # not confirmed; the next fetch finds out and says so

    # -- agents --

    async def batches(self, agent: Agent, stream: AsyncIterator[Batch]) -> Batches:
        """The batches of a Faust stream as this agent sees them. When the agent asks for the next one,
        what it did with the last one counts as done."""
        self._tasks_of[agent.name] = asyncio.current_task()
        async for batch in stream:
            async with self._turns[agent.name]:
                reading = self.reading
                if batch.reading != reading.number:
                    continue
                view = View(agent, batch, reading, self._parts, self._forwarders.get(agent.name))
                self._in_hand.add(agent.name)
                try:
                    yield view
                finally:
                    self._in_hand.discard(agent.name)
                settled = partial(self._settled, agent.name, view, batch.last, batch.latest_ms, reading)
                if view.consignment is None:
                    settled()
                else:
                    view.consignment.then(settled)

    def _settled(
        self, agent: str, view: View, last: Position, latest_ms: int | None, reading: Reading
    ) -> None:
        """Takes no batch: where events are forwarded it may be called long after."""
        view.count(self.name)
        if latest_ms is not None:
            # A stamp of somebody else's may lie in the future: nothing has passed that is yet to come.
            reading.seen(agent, min(latest_ms, self._parts.clock_ms() + FUTURE_MS))
        reading.done(agent, last, events=view.received)

    # -- checkpoints --

    async def _checkpoint_for_ever(self) -> None:
        while True:
            await self._parts.sleep(self._parts.checkpoint_every.total_seconds())
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Save what the agents did. Raises ``Superseded`` when another worker owns the group."""
        async with self._checkpointing:
            reading = self.reading
            try:
                await self._started(self._checkpoints).save(reading)
            except Conflict as conflict:
                await self._start_over(conflict)
            else:
                self._measure(reading)

    async def _start_over(self, conflict: Conflict) -> None:
        """Rows changed under us: what was folded on top of them is void, so read again from what is saved.

        Raises ``Superseded`` where it is we who are to stop."""
        await self._started(self._checkpoints).owned()
        log.warning("group %s reads again from its saved positions, nothing is lost: %s", self.name, conflict)
        store = self._parts.store
        saved = await self._parts.outages.ridden_out("state", lambda: store.read_group(self.name))
        if saved is not None and saved.told_ms is not None and self.reading.told_ms is not None:
            # What is to be told again is not forgotten.
            saved = msgspec.structs.replace(saved, told_ms=min(saved.told_ms, self.reading.told_ms))
        self.seek_owed()  # rows that were saved before the conflict was met are owed, and were not offered
        self.reading.rows.abandon()
        self._open_reading(saved or GroupState(generation=self._generation))

    def _settle(self, settled: Sequence[tuple[RowKey, int]]) -> None:
        self.reading.rows.settle(settled)

    def seek_owed(self) -> None:
        """Look for owed rows that nobody brought; done at start and every minute."""
        if self._delivery is not None:
            self._delivery.seek()

    async def _seek_for_ever(self) -> None:
        while True:
            await self._parts.sleep(SEEK_EVERY_S)
            self.seek_owed()

    # -- rebuilding --

    async def _rebuild_for_ever(self) -> None:
        rebuilding = Rebuilding(
            Owner(
                name=self.name,
                generation=self._generation,
                agents={
                    rollup.name: agent.name for agent in self.agents.values() for rollup in agent.rollups
                },
                rollups={rollup.name: rollup for rollup in self._rollups},
                doubles_table=self._doubles_table,
                reading=lambda: self.reading,
                turn=lambda agent: self._turns[agent],
                checkpoint=self.checkpoint,
                delivered=lambda: self._started(self._delivery).delivered(REBUILT_PATIENCE_S),
            ),
            self._rebuilding_parts,
        )
        while True:
            await rebuilding.carry_out_all()
            await self._parts.sleep(LOOK_FOR_REQUESTS_EVERY_S)

    async def _owned(self) -> bool:
        """Whether no other worker has taken over."""
        store = self._parts.store
        taken = await self._parts.outages.ridden_out("state", lambda: store.generation(self.name))
        return taken == self._generation

    # -- health --

    def _measure(self, reading: Reading) -> None:
        if reading.watermark is not None:
            for agent in self.agents:
                self._parts.metrics.watermark_seconds(agent=agent).set(reading.watermark / 1000)

    def measure_lag(self, end: int) -> None:
        """Export how far each agent is behind a log whose next message gets the offset ``end``."""
        reading = self._reading
        if reading is None:
            return
        for agent in self.agents:
            behind = reading.lag(agent, end)
            newest = reading.newest(agent) if behind else None
            seconds = 0.0 if newest is None else max(0.0, (self._parts.clock_ms() - newest) / 1000)
            self._parts.metrics.agent_lag_events(agent=agent).set(behind)
            self._parts.metrics.agent_lag_seconds(agent=agent).set(seconds)

    def standing_of(self, agent: str, end: int | None) -> Standing:
        """How far the agent is, for whoever watches whether it gets on. ``end``: of the log, None where unknown. What
        is away excuses it where its own group waits for that."""
        reading = self.reading
        forwarder = self._forwarders.get(agent)
        rebuilding = agent not in self._in_hand and self._turns[agent].locked()
        return Standing(
            reached=(reading.number, reading.positions[agent], 0 if forwarder is None else forwarder.answers),
            behind=reading.handed_up_to > reading.positions[agent]
            or (end is not None and reading.lag(agent, end) > 0),
            excused=bool(self._parts.outages.away)
            or rebuilding
            or (forwarder is not None and forwarder.waits),
            task=self._tasks_of.get(agent),
        )

    @property
    def sink_away(self) -> str | None:
        """What the rollup sink said when it did not take a write, None while it does."""
        return None if self._delivery is None else self._delivery.away

    @property
    def stopped(self) -> Mapping[str, str]:
        """Agents whose vendor takes nothing until somebody mends something, and what."""
        reasons = {agent: forwarder.stopped for agent, forwarder in self._forwarders.items()}
        return {agent: reason for agent, reason in reasons.items() if reason is not None}


async def _ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
