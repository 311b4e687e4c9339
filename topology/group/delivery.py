"""Owed values on their way to a rollup sink: one write in flight, retried until it is answered.

What is owed stands in the store of rows, so nothing here has to survive: the newest value of each row
waits in memory within a bound, whatever does not fit is sought in the store again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from topology.errors import Refused, Unavailable
from topology.group.doubt import Doubt, Notes, earlier
from topology.group.rows import ENCODED_AT_A_TIME, Saved, Table
from topology.metrics import Metrics, Written
from topology.outages import FIRST_DELAY_S, LONGEST_DELAY_S, Outages, pause
from topology.position import NOWHERE
from topology.services.operator import Passing
from topology.sinks import DeadLetter, DeadLetters, Point, RollupSink
from topology.state import RowKey, StateStore
from topology.telling import Telling

log = logging.getLogger(__name__)

#: Points in one write: InfluxData recommends 5000 to 10 000 lines.
WRITTEN_AT_A_TIME = 5000
#: Values that wait in memory, about 10 MB; further ones stay owed in the store and are sought there.
MOST_WAITING = 20_000
#: How often the store is searched for owed rows that nobody brought: those of a worker that died.
SEEK_EVERY_S = 60.0


class Values(Protocol):
    """Where values come from: the group, which knows its present reading."""

    def of(self, rows: Sequence[Saved]) -> AsyncIterator[Sequence[Point]]:
        """What the sink is told of these rows. May wait while the store of rows is away."""

    def found(self, key: RowKey, version: int) -> bool:
        """The store was seen to owe this row at this version, which another worker may have written since it was last
        looked at. False where nothing is to be made of it now: it stays owed."""

    async def passing(self) -> Passing | None:
        """What is due because time has passed, None where nothing is."""

    def told(self, passing: Passing) -> None:
        """The sink has it."""

    def since(self, points: Sequence[Point]) -> int | None:
        """The earliest time (epoch milliseconds) of those among them that follow from the passing of time."""

    def tell_again(self, since_ms: int) -> None:
        """What followed from the passing of time since then is due once more."""

    async def owned(self) -> bool:
        """Whether no other worker has taken over the group."""


class Delivery:
    """Brings the values of one group's rows to one sink. ``run`` is a task of its own."""

    def __init__(
        self,
        sink: RollupSink,
        store: StateStore,
        on_settled: Callable[[Sequence[tuple[RowKey, int]]], None],
        tables: Mapping[str, Table],
        values: Values,
        notes: Notes,
        *,
        dead_letters: DeadLetters,
        outages: Outages,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sink = sink
        self._store = store
        self._on_settled = on_settled
        self._tables = tables
        self._values = values
        self._notes = notes
        self._dead_letters = dead_letters
        self._outages = outages
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._sleep = sleep
        self._waiting: dict[RowKey, Saved] = {}
        self._in_flight = 0
        self._overflowed = True  # at start: what a worker that died still owes
        self._sought = True
        #: What is being written, and what was when no answer came.
        self._under_way = Doubt()
        self._doubt = Doubt()
        self._time_passes = False
        self._wake = asyncio.Event()
        self._wake.set()
        self._turn = asyncio.Condition()
        self._refusals = Telling(clock_ms)
        self.away: str | None = None

    @property
    def waiting(self) -> int:
        """Values that are in memory and not yet in the sink."""
        return len(self._waiting) + self._in_flight

    def _count(self, outcome: Written, values: int = 1) -> None:
        self._metrics.sink_writes(sink=self._sink.name, outcome=outcome).inc(values)

    def offer(self, saved: Iterable[Saved]) -> None:
        """Take values that were saved with ``owed`` set; an older value of the same row is replaced. What is due
        because time has passed is found besides."""
        for row in saved:
            known = self._waiting.get(row.key)
            if known is None and len(self._waiting) >= MOST_WAITING:
                self._overflowed = True
            elif known is None or known.version < row.version:
                self._waiting[row.key] = row
        self._metrics.sink_pending(sink=self._sink.name).set(self.waiting)
        self._time_passes = True
        self._wake.set()

    async def delivered(self, patience_s: float) -> None:
        """Return once nothing waits, or the sink is away or slow: what is owed is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s), self._turn:
                await self._turn.wait_for(lambda: self._idle or self.away is not None)

    @property
    def _idle(self) -> bool:
        return self.waiting == 0 and not self._time_passes

    def seek(self) -> None:
        """Look for owed rows in the store, and for what is in doubt; called at start and every minute."""
        self._overflowed = self._sought = True
        self._wake.set()

    async def run(self) -> None:
        """Write what is offered until cancelled. Cancelling loses nothing: it stays owed."""
        delay = FIRST_DELAY_S
        while True:
            await self._wake.wait()
            await asyncio.sleep(0)  # a turn may have nothing to write, and there may be many of those
            if not self._waiting and self._sought and self.away is None:
                self._sought = False
                await self._write_again()
            if not self._waiting and self._overflowed:
                await self._find_owed()
            if not self._waiting and not self._time_passes:
                self._wake.clear()
                await self._tell()
                continue
            taken = self._take()
            try:
                async for points in self._values.of(taken):
                    await self._write(points)
                if self._time_passes:
                    await self._pass()
            except Unavailable as error:
                self._doubt.add(self._under_way.keys, self._under_way.since_ms)
                self._under_way = Doubt()
                self._put_back(taken)
                if self.away is None:
                    log.warning(
                        "%s is away, its rollups are owed, nothing is lost: %s", self._sink.name, error
                    )
                self.away = str(error)
                self._count("unavailable")
                await self._tell()
                await self._sleep(pause(delay, error.retry_after))
                delay = min(delay * 2, LONGEST_DELAY_S)
            else:
                if self.away is not None:
                    log.warning("%s is back", self._sink.name)
                self.away = None
                delay = FIRST_DELAY_S
                await self._settle(taken)
                await self._tell()

    def _take(self) -> list[Saved]:
        keys = list(self._waiting)[:WRITTEN_AT_A_TIME]
        taken = [self._waiting.pop(key) for key in keys]
        self._in_flight = len(taken)
        self._under_way = Doubt(keys)
        return taken

    def _put_back(self, taken: Sequence[Saved]) -> None:
        self._in_flight = 0
        for row in taken:
            self._waiting.setdefault(row.key, row)

    async def _pass(self) -> None:
        passing = await self._values.passing()
        self._time_passes = passing is not None and passing.more
        if passing is not None:
            try:
                await self._write(passing.points)
            except Unavailable:
                self._time_passes = True
                raise
            self._values.told(passing)

    async def _tell(self) -> None:
        self._metrics.sink_pending(sink=self._sink.name).set(self.waiting)
        async with self._turn:
            self._turn.notify_all()

    async def _find_owed(self) -> None:
        self._overflowed = False  # set again by whoever asks meanwhile
        found = await self._outages.ridden_out(
            "state", lambda: self._store.owed_rows(list(self._tables), WRITTEN_AT_A_TIME)
        )
        self._overflowed |= len(found) == WRITTEN_AT_A_TIME
        for first in range(0, len(found), ENCODED_AT_A_TIME):
            self.offer(
                Saved(row.key, row.version, self._tables[row.key.table].unpack(row.data))
                for row in found[first : first + ENCODED_AT_A_TIME]
                if self._values.found(row.key, row.version)
            )
            await asyncio.sleep(0)

    async def _write(self, points: Sequence[Point]) -> None:
        """Write all; a point that the sink refuses for good is found by halving and put aside."""
        pending = [
            points[first : first + WRITTEN_AT_A_TIME] for first in range(0, len(points), WRITTEN_AT_A_TIME)
        ]
        pending.reverse()
        self._under_way.since_ms = earlier(self._under_way.since_ms, self._values.since(points))
        while pending:
            part = pending.pop()
            try:
                await self._sink.write(part)
            except Refused as error:
                if len(part) == 1:
                    await self._put_aside(part[0], error)
                else:
                    middle = len(part) // 2
                    pending += [part[middle:], part[:middle]]
            else:
                self._count("written", len(part))

    async def _put_aside(self, point: Point, error: Refused) -> None:
        if told := self._refusals.due():
            log.error(
                "%s refused %d point(s) for good, they are dead letters now; the last one, of %s: %s",
                self._sink.name,
                told,
                point.rollup,
                error,
            )
        self._count("refused")
        body = msgspec.json.encode(point)
        address = repr((point.rollup, point.window, point.time, point.tags)).encode()
        letter = DeadLetter(
            id=f"{self._sink.name}:{hashlib.sha256(address).hexdigest()[:32]}",
            position=NOWHERE,
            received=self._clock_ms(),
            agent=self._sink.name,
            reason=f"{self._sink.name} refused the point: {error}",
            pointer="",
            body=body,
            length=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
        )
        await self._outages.ridden_out("dead letters", lambda: self._dead_letters.put([letter]))

    async def _settle(self, rows: Sequence[Saved]) -> None:
        settled = [(row.key, row.version) for row in rows]
        if self._under_way and not await self._values.owned():
            # What was just written may lie over values of another worker's, made of rows that we have not seen. It
            # may be about to settle the very rows, so it gets a note as well.
            await self._owe([key for key, _ in settled])
            await self._leave_note()
        elif settled:
            await self._outages.ridden_out("state", lambda: self._store.settle_rows(settled))
            self._on_settled(settled)
        self._under_way = Doubt()
        self._in_flight = 0

    async def end(self) -> None:
        """Call it when ``run`` has ended: what was under way may be carried out after another worker's writes, so
        that one is told of it."""
        if (self._under_way or self._doubt) and not await self._values.owned():
            await self._leave_note()

    async def _leave_note(self) -> None:
        self._doubt.add(self._under_way.keys, self._under_way.since_ms)
        await self._notes.leave(self._doubt)
        self._doubt = Doubt()
        self._under_way = Doubt()

    async def _owe(self, keys: Sequence[RowKey]) -> None:
        await self._outages.ridden_out("state", lambda: self._store.owe_rows(keys))

    async def _write_again(self) -> None:
        """See to it that what is in doubt is written once more."""
        for doubt in (self._doubt, *await self._notes.due()):
            if doubt.keys:
                self._overflowed = True
                await self._owe(doubt.keys)
            if doubt.since_ms is not None:
                self._values.tell_again(doubt.since_ms)
                self._time_passes = True
        self._doubt = Doubt()  # not before it is owed: who ends in between leaves a note of it
