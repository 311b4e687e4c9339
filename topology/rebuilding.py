"""Rebuilding: windows computed anew from the archive, by the owner of their group, while it works.

A rebuild is a request in the store of rows. The owner folds the archived events of the range into rows that begin
empty, with the very operators that live events go through, and puts them in the place of the rows that there are:
between two batches, once the archive has everything that the rows have. What cannot be computed anew is left alone: a
window that has more events in it than the archive holds.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import msgspec

from schemas.reading import Refusal, read
from schemas.times import rfc3339
from topology.batch import LogEvent, by_type
from topology.budgets import budget_table
from topology.doubles import Doubles
from topology.errors import Refused
from topology.jobs import Job, JobRollup
from topology.operators import AnyRollup, Kind, Scope, described, events_in, kinds, operator
from topology.parts import GroupParts
from topology.position import NOWHERE, Position
from topology.reading import Reading
from topology.rollups import Rollup
from topology.rows import RowCache
from topology.sinks import RawEvent
from topology.state import Request, RowKey, RowWrite, StoredRow
from topology.windows import DAY, MINUTE

log = logging.getLogger(__name__)

#: Events read from the archive at once.
PAGE = 2000
#: Rows put in place before the loop gets its turn.
REPLACED_AT_A_TIME = 500
#: Differences that are told one by one.
MOST_TOLD = 1000
#: A finished request that nobody has fetched goes after this.
FORGOTTEN_AFTER_MS = 24 * 3600 * 1000
#: The archive saves its position once a second.
ARCHIVE_PATIENCE_S = 30.0
#: The group whose agent keeps raw events.
ARCHIVE = "archive"


class Rebuild(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: the windows of ``rollup`` that overlap [since, until) (epoch seconds). ``check``: only tell what
    would change. ``force``: also where the archive holds fewer events than the window. ``asked_ms``: when."""

    rollup: str
    since: int
    until: int
    asked_ms: int
    check: bool = False
    force: bool = False


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is. ``generation`` of the owner that carries it out; ``part``: of the range, 0 to 1. ``changed``
    counts rows that are other than before (with ``check``: would be), ``differences`` describes the first of them,
    ``refused`` those that were left alone."""

    status: Literal["running", "done", "failed"]
    generation: int
    part: float = 0.0
    events: int = 0
    windows: int = 0
    changed: int = 0
    differences: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    said: str = ""

    @property
    def over(self) -> bool:
        return self.status != "running"


def progress(request: Request) -> Progress | None:
    """How far a request is; None where nobody has taken it yet."""
    return msgspec.json.decode(request.state, type=Progress) if request.state else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The group that carries out. ``turn``: held by an agent while it has a batch in hand."""

    name: str
    generation: int
    agents: Mapping[str, str]  # rollup: agent
    rollups: Mapping[str, AnyRollup]
    doubles_table: str
    reading: Callable[[], Reading]
    turn: Callable[[str], asyncio.Lock]
    checkpoint: Callable[[], Awaitable[None]]


class Rebuilding:
    """Carries out the requests of one group."""

    def __init__(self, owner: Owner, parts: GroupParts) -> None:
        self._owner = owner
        self._parts = parts

    async def carry_out_all(self) -> None:
        """All requests that are open. Waits while a store is away."""
        store, outages = self._parts.store, self._parts.outages
        for request in await outages.ridden_out("state", lambda: store.requests(self._owner.name)):
            known = progress(request)
            if known is None or not known.over:
                await self._carry_out(request)
            elif self._parts.clock_ms() - _asked(request).asked_ms > FORGOTTEN_AFTER_MS:
                await outages.ridden_out("state", lambda: store.delete_request(request.id))  # noqa: B023 - at once

    async def _carry_out(self, request: Request) -> None:
        asked = _asked(request)
        rollup = self._owner.rollups.get(asked.rollup)
        if rollup is None:
            said = f"group {self._owner.name} has no rollup {asked.rollup}"
            await self._tell(request, self._progress("failed", said=said))
            return
        work = _Work(self._owner, self._parts, rollup, asked)
        told = await self._tell(request, self._progress("running"))
        try:
            async with aclosing(work.steps()) as steps:
                async for part in steps:
                    if told is not None:
                        told = await self._tell(told, work.progress("running", part))
                    if told is None:
                        return  # whoever asked has taken it back, or another owner has taken it over
        except Refused as error:
            outcome = work.progress("failed", 1.0, said=str(error))
        except _ReadAgain:
            return  # rows changed under us: the next round begins it anew
        else:
            if not asked.check:
                await self._owner.checkpoint()
            outcome = work.progress("done", 1.0)
            log.info(
                "rebuilt %s from %d archived events: %d of %d rows changed, %d left alone",
                asked.rollup,
                outcome.events,
                outcome.changed,
                outcome.windows,
                len(outcome.refused),
            )
        if told is not None:
            await self._tell(told, outcome)

    def _progress(self, status: Literal["running", "failed"], said: str = "") -> Progress:
        return Progress(status=status, generation=self._owner.generation, said=said)

    async def _tell(self, request: Request, now: Progress) -> Request | None:
        """The request as it is stored now; None where it is not ours any more."""
        changed = msgspec.structs.replace(
            request, state=msgspec.json.encode(now), version=request.version + 1
        )
        store = self._parts.store
        saved = await self._parts.outages.ridden_out(
            "state", lambda: store.save_request(changed, expected=request.version)
        )
        return changed if saved else None


class _ReadAgain(Exception):  # a signal, never shown
    """The group began to read again: what was read of its rows is void."""


class _Work:
    """One rebuild."""

    def __init__(self, owner: Owner, parts: GroupParts, rollup: AnyRollup, asked: Rebuild) -> None:
        self._owner = owner
        self._parts = parts
        self._rollup = rollup
        self._asked = asked
        self._agent = owner.agents[rollup.name]
        self._events = 0
        self._windows = 0
        self._changed = 0
        self._differences: list[str] = []
        self._refused: list[str] = []

    def progress(self, status: Literal["running", "done", "failed"], part: float, said: str = "") -> Progress:
        return Progress(
            status=status,
            generation=self._owner.generation,
            part=part,
            events=self._events,
            windows=self._windows,
            changed=self._changed,
            differences=tuple(self._differences),
            refused=tuple(self._refused[:MOST_TOLD]),
            said=said,
        )

    async def steps(self) -> AsyncGenerator[float]:
        """Do it, day by day; yields how much is done. Raises ``Refused`` where it cannot be begun."""
        spans = list(self._spans())
        for number, (start, end) in enumerate(spans):
            async with self._owner.turn(self._agent):
                reading = self._owner.reading()
                upto = await self._archived(reading)
                async with aclosing(self._day(reading, start, end, upto)) as parts:
                    async for part in parts:
                        if self._owner.reading() is not reading:
                            raise _ReadAgain
                        yield (number + part) / len(spans)

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Parts of the range, to be done one after the other. Jobs reach over days, so they are done at once."""
        since, until = self._asked.since, self._asked.until
        if isinstance(self._rollup, JobRollup):
            yield since, until
            return
        for day in range(DAY.start(since), until, DAY.seconds):
            yield max(day, since), min(day + DAY.seconds, until)

    async def _archived(self, reading: Reading) -> Position:
        """What the agent has folded, once the archive has it too."""
        upto = reading.positions[self._agent]
        store, outages = self._parts.store, self._parts.outages
        async with asyncio.timeout(ARCHIVE_PATIENCE_S) as patience:
            while True:
                archive = await outages.ridden_out("state", lambda: store.read_group(ARCHIVE))
                if archive is not None and min(archive.positions.values(), default=NOWHERE) >= upto:
                    return upto
                if archive is None:
                    raise Refused("there is no archive to rebuild from: run a worker with the group archive")
                when = patience.when()
                if when is not None and when - asyncio.get_running_loop().time() < 1:
                    raise Refused("the archive is behind the rollups: let it catch up, then ask again")
                await self._parts.sleep(0.2)

    async def _day(self, reading: Reading, start: int, end: int, upto: Position) -> AsyncGenerator[float]:
        """One part of the range: fold, compare, replace."""
        rows = RowCache(
            _Beginning(reading.rows, budget_table(self._rollup.name), self._kinds),
            {name: kind.table for name, kind in self._kinds.items()},
            owing=(),
            versions=count(1),
            max_bytes=sys.maxsize,
            outages=self._parts.outages,
        )
        scope = Scope(
            rows=rows,
            horizon=lambda: None,
            watermark=lambda: None,
            told_ms=None,
            key_budget=self._parts.key_budget,
            over_budget=lambda rollup, tag: None,  # it was counted when it happened
        )
        fold = operator(self._rollup, scope).fold
        async for events, part in self._read(reading, start, end, upto):
            self._events += len(events)
            await fold(by_type(events), after=NOWHERE)
            yield 0.9 * part
        fresh = {each.row.key: each.state for each in rows.dirty()}
        await self._replace(reading, fresh, start, end, upto)
        yield 1.0

    # -- what is read --

    async def _read(
        self, reading: Reading, start: int, end: int, upto: Position
    ) -> AsyncGenerator[tuple[Sequence[LogEvent], float]]:
        """The archived events, as far out as the rollup reaches. Their order is that of the log where it matters; else
        they are numbered as they come, so that a long range is not held in memory."""
        match self._rollup:
            case JobRollup():
                keep = int(self._parts.keep.total_seconds())
                first, last = start - keep, end + keep
            case Rollup():
                first, last = DAY.start(start), DAY.end(DAY.start(end - 1))
            case _:
                first, last = MINUTE.start(start), MINUTE.end(MINUTE.start(end - 1))
        first_ms, last_ms = max(0, first) * 1000, last * 1000
        if isinstance(self._rollup, JobRollup):
            found = [event async for page in self._pages(first_ms, last_ms, upto) for event in page]
            found.sort(key=lambda event: event.position)
            for at in range(0, len(found), PAGE):
                yield found[at : at + PAGE], min(1.0, (at + PAGE) / len(found))
            return
        doubles = None
        if self._parts.doubled_downloads_once:
            doubles = Doubles(reading.rows, self._owner.doubles_table)
        numbers = count()
        async for page in self._pages(first_ms, last_ms, upto):
            if doubles is not None:
                gone = await doubles.among(sorted(page, key=lambda event: event.position))
                page = [event for event in page if event.position not in gone]
            numbered = [event._replace(position=Position(next(numbers))) for event in page]
            latest = page[0].time_ms if page else first_ms
            yield numbered, min(1.0, max(0.0, (last_ms - latest) / (last_ms - first_ms)))

    async def _pages(self, first_ms: int, last_ms: int, upto: Position) -> AsyncGenerator[list[LogEvent]]:
        archive, outages = self._parts.raw_events, self._parts.outages
        for kind in sorted(self._rollup.types, key=lambda kind: kind.__name__):
            name = str(kind.__struct_config__.tag)
            before: tuple[int, Position] | None = None
            while True:
                raw = await outages.ridden_out(
                    archive.name,
                    lambda: archive.query(
                        since=first_ms,
                        until=last_ms,
                        type=name,  # noqa: B023 - called at once
                        limit=PAGE,
                        before=before,  # noqa: B023
                    ),
                )
                yield [_event(each) for each in raw if each.position <= upto]
                if len(raw) < PAGE:
                    break
                before = raw[-1].time, raw[-1].position

    # -- what is put in place --

    @property
    def _kinds(self) -> Mapping[str, Kind]:
        return kinds(self._rollup)

    async def _replace(
        self, reading: Reading, fresh: Mapping[RowKey, Any], start: int, end: int, upto: Position
    ) -> None:
        """Put fresh rows in the place of those of windows that overlap [start, end)."""
        store, outages = self._parts.store, self._parts.outages
        placed: set[tuple[int, str]] = set()
        for table, size in self._tables():
            first = start - start % size
            stored = await outages.ridden_out(
                "state",
                lambda: store.keys_between(table, first, end),  # noqa: B023 - called at once
            )
            keys = dict.fromkeys(stored)
            keys |= dict.fromkeys(key for key in fresh if key.table == table and first <= key.at < end)
            keys |= dict.fromkeys(reading.rows.keys_held(table, first, end))
            ordered = sorted(keys)
            for at in range(0, len(ordered), REPLACED_AT_A_TIME):
                some = ordered[at : at + REPLACED_AT_A_TIME]
                taken = await self._compared(reading, fresh, some)
                placed |= {(key.at, key.key) for key in taken}
                await self._put(reading, {key: fresh.get(key) for key in taken}, upto)
                await asyncio.sleep(0)
        if isinstance(self._rollup, JobRollup):
            jobs = {
                key: job
                for key, job in fresh.items()
                if isinstance(job, Job)
                and (where := job.placed) is not None
                and (where.minute, where.key) in placed
            }
            await self._put(reading, jobs, upto)
        elif not isinstance(self._rollup, Rollup):
            await self._put(
                reading, {key: row for key, row in fresh.items() if key.table == self._rollup.services}, upto
            )

    def _tables(self) -> Sequence[tuple[str, int]]:
        if isinstance(self._rollup, Rollup):
            return [(table, window.seconds) for window, table in self._rollup.tables]
        return [(self._rollup.minutes, MINUTE.seconds)]

    async def _compared(
        self, reading: Reading, fresh: Mapping[RowKey, Any], keys: Sequence[RowKey]
    ) -> list[RowKey]:
        """Those of the rows that may be replaced; what differs is noted."""
        there = await reading.rows.peek(keys)
        taken = []
        for key in keys:
            self._windows += 1
            was, now = there.get(key), fresh.get(key)
            before, after = events_in(self._rollup, was), events_in(self._rollup, now)
            if before > after and not self._asked.force:
                self._refused.append(
                    f"{_address(self._rollup, key)}: {before} events in it, the archive holds {after}"
                )
                continue
            old, new = described(self._rollup, key, was), described(self._rollup, key, now)
            if old != new:
                self._changed += 1
                if len(self._differences) < MOST_TOLD:
                    self._differences.append(f"{_address(self._rollup, key)}: {_difference(old, new)}")
            taken.append(key)
        return taken

    async def _put(self, reading: Reading, states: Mapping[RowKey, Any], upto: Position) -> None:
        if states and not self._asked.check:
            await reading.operators[self._rollup.name].replace(states, upto)


class _Beginning:
    """The store of rows that begin empty, but for what decides about keys: a value that was within its budget is."""

    def __init__(self, rows: RowCache, budgets: str, tables: Mapping[str, Kind]) -> None:
        self._rows = rows
        self._budgets = budgets
        self._tables = tables

    async def load_rows(self, keys: Sequence[RowKey]) -> Mapping[RowKey, StoredRow]:
        states = await self._rows.peek([key for key in keys if key.table == self._budgets])
        table = self._tables[self._budgets].table
        return {
            key: StoredRow(key, 1, NOWHERE, False, table.pack(state), key.at) for key, state in states.items()
        }

    async def keys_of(self, table: str) -> Sequence[RowKey]:
        return []

    async def save_rows(self, writes: Sequence[RowWrite]) -> None:
        raise AssertionError("these rows are never saved")


def _asked(request: Request) -> Rebuild:
    return msgspec.json.decode(request.what, type=Rebuild)


def _event(raw: RawEvent) -> LogEvent:
    event = read(raw.event)
    if isinstance(event, Refusal):
        raise Refused(f"archived event {raw.id} is no event any more: {event.reason}")
    return LogEvent(raw.position, raw.time, raw.received, event, raw.original)


def _address(rollup: AnyRollup, key: RowKey) -> str:
    window = key.table.rpartition("/")[2]
    names = rollup.key
    tags = " ".join(f"{name}={value}" for name, value in zip(names, key.key.split("\x1f"), strict=False))
    return f"{window} {rfc3339(key.at * 1000)} {tags}"


def _difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {_shown(old.get(name))} → {_shown(new.get(name))}" for name in names)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return "nothing" if value is None else str(value)
