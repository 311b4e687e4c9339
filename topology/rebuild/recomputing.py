"""Windows computed anew: the archived events of a range are folded into rows that begin empty, with the operators that
live events go through, and those are put in the place of the rows that there are. Day by day, with the agent at rest.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import msgspec

from topology.batch import by_type
from topology.group.doubles import Doubles, DoublesTable
from topology.group.reading import Reading
from topology.group.rows import RowCache, Table
from topology.jobs.job import Job, JobRollup
from topology.jobs.joining import JobOperator, kept_from
from topology.parts import GroupParts
from topology.position import NOWHERE, Position
from topology.rebuild.archived import Archived
from topology.rebuild.bygone import Bygone
from topology.rebuild.differences import Differences
from topology.rollups.budgets import budget_table
from topology.rollups.declaration import Rollup
from topology.rollups.operators import AnyRollup, Scope, described, events_in, kinds, operator
from topology.rollups.tags import taken_apart
from topology.services.operator import ServiceOperator
from topology.services.rows import NOBODY, UptimeRollup
from topology.state import RowKey, RowWrite, StoredRow
from topology.windows import DAY, HOUR, MINUTE

#: Rows compared, and put in place, before the loop gets its turn.
REPLACED_AT_A_TIME = 500


class Rebuild(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: the windows of ``rollup`` that overlap [since, until) (epoch seconds). ``check``: only tell what
    would change. ``force``: also where the archive holds fewer events than the window. ``asked_ms``: when."""

    rollup: str
    since: int
    until: int
    asked_ms: int
    check: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The group that carries out. ``turn``: held by an agent while it has a batch in hand. ``delivered``: returns once
    the sink has what was saved, or is away."""

    name: str
    generation: int
    agents: Mapping[str, str]  # rollup: agent
    rollups: Mapping[str, AnyRollup]
    doubles_table: str
    reading: Callable[[], Reading]
    turn: Callable[[str], asyncio.Lock]
    checkpoint: Callable[[], Awaitable[None]]
    delivered: Callable[[], Awaitable[None]]


class ReadAgain(Exception):
    """The group began to read again: what was put in the place of its rows is void."""


class _Span(NamedTuple):
    """A part of the range. ``bygone``: its rows are gone."""

    start: int
    end: int
    bygone: bool


class Work:
    """One rebuild of one rollup, in the reading that the group has when it begins."""

    def __init__(self, owner: Owner, parts: GroupParts, rollup: AnyRollup, asked: Rebuild) -> None:
        self._owner = owner
        self._parts = parts
        self._rollup = rollup
        self._asked = asked
        self._agent = owner.agents[rollup.name]
        self._reading = owner.reading()
        self._archive = Archived(parts, rollup)
        self._kinds = kinds(rollup)
        self.found = Differences(rollup)
        self.events = 0

    def still_holds(self) -> None:
        """Raises ``ReadAgain`` where what was done is void."""
        if self._owner.reading() is not self._reading:
            raise ReadAgain

    async def steps(self) -> AsyncGenerator[float]:
        """Do it; yields how much is done. Raises ``Refused`` where it cannot be, and ``ReadAgain``."""
        spans = await self._spans()
        for number, span in enumerate(spans):
            async with self._owner.turn(self._agent), aclosing(self._span(span)) as parts:
                async for part in parts:
                    self.still_holds()
                    yield (number + part) / len(spans)

    # -- which --

    async def _spans(self) -> Sequence[_Span]:
        """Parts of the range, to be done one after the other: days in which there is anything. Jobs reach over days, so
        they are done at once. Hours and days that are merged of minutes are right only if all of their minutes are."""
        # Nothing lies ahead of the clock: what says so was placed at its arrival.
        until = min(self._asked.until, self._parts.clock_ms() // 1000 + DAY.seconds)
        since = min(self._asked.since, until)
        days = [DAY.start(since), DAY.end(DAY.start(until - 1))]
        if days[0] >= days[1]:
            return []
        if isinstance(self._rollup, Rollup):
            return [
                _Span(max(day, since), min(DAY.end(day), until), bygone=False)
                for day in sorted(await self._days(*days))
            ]
        gone = kept_from(self._reading.horizon)
        if isinstance(self._rollup, UptimeRollup):
            return [_Span(day, DAY.end(day), bygone=day < gone) for day in sorted(await self._days(*days))]
        edge = min(max(days[0], gone), days[1])
        spans = [_Span(days[0], edge, bygone=True), _Span(edge, days[1], bygone=False)]
        return [span for span in spans if span.start < span.end]

    async def _days(self, start: int, end: int) -> set[int]:
        """The days that have rows, or archived events, or are told of because of them."""
        keys = [key for table, _ in self._tables(HOUR.seconds) for key in await self._keys(table, start, end)]
        found = {DAY.start(key.at) for key in keys} | await self._archive.days(start, end)
        if isinstance(self._rollup, UptimeRollup):
            # A service is told of for a day after its last result, and in every gap.
            first_ms = [
                service.first_ms
                for service in (await self._services()).values()
                if service.first_ms is not None
            ]
            first = min([*found, *(DAY.start(ms // 1000) for ms in first_ms)], default=end)
            found = set(range(max(start, first), end, DAY.seconds))
        return found

    def _tables(self, at_least: int = 0) -> Sequence[tuple[str, int]]:
        """The tables of windows that are as long, with their sizes."""
        if isinstance(self._rollup, Rollup):
            return [
                (table, window.seconds) for window, table in self._rollup.tables if window.seconds >= at_least
            ]
        return [(self._rollup.minutes, MINUTE.seconds)]

    async def _keys(self, table: str, start: int, end: int) -> Sequence[RowKey]:
        """Of the rows that there are."""
        store = self._parts.store
        stored = await self._parts.outages.ridden_out("state", lambda: store.keys_between(table, start, end))
        return [*stored, *self._reading.rows.keys_held(table, start, end)]

    async def _services(self) -> Mapping[RowKey, Any]:
        assert isinstance(self._rollup, UptimeRollup)  # noqa: S101 - known by the caller
        rows = self._reading.rows
        return await rows.peek(await rows.keys_of(self._rollup.services))

    # -- one part of the range --

    async def _span(self, span: _Span) -> AsyncGenerator[float]:
        """Fold, compare, replace."""
        upto = await self._upto(span)
        yield 0.0
        await self._archive.reaches(upto)
        # As far out as the coarsest window that is touched.
        start, end = DAY.start(span.start), DAY.end(DAY.start(span.end - 1))
        rows, doubles = self._fresh_rows()
        fresh = operator(self._rollup, self._scope(rows))
        async with aclosing(self._archive.events(start, end, upto, doubles)) as pages:
            async for events, part in pages:
                self.events += len(events)
                await fresh.fold(by_type(events), after=NOWHERE)
                yield 0.9 * part
        yield 0.9
        if span.bygone:
            assert isinstance(fresh, JobOperator | ServiceOperator)  # noqa: S101 - of such rollups alone
            assert isinstance(self._rollup, JobRollup | UptimeRollup)  # noqa: S101
            bygone = Bygone(self._parts, self.found, check=self._asked.check, force=self._asked.force)
            await bygone.replace(self._rollup, fresh, rows, self._reading, span.start, span.end)
        else:
            await self._replace({each.row.key: each.state for each in rows.dirty()}, span, upto)
        yield 1.0

    async def _upto(self, span: _Span) -> Position:
        """Everything up to here is in the rows of the span, or will be: after a crash, rows may be ahead of the
        position that was saved, and what is folded again is skipped up to there."""
        furthest = self._reading.positions[self._agent]
        if span.bygone:
            return furthest
        for table, size in self._tables():
            keys = await self._keys(table, span.start - span.start % size, span.end)
            for at in range(0, len(keys), REPLACED_AT_A_TIME):
                rows = await self._reading.rows.upto(keys[at : at + REPLACED_AT_A_TIME])
                furthest = max([furthest, *rows.values()])
                await asyncio.sleep(0)
        return furthest

    def _fresh_rows(self) -> tuple[RowCache, Doubles | None]:
        """Rows that begin empty, but for what decides: which values are within their budget, which downloads count."""
        owner, parts = self._owner, self._parts
        tables: dict[str, Table] = {name: kind.table for name, kind in self._kinds.items()}
        tables[owner.doubles_table] = DoublesTable()
        deciding = (budget_table(self._rollup.name), owner.doubles_table)
        rows = RowCache(
            _Beginning(self._reading.rows, {name: tables[name] for name in deciding}),
            tables,
            owing=(),
            versions=count(1),
            max_bytes=sys.maxsize,
            outages=parts.outages,
        )
        return rows, Doubles(rows, owner.doubles_table) if parts.doubled_downloads_once else None

    def _scope(self, rows: RowCache) -> Scope:
        return Scope(
            rows=rows,
            horizon=lambda: None,
            watermark=lambda: self._reading.watermark,
            told_ms=None,
            key_budget=self._parts.key_budget,
            over_budget=lambda rollup, tag: None,  # it was counted when it happened
        )

    # -- what is put in place --

    async def _replace(self, fresh: Mapping[RowKey, Any], span: _Span, upto: Position) -> None:
        """Put fresh rows in the place of those of windows that overlap the span."""
        placed: set[tuple[int, str]] = set()
        for table, size in self._tables():
            first = span.start - span.start % size
            keys = dict.fromkeys(await self._keys(table, first, span.end))
            keys |= dict.fromkeys(key for key in fresh if key.table == table and first <= key.at < span.end)
            ordered = sorted(keys)
            for at in range(0, len(ordered), REPLACED_AT_A_TIME):
                taken = await self._compared(fresh, ordered[at : at + REPLACED_AT_A_TIME])
                placed |= {(key.at, key.key) for key in taken}
                await self._put({key: fresh.get(key) for key in taken}, upto)
                await asyncio.sleep(0)
        match self._rollup:
            case JobRollup():
                await self._put(await self._jobs(fresh, placed, upto), upto)
            case UptimeRollup():
                await self._put(await self._told_of(fresh, span), upto)

    async def _jobs(
        self, fresh: Mapping[RowKey, Any], placed: set[tuple[int, str]], upto: Position
    ) -> Mapping[RowKey, Job]:
        """The jobs that ended in minutes that were put in place. One that is ahead knows more."""
        jobs = {
            key: job
            for key, job in fresh.items()
            if isinstance(job, Job)
            and (where := job.placed) is not None
            and (where.minute, where.key) in placed
        }
        there = await self._reading.rows.upto(list(jobs))
        return {key: job for key, job in jobs.items() if there.get(key, NOWHERE) <= upto}

    async def _told_of(self, fresh: Mapping[RowKey, Any], span: _Span) -> Mapping[RowKey, Any]:
        """What was learnt of services, all of which owe the span: most of what is told of it follows from no row of
        its own."""
        assert isinstance(self._rollup, UptimeRollup)  # noqa: S101 - known by the caller
        table = self._rollup.services
        services = dict.fromkeys(await self._services(), NOBODY)
        services |= {key: state for key, state in fresh.items() if key.table == table}
        owes = span.start * 1000, span.end * 1000
        return {key: msgspec.structs.replace(service, owes=owes) for key, service in services.items()}

    async def _compared(self, fresh: Mapping[RowKey, Any], keys: Sequence[RowKey]) -> list[RowKey]:
        """Those of the rows that may be replaced; what differs is noted."""
        there = await self._reading.rows.peek(keys)
        taken = []
        for key in keys:
            self.found.windows += 1
            window, tags = key.table.rpartition("/")[2], taken_apart(key.key)
            was, now = there.get(key), fresh.get(key)
            before, after = events_in(self._rollup, was), events_in(self._rollup, now)
            if before > after and not self._asked.force:
                self.found.refuse(window, key.at, tags, before, after)
                continue
            old, new = described(self._rollup, key, was), described(self._rollup, key, now)
            self.found.compare(window, key.at, tags, old, new)
            taken.append(key)
        return taken

    async def _put(self, states: Mapping[RowKey, Any], upto: Position) -> None:
        if states and not self._asked.check:
            await self._reading.operators[self._rollup.name].replace(states, upto)


class _Beginning:
    """The store of rows that begin empty, but for those of tables that decide something."""

    def __init__(self, rows: RowCache, deciding: Mapping[str, Table]) -> None:
        self._rows = rows
        self._deciding = deciding

    async def load_rows(self, keys: Sequence[RowKey]) -> Mapping[RowKey, StoredRow]:
        states = await self._rows.peek([key for key in keys if key.table in self._deciding])
        # Packed: they are changed in place.
        return {
            key: StoredRow(key, 1, NOWHERE, False, self._deciding[key.table].pack(state), key.at)
            for key, state in states.items()
        }

    async def keys_of(self, table: str) -> Sequence[RowKey]:
        return []

    async def save_rows(self, writes: Sequence[RowWrite]) -> None:
        raise AssertionError("these rows are never saved")
