"""A group: agents that share one reading of the log. Groups never wait for each other.

The group reads, its agents fold, and once a second a checkpoint saves what they did, in this order
(ARCHITECTURE: nothing lost, nothing twice):

    1  arrivals (already, by the intake), then ids, then changed rows, to the store
    2  the values of those rows to the sink; what a sink that is away does not take stays owed
    3  each agent's position, the watermark and the digest of the last message
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from topology.agents import Agent, Batches
from topology.batch import Batch
from topology.delivery import SEEK_EVERY_S, Delivery
from topology.errors import Conflict, EventsinkError, Superseded, Unavailable
from topology.ids import Ids, IdTable
from topology.intake import Intake
from topology.log import Log, LogReader, LogReplaced
from topology.metrics import Metrics
from topology.outages import Outages
from topology.position import NOWHERE, place
from topology.reading import ALLOWED_DISORDER_MS, Reading
from topology.rollups import Rollup
from topology.rows import RowCache, Table
from topology.sinks import DeadLetters, RawEvents, RollupSink
from topology.state import GroupState, StateStore
from topology.views import View
from topology.windows import DAY

log = logging.getLogger(__name__)

#: One micro-batch: enough to make the cost of a batch vanish, little enough to fold in tens of milliseconds.
MOST_MESSAGES = 1000
MOST_BYTES = 256 << 10
#: Also how soon a quiet log moves the watermark.
FETCH_TIMEOUT = timedelta(seconds=1)
#: How long a checkpoint waits for a sink that answers, but slowly, before it saves the position.
SINK_PATIENCE_S = 2.0
#: A stop does not wait longer for a store that is away: what is not saved is read again.
LAST_CHECKPOINT_S = 4.0
#: A quiet group has nothing to save but its watermark.
QUIET_SAVE_EVERY_MS = 60_000
PURGE_EVERY_MS = 60_000
MEASURE_LAG_EVERY_MS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupParts:
    """What the composition root hands to a group. ``clock_ms`` is the wall clock, epoch milliseconds."""

    log: Log
    store: StateStore
    rollup_sink: RollupSink
    raw_events: RawEvents
    dead_letters: DeadLetters
    metrics: Metrics
    outages: Outages
    clock_ms: Callable[[], int]
    checkpoint_every: timedelta
    keep: timedelta
    cache_bytes: int = 16 << 20
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Group:
    """``start``, then let Faust pull ``read`` and push each agent's stream through ``batches``.

    ``failed`` is done, with the error, when the process must stop: another worker owns the group.
    """

    def __init__(self, name: str, agents: Sequence[Agent], parts: GroupParts) -> None:
        self.name = name
        self.agents: Mapping[str, Agent] = {agent.name: agent for agent in agents}
        self._parts = parts
        self._ids_table = f"ids/{name}"
        self._rollup_tables: dict[str, Rollup] = {
            rollup.table(window): rollup
            for agent in agents
            for rollup in agent.rollups
            for window in rollup.windows.values()
        }
        self._tables: dict[str, Table] = {self._ids_table: IdTable(), **self._rollup_tables}
        self._generation = 0
        self._versions: Iterator[int] = itertools.count(1)
        self._reading: Reading | None = None
        self._readings = 0
        self._delivery: Delivery | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._saved: GroupState | None = None
        self._saved_ms = 0
        self._checked_ms = 0
        self._purged_ms = 0
        self._lag_ms = 0
        self.failed: asyncio.Future[None] | None = None

    # -- life --

    async def start(self) -> None:
        """Take the next generation, load the saved positions, begin to save and to deliver."""
        parts = self._parts
        self.failed = asyncio.get_running_loop().create_future()
        saved = await parts.store.begin(self.name)
        self._generation = saved.generation
        self._versions = itertools.count(saved.generation << 40 | 1)
        self._checked_ms = parts.clock_ms()
        self._open_reading(saved)
        if self._rollup_tables:
            self._delivery = Delivery(
                parts.rollup_sink,
                parts.store,
                self._settle,
                self._rollup_tables,
                dead_letters=parts.dead_letters,
                outages=parts.outages,
                metrics=parts.metrics,
                clock_ms=parts.clock_ms,
                sleep=parts.sleep,
            )
            self._spawn(self._delivery.run)
            self._spawn(self._seek_owed)
        self._checkpointing = self._spawn(self._checkpoints)
        for agent in self.agents:
            parts.metrics.up(agent, running=True)

    async def stop(self) -> None:
        """Save what is folded, once, without waiting for anything that is away; idempotent.

        Call it after the agents have stopped.
        """
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        await _ended(self._checkpointing)
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
        for agent in self.agents:
            self._parts.metrics.up(agent, running=False)

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
            owing=self._rollup_tables,
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
        )
        self._saved = saved
        self._reading = Reading(self._readings, saved, self.agents, rows, ids, intake)

    @property
    def reading(self) -> Reading:
        """The present reading. Only after ``start``."""
        if self._reading is None:
            raise RuntimeError(f"group {self.name} was not started")
        return self._reading

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
        epoch, offset = await self._where(reading)
        reader = await self._parts.outages.ridden_out("log", lambda: self._parts.log.reader(offset))
        try:
            while reading is self._reading:
                messages = await self._parts.outages.ridden_out(
                    "log",
                    lambda: reader.fetch(limit=MOST_MESSAGES, max_bytes=MOST_BYTES, timeout=FETCH_TIMEOUT),
                )
                if not messages:
                    await self._quiet(reading, reader)
                    continue
                batch = await reading.intake.admit(messages, epoch=epoch, reading=reading.number)
                reading.handed(batch.last, batch.digest)
                yield batch
        finally:
            await reader.close()

    async def _where(self, reading: Reading) -> tuple[int, int]:
        """Epoch and offset to read from: after what was handed out, or the first event of a new log."""
        parts = self._parts
        read = reading.read_up_to
        if read == NOWHERE:
            return await parts.outages.ridden_out("state", parts.store.epoch), 0
        was = place(read)
        epoch, offset = was.epoch, was.offset
        found = await parts.outages.ridden_out("log", lambda: parts.log.message_at(offset))
        if found is not None and found.digest() == reading.read_digest:
            return epoch, self._resume(reading, epoch, offset)
        first = await parts.outages.ridden_out("log", parts.log.first_offset)
        if found is None and first is not None and first > offset:
            log.error(
                "the log was cut past our position: %d message(s) of group %s are gone, reading "
                "on at the first that is left; keep the log longer (EVENTSINK_LOG_MAX_AGE, _MAX_BYTES)",
                first - offset - 1,
                self.name,
            )
            return epoch, first
        epoch = await parts.outages.ridden_out("state", lambda: parts.store.raise_epoch(epoch))
        log.error(
            "the log is a new one (message %d is not what group %s read there): reading it from its first "
            "event as epoch %d; what the old log held and nobody had read is lost",
            offset,
            self.name,
            epoch,
        )
        return epoch, 0

    @staticmethod
    def _resume(reading: Reading, epoch: int, offset: int) -> int:
        """Where to go on in a log that is still the same one: the handed-out events of this reading
        stay in the agents' hands; at a start, the lowest of the agents decides."""
        if reading.begun:
            return offset + 1
        reading.begun = True
        if reading.lowest == NOWHERE:
            return 0
        lowest = place(reading.lowest)
        return lowest.offset + 1 if lowest.epoch == epoch else 0

    async def _quiet(self, reading: Reading, reader: LogReader) -> None:
        """A quiet log at whose end we are moves the watermark with the clock."""
        if reading.lowest >= reading.read_up_to and await self._at_end(reader):
            reading.seen(self._parts.clock_ms())

    async def _at_end(self, reader: LogReader) -> bool:
        try:
            return await reader.at_end()
        except Unavailable:
            return False  # not confirmed; the next fetch finds out and says so

    # -- agents --

    async def batches(self, agent: Agent, stream: AsyncIterator[Batch]) -> Batches:
        """The batches of a Faust stream as this agent sees them. When the agent asks for the next one,
        what it did with the last one counts as done."""
        async for batch in stream:
            reading = self.reading
            if batch.reading != reading.number:
                continue
            view = View(agent, batch, reading, self._parts)
            yield view
            view.count(self.name)
            if batch.events:
                reading.seen(max(event.time_ms for event in batch.events))
            reading.done(agent.name, batch.last)

    # -- checkpoints --

    async def _checkpoints(self) -> None:
        while True:
            await self._parts.sleep(self._parts.checkpoint_every.total_seconds())
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Save what the agents did. Raises ``Superseded`` when another worker owns the group.

        Waits while the store is away: then nothing is saved, and nothing lost.
        """
        parts = self._parts
        store = parts.store
        taken = await parts.outages.ridden_out("state", lambda: store.generation(self.name))
        if taken > self._generation:
            raise Superseded(
                f"another worker took over group {self.name} (generation {taken}, ours is "
                f"{self._generation}): run one worker per group; this one stops, nothing is lost"
            )
        reading = self.reading
        # Positions first: every event up to them is in rows that are unsaved now or were saved before.
        # No await until the rows are listed, so that the horizon holds for exactly the events after them.
        state = self._state(reading)
        rows = reading.rows
        ids = rows.dirty(lambda key: key.table == self._ids_table)
        others = rows.dirty(lambda key: key.table != self._ids_table)
        try:
            await rows.save(ids)  # 1
            owing = await rows.save(others)
        except Conflict as conflict:
            await self._start_over(conflict)
            return
        if self._delivery is not None:
            self._delivery.offer(owing)  # 2
            if owing:
                await self._delivery.delivered(SINK_PATIENCE_S)
        now = parts.clock_ms()
        if self._worth_saving(state, now):
            await parts.outages.ridden_out("state", lambda: store.save_group(self.name, state))  # 3
            self._saved = state
            self._saved_ms = now
        self._checked_ms = now
        if now - self._purged_ms >= PURGE_EVERY_MS:
            self._purged_ms = now
            await self._purge(reading, state)
        await self._measure(reading, now)

    def _state(self, reading: Reading) -> GroupState:
        reading.horizon = self._horizon(reading)
        highest = reading.highest
        return GroupState(
            generation=self._generation,
            positions=dict(reading.positions),
            read_up_to=highest,
            digest=reading.digests.get(highest, b""),
            watermark=reading.watermark,
            horizon=reading.horizon,
        )

    def _worth_saving(self, state: GroupState, now: int) -> bool:
        saved = self._saved
        return (
            saved is None
            or state.positions != saved.positions
            or state.horizon != saved.horizon
            or now - self._saved_ms >= QUIET_SAVE_EVERY_MS
        )

    def _horizon(self, reading: Reading) -> int | None:
        """What lies this far behind the clock and the watermark is purged; it never moves back."""
        if reading.watermark is None:
            return reading.horizon
        now = min(self._parts.clock_ms(), reading.watermark) // 1000
        edge = now - int(self._parts.keep.total_seconds())
        edge -= edge % 60
        return edge if edge > 0 and edge > (reading.horizon or 0) else reading.horizon

    async def _purge(self, reading: Reading, state: GroupState) -> None:
        """Delete rows before the saved horizon that owe nothing; what a crash leaves goes with the next."""
        if state.horizon is None:
            return
        store = self._parts.store
        upto = min(state.positions.values())
        limits = {
            rollup.table(window): state.horizon - window.seconds + 1
            for rollup in self._rollup_tables.values()
            for window in rollup.windows.values()
        }
        # An event whose day is still open may be repeated.
        limits[self._ids_table] = state.horizon - DAY.seconds + 1
        for table, before in limits.items():
            purged = await self._parts.outages.ridden_out(
                "state",
                lambda table=table, before=before: store.purge_rows(table, before=before, upto=upto),  # type: ignore[misc]
            )
            if purged:
                reading.rows.forget(
                    lambda key, table=table, before=before: key.table == table and key.at < before  # type: ignore[misc]
                )
        before_ms = (state.horizon - DAY.seconds) * 1000
        await self._parts.outages.ridden_out("state", lambda: store.purge_arrivals(upto, before_ms))

    async def _start_over(self, conflict: Conflict) -> None:
        """Rows changed under us: what was folded on top of them is void, so read again from what is saved."""
        store = self._parts.store
        log.warning("group %s reads again from its saved positions, nothing is lost: %s", self.name, conflict)
        taken = await self._parts.outages.ridden_out("state", lambda: store.generation(self.name))
        if taken > self._generation:
            return  # the next checkpoint stops us with the reason
        saved = await self._parts.outages.ridden_out("state", lambda: store.read_group(self.name))
        self.reading.rows.abandon()
        self._open_reading(saved or GroupState(generation=self._generation))

    def _settle(self, settled: Sequence[tuple[object, int]]) -> None:
        self.reading.rows.settle(settled)  # type: ignore[arg-type]

    async def _seek_owed(self) -> None:
        while True:
            await self._parts.sleep(SEEK_EVERY_S)
            if self._delivery is not None:
                self._delivery.seek()

    # -- health --

    async def _measure(self, reading: Reading, now: int) -> None:
        metrics = self._parts.metrics
        for agent in self.agents:
            if reading.watermark is not None:
                metrics.watermark(agent, reading.watermark / 1000)
        if now - self._lag_ms < MEASURE_LAG_EVERY_MS:
            return
        self._lag_ms = now
        try:
            end = await self._parts.log.end_offset()
        except Unavailable:
            return  # the reader waits for the log and says so; the last known lag stays
        for agent, position in reading.positions.items():
            behind = end if position == NOWHERE else max(0, end - place(position).offset - 1)
            seconds = 0.0
            if behind and reading.watermark is not None:
                seconds = max(0.0, (now - reading.watermark - ALLOWED_DISORDER_MS) / 1000)
            metrics.lag(agent, events=behind, seconds=seconds)

    @property
    def checkpoint_age_ms(self) -> int:
        """Time since the last complete checkpoint."""
        return self._parts.clock_ms() - self._checked_ms

    @property
    def generation(self) -> int:
        """Which start of the group this is."""
        return self._generation

    @property
    def sink_away(self) -> str | None:
        """What the rollup sink said when it did not take a write, None while it does."""
        return None if self._delivery is None else self._delivery.away


async def _ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
