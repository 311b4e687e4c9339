"""Joining: the events of a batch into jobs, and the jobs into the minutes in which they end.

A minute is derived from jobs, so it is saved before them: whatever is read again after a crash puts the same entries
into the same places. An entry may have been saved at each place where the job would have ended at any event since the
job was saved, so it is taken out of all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from topology.batch import LogEvent
from topology.group.rows import Row, RowCache, Saved
from topology.jobs.job import (
    Entry,
    Job,
    JobRollup,
    Placed,
    begins_another,
    entry,
    entry_id,
    job_key,
    new_job,
    with_event,
)
from topology.jobs.minutes import JobMinute, JobSummary, fields, merge, summary
from topology.position import Position
from topology.rollups.budgets import KeyBudget
from topology.rollups.merging import Merges
from topology.rollups.tags import clean_tag, taken_apart
from topology.sinks import Point
from topology.state import RowKey
from topology.windows import DAY, MINUTE, Tumbling

#: Events folded before the loop gets its turn: about 20 ms of work.
FOLDED_AT_A_TIME = 500

#: Where entries go and where they are taken out: None.
_Moves = dict[Placed, dict[bytes, Entry | None]]


class _Read(NamedTuple):
    """An event, with its key tags within their budget."""

    position: Position
    time_ms: int
    event: object
    tag: str


class JobOperator:
    """Folds and values one ``JobRollup`` in one reading. ``horizon`` as of ``folding.fold``."""

    def __init__(
        self, rollup: JobRollup, rows: RowCache, budget: KeyBudget, horizon: Callable[[], int | None]
    ) -> None:
        self._rollup = rollup
        self._rows = rows
        self._budget = budget
        self._horizon = horizon
        self._merges: Merges[JobSummary] = Merges(self._summaries, merge)

    # -- events in --

    async def fold(self, events: Mapping[type, Sequence[LogEvent]], *, after: Position) -> set[Position]:
        """As ``folding.fold``: all of them or none."""
        late: set[Position] = set()
        news = await self._news(events, after, late)
        for first in range(0, len(news), FOLDED_AT_A_TIME):
            await self._fold(news[first : first + FOLDED_AT_A_TIME])
        return late

    async def _fold(self, news: Sequence[_Read]) -> None:
        """A stretch of events, in log order."""
        rollup, rows = self._rollup, self._rows
        by_job: defaultdict[tuple[str, bool], list[_Read]] = defaultdict(list)
        counts: defaultdict[Placed, list[_Read]] = defaultdict(list)
        for each in news:
            raw = clean_tag(getattr(each.event, rollup.key[0]))
            by_job[job_key(each.event, raw)].append(each)
            if type(each.event) in rollup.counted:
                counts[Placed(MINUTE.start(each.time_ms // 1000), each.tag)].append(each)
        job_keys = {key: RowKey(rollup.jobs, 0, key[0]) for key in by_job}
        known = await rows.load(list(job_keys.values()))
        moves: _Moves = {}
        jobs: dict[RowKey, Job] = {}
        for key, theirs in by_job.items():
            row = known[job_keys[key]]
            job = self._followed(key, row, theirs, moves)
            if job is not None:
                jobs[row.key] = job
        minutes = {placed: self._minute_key(placed) for placed in {*counts, *moves}}
        loaded = await rows.load([*jobs, *minutes.values()])
        # No await from here on: rows change together. Nobody but this agent changes jobs, so they are as they were.
        upto = news[-1].position
        for row_key, job in jobs.items():
            rows.change(loaded[row_key], job, upto, until=job.latest_ms // 1000, owed=job.open)
        kept_from = self._kept_from()
        for placed, row_key in minutes.items():
            if placed.minute >= kept_from:
                self._change(loaded[row_key], counts.get(placed, ()), moves.get(placed, {}), upto)

    async def _news(
        self, events: Mapping[type, Sequence[LogEvent]], after: Position, late: set[Position]
    ) -> list[_Read]:
        """The events beyond ``after``, in log order, those of days that are gone apart."""
        found = [
            each for kind in self._rollup.types for each in events.get(kind, ()) if each.position > after
        ]
        if not found:
            return []
        found.sort(key=lambda each: each.position)
        name = self._rollup.key[0]
        tags = await self._budget.placed(
            [(each.time_ms // 1000, clean_tag(getattr(each.event, name)), each.position) for each in found]
        )
        kept_from_ms = self._kept_from() * 1000
        late.update(each.position for each in found if each.time_ms < kept_from_ms)
        return [
            _Read(each.position, each.time_ms, each.event, tag)
            for each, tag in zip(found, tags, strict=True)
            if each.time_ms >= kept_from_ms
        ]

    def _followed(
        self, key: tuple[str, bool], row: Row, events: Sequence[_Read], moves: _Moves
    ) -> Job | None:
        """The job after those of the events that it lacks, None where it lacks none."""
        rollup = self._rollup
        name, named = key
        job: Job | None = row.state
        changed = False
        for position, time_ms, event, tag in events:
            if position <= row.upto:
                continue
            changed = True
            if job is None or begins_another(rollup, job, type(event)):
                job = new_job(position, named=named)
            was = job.placed
            job = with_event(rollup, job, event, time_ms, tag)
            now = job.placed
            its_id = entry_id(name, job)
            if was is not None and was != now:
                moves.setdefault(was, {})[its_id] = None
            if now is not None:
                moves.setdefault(now, {})[its_id] = entry(job)
        return job if changed else None

    def _change(
        self,
        row: Row,
        counted: Sequence[_Read],
        moves: Mapping[bytes, Entry | None],
        upto: Position,
    ) -> None:
        minute: JobMinute = row.state
        counts = list(minute.counted)
        for each in counted:
            if each.position > row.upto:
                counts[self._rollup.counted[type(each.event)]] += 1
        entries = minute.entries
        if any(entries.get(its_id) != it for its_id, it in moves.items()):
            entries = {its_id: it for its_id, it in ({**entries, **moves}).items() if it is not None}
        changed = JobMinute((counts[0], counts[1], counts[2]), entries)
        if changed != minute:
            self._rows.change(row, changed, max(row.upto, upto))
            self._merges.changed(row.key.key, row.key.at, row.key.at + MINUTE.seconds)
        elif None in moves.values():
            # A worker that was superseded may have an entry for this minute, and save it after us: it is to meet this
            # version then. Of a minute without anything the sink need not know.
            told = row.version > 0 and minute != JobMinute()
            self._rows.change(row, minute, max(row.upto, upto), owed=row.owed or told)

    def found(self, key: RowKey) -> None:
        """As ``operators.Operator.found``."""
        self._merges.changed(key.key, key.at, key.at + MINUTE.seconds)

    async def replace(self, states: Mapping[RowKey, Any], upto: Position) -> None:
        """As ``operators.Operator.replace``: jobs, and minutes."""
        rows = self._rows
        for key, row in (await rows.load(list(states))).items():
            state = states[key]
            if key.table == self._rollup.jobs:
                rows.change(row, state, max(row.upto, upto), until=state.latest_ms // 1000, owed=state.open)
            else:
                state = JobMinute() if state is None else state
                # A minute may be there of which the sink was never told, since it is empty: it stays so.
                empty = state == row.state == JobMinute()
                rows.change(row, state, max(row.upto, upto), owed=row.owed or not empty)
                self._merges.changed(key.key, key.at, key.at + MINUTE.seconds)

    # -- values out --

    async def values(self, saved: Sequence[Saved]) -> AsyncIterator[Sequence[Point]]:
        """Of the minutes of these rows, and the hours and days that they are in. Waits while the store is away."""
        rollup = self._rollup
        windows = {
            (row.key.key, window.start(row.key.at), window)
            for row in saved
            for window in rollup.windows.values()
        }
        for key, start, window in sorted(windows, key=lambda each: (each[2].seconds, each[1], each[0])):
            yield [await self._point(key, start, window)]

    async def _point(self, key: str, start: int, window: Tumbling) -> Point:
        rollup = self._rollup
        found = await self._merges.between(key, start, window.end(start))
        told = fields(summary(JobMinute()) if found is None else found)
        return Point(
            rollup.name, window.name, start, tuple(zip(rollup.key, taken_apart(key), strict=True)), told
        )

    async def _summaries(self, key: str, minutes: Sequence[int]) -> Mapping[int, JobSummary]:
        states = await self._rows.peek([self._minute_key(Placed(minute, key)) for minute in minutes])
        return {row_key.at: summary(minute) for row_key, minute in states.items()}

    def _minute_key(self, placed: Placed) -> RowKey:
        return RowKey(self._rollup.minutes, placed.minute, placed.key)

    def _kept_from(self) -> int:
        """Minutes are kept for as long as their day is (epoch seconds)."""
        return kept_from(self._horizon())


def kept_from(horizon: int | None) -> int:
    """The start of the first day that is not gone, of rollups whose days are merged from minutes (epoch seconds)."""
    return 0 if horizon is None else DAY.start(horizon)
