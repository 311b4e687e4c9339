"""Services: results and maintenance into rows, and time in state out of them.

Only events change rows. How much of a window a service was up depends on the passing of time too, so it is computed
when a value is written: of the results in the rows, up to the watermark. Values are owed for two reasons: a row
changed, and the watermark moved on. ``told_ms`` is the watermark up to which the second is paid.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from topology.batch import LogEvent
from topology.group.rows import RowCache, Saved
from topology.jobs.joining import kept_from
from topology.position import Position
from topology.rollups.budgets import KeyBudget
from topology.rollups.merging import Merges
from topology.rollups.tags import OTHER, clean_tag, joined, taken_apart
from topology.services.changes import Span, Turn, hull, merged, service_after
from topology.services.present import Present, Seen
from topology.services.rows import (
    KEPT_GOING_MS,
    NOBODY,
    Region,
    Service,
    Summary,
    UptimeRollup,
    fields,
    merge,
    summary,
)
from topology.services.time_in_state import (
    ALL,
    MINUTE_MS,
    Result,
    UpDown,
    intervals,
    overlap,
    sweeping,
)
from topology.sinks import Point
from topology.state import RowKey
from topology.windows import DAY, MINUTE, Tumbling

#: Time passes in steps of at most so many minutes of all services together, so that one write stays small after a rest.
MINUTES_IN_A_STEP = 2_000
MOST_MINUTES_IN_A_STEP = 60
DAY_MS = DAY.seconds * 1000
#: Points handed on together, and windows valued before the loop gets its turn.
POINTS_AT_A_TIME = 5_000
VALUED_AT_A_TIME = 20


class Passing(NamedTuple):
    """Values that are due because time has passed up to ``told_ms``. ``more``: it has passed further."""

    points: Sequence[Point]
    told_ms: int
    more: bool


class ServiceOperator:
    """Folds and values one ``UptimeRollup`` in one reading. ``horizon`` and ``watermark`` (epoch milliseconds) are
    asked each time."""

    def __init__(
        self,
        rollup: UptimeRollup,
        rows: RowCache,
        budget: KeyBudget,
        *,
        horizon: Callable[[], int | None],
        watermark: Callable[[], int | None],
        told_ms: int | None,
    ) -> None:
        self.name = rollup.name
        self._rollup = rollup
        self._rows = rows
        self._budget = budget
        self._horizon = horizon
        self._watermark = watermark
        self.told_ms = told_ms
        self._present = Present()
        self._merges: Merges[Summary] = Merges(self._summaries, merge)
        #: Every service that has a row: they are few, and time passes for all of them.
        self._services: dict[str, Service] = {}
        self._found = False
        #: Counts what makes it not so any more.
        self._voided = 0
        self._finding = asyncio.Lock()

    # -- events in --

    async def fold(self, events: Mapping[type, Sequence[LogEvent]], *, after: Position) -> set[Position]:
        """As ``folding.fold``: all of them or none."""
        late: set[Position] = set()
        results, turns, upto = await self._read(events, after, late)
        if upto is None:
            return late
        await self._find()
        rollup, rows = self._rollup, self._rows
        minute_keys = {place: RowKey(rollup.minutes, place[1], place[0]) for place in results}
        names = {name for name, _ in results} | set(turns)
        service_keys = {name: RowKey(rollup.services, 0, name) for name in names}
        loaded = await rows.load([*minute_keys.values(), *service_keys.values()])
        # No await from here on: rows change together.
        for name, key in service_keys.items():
            row = loaded[key]
            theirs = [result for place, found in results.items() if place[0] == name for _, result in found]
            changed, owes = service_after(
                row.state, theirs, turns.get(name, ()), kept_from(self._horizon()) * 1000
            )
            if owes is not None:
                if row.owed and row.state.owes is not None:
                    owes = hull([owes, row.state.owes])
                changed = msgspec.structs.replace(changed, owes=owes)
                rows.change(row, changed, max(row.upto, upto), until=changed.until_s)
                if changed.turns != self._services.get(name, NOBODY).turns:
                    self._merges.forget(name)
            self._services[name] = row.state
        for (name, minute), found in results.items():
            for _, result in found:
                self._present.saw(name, result, self._watermark() or 0)
            row = loaded[minute_keys[name, minute]]
            news = [result for position, result in found if position > row.upto]
            if news:
                rows.change(row, (*row.state, *news), upto)
                reach = MINUTE.seconds + -(-self._services[name].longest_ms // 1000)
                self._merges.changed(name, minute, minute + reach)
        return late

    async def _read(
        self, events: Mapping[type, Sequence[LogEvent]], after: Position, late: set[Position]
    ) -> tuple[
        Mapping[tuple[str, int], Sequence[tuple[Position, Result]]],
        Mapping[str, Sequence[Turn]],
        Position | None,
    ]:
        """Results by service and minute, turns by service, and the last position; those of days that are gone apart."""
        rollup = self._rollup
        results: defaultdict[tuple[str, int], list[tuple[Position, Result]]] = defaultdict(list)
        turns: defaultdict[str, list[Turn]] = defaultdict(list)
        found = [each for kind in rollup.types for each in events.get(kind, ()) if each.position > after]
        if not found:
            return results, turns, None
        found.sort(key=lambda each: each.position)
        kept_from_ms = kept_from(self._horizon()) * 1000
        # The same few services again and again: each is looked up once a day of event time.
        places = [_place(each) for each in found]
        first: dict[tuple[int, object, object], LogEvent] = {}
        for each, place in zip(found, places, strict=True):
            first.setdefault(place, each)
        wanted = [(each.time_ms // 1000, _key(each.event), each.position) for each in first.values()]
        keys = await self._budget.placed(wanted)
        tags = {place: taken_apart(key) for place, key in zip(first, keys, strict=True)}
        for each, place in zip(found, places, strict=True):
            service, region = tags[place]
            kind = type(each.event)
            if each.time_ms < kept_from_ms:
                late.add(each.position)
            elif kind in rollup.maintenance:
                turns[service].append((each.time_ms, rollup.maintenance[kind]))
            else:
                result = rollup.result(each.event, each.time_ms, region)
                results[service, MINUTE.start(each.time_ms // 1000)].append((each.position, result))
        return results, turns, found[-1].position if results or turns else None

    async def _find(self) -> None:
        """Learn of the services that there are; once, and when another worker may have written of them. Waits while the
        store is away."""
        async with self._finding:
            if self._found:
                return
            voided = self._voided
            keys = await self._rows.keys_of(self._rollup.services)
            for key, service in (await self._rows.peek(keys)).items():
                self._services[key.key] = service
            self._found = voided == self._voided

    def found(self, key: RowKey) -> None:
        """As ``operators.Operator.found``."""
        self._merges.forget(key.key)
        self._found = False
        self._voided += 1

    async def replace(self, states: Mapping[RowKey, Any], upto: Position) -> None:
        """As ``operators.Operator.replace``: results of minutes; of services what is not known of them yet."""
        await self._find()
        rows = self._rows
        for key, row in (await rows.load(list(states))).items():
            state = states[key]
            if key.table == self._rollup.services:
                more = merged(row.state, state)
                owes = [
                    span for span in (row.state.owes if row.owed else None, state.owes) if span is not None
                ]
                more = msgspec.structs.replace(more, owes=hull(owes) if owes else None)
                rows.change(row, more, row.upto, until=more.until_s)
                self._services[key.key] = more
            else:
                rows.change(row, () if state is None else state, max(row.upto, upto))
        for name in {key.key for key in states}:
            self._merges.forget(name)

    def present(self, now_ms: int) -> Seen:
        """How the services are at this moment (epoch milliseconds)."""
        return self._present.at(now_ms, self._services)

    # -- values out --

    async def values(self, saved: Sequence[Saved]) -> AsyncIterator[Sequence[Point]]:
        """Of the time in which these rows changed anything, as far as it has passed. Waits while the store is away."""
        await self._find()
        spans: defaultdict[str, list[Span]] = defaultdict(list)
        for row in saved:
            name = row.key.key
            if row.key.table == self._rollup.services:
                if row.state.owes is not None:
                    spans[name].append(row.state.owes)
            else:
                start = row.key.at * 1000
                longest = self._services.get(name, NOBODY).longest_ms
                spans[name].append((start, start + MINUTE_MS + longest))
        async for points in self._valued(spans, self._watermark()):
            yield points

    @property
    def services_table(self) -> str:
        """Where services are kept."""
        return self._rollup.services

    def between(self, start_ms: int, end_ms: int) -> AsyncIterator[Sequence[Point]]:
        """Of all services in this time, as far as it has passed. Only after a fold or a ``replace``."""
        spans = {name: [(start_ms, end_ms)] for name in self._services}
        return self._valued(spans, self._watermark())

    async def passing(self) -> Passing | None:
        """What is due because time has passed; None where nothing is. Whoever has written it sets ``told_ms``."""
        watermark = self._watermark()
        if watermark is None:
            return None
        await self._find()
        begins = [first for each in self._services.values() if (first := each.first_ms) is not None]
        told = self.told_ms
        if told is None:  # the day of the first result has a row as soon as it has begun
            told = min((first - first % DAY_MS for first in begins), default=watermark)
        kept_from_ms = kept_from(self._horizon()) * 1000
        told = max(told, kept_from_ms)  # before it nobody is told of anything
        self._services = {
            name: each
            for name, each in self._services.items()
            if each.until_s * 1000 >= kept_from_ms - KEPT_GOING_MS
        }
        if watermark <= told:
            return None
        live = [name for name, service in self._services.items() if service.told_of(told, told + MINUTE_MS)]
        if live:
            step = max(1, min(MINUTES_IN_A_STEP // len(live), MOST_MINUTES_IN_A_STEP))
            reached = told - told % MINUTE_MS + step * MINUTE_MS
        else:  # nobody to tell of until the next one begins
            reached = min((first for first in begins if first > told), default=watermark)
        reached = min(reached, watermark)
        spans = {name: [(told, reached)] for name in self._services}
        points = [point async for some in self._valued(spans, reached) for point in some]
        return Passing(points, reached, reached < watermark)

    def tell_again(self, since_ms: int) -> None:
        """What followed from the passing of time since then is due once more."""
        if self.told_ms is not None:
            self.told_ms = min(self.told_ms, since_ms)

    async def _valued(
        self, spans: Mapping[str, Iterable[Span]], watermark: int | None
    ) -> AsyncIterator[Sequence[Point]]:
        points: list[Point] = []
        count = 0
        if watermark is None:
            return
        for name, owed in spans.items():
            windows = self._windows(name, owed, watermark)
            present = _Present(watermark)
            for start, window in sorted(windows, key=lambda each: (each[1].seconds, each[0])):
                points += await self._points(name, start, window, present)
                count += 1
                if count % VALUED_AT_A_TIME == 0:
                    await asyncio.sleep(0)
                if len(points) >= POINTS_AT_A_TIME:
                    yield points
                    points = []
        if points:
            yield points

    def _windows(self, name: str, owed: Iterable[Span], watermark: int) -> set[tuple[int, Tumbling]]:
        """The windows that these spans touch, as far as they have begun, and the service has rows there."""
        service = self._services.get(name, NOBODY)
        first, last = service.first_ms, service.last_ms
        if first is None or last is None:
            return set()
        earliest = max(first - first % MINUTE_MS, kept_from(self._horizon()) * 1000)
        found: set[tuple[int, Tumbling]] = set()
        for opens, closes in owed:
            start, end = max(opens, earliest), min(closes, watermark, last + KEPT_GOING_MS)
            # A window that has begun is told of whole: of a result that is ahead of the watermark, and after the last
            # day has ended inside it.
            for window in self._rollup.windows.values():
                starts = range(window.start(start // 1000), -(-end // 1000), window.seconds)
                found.update((at, window) for at in starts)
        return found

    async def _points(self, name: str, start: int, window: Tumbling, present: _Present) -> list[Point]:
        rollup, service = self._rollup, self._services.get(name, NOBODY)
        start_ms, end_ms = start * 1000, window.end(start) * 1000
        passed_ms = min(end_ms, present.watermark) - start_ms
        regions = service.told_of(start_ms, end_ms)
        if passed_ms <= 0 or not regions:
            return []
        whole = min(end_ms, present.begins)
        parts = [await self._merges.between(name, start, whole // 1000)]
        if whole < end_ms:
            if present.minutes is None:
                present.minutes = await self._open_minutes(name, service, present)
            parts += [part for at, part in present.minutes.items() if whole <= at * 1000 < end_ms]
        known = [part for part in parts if part is not None]
        found = merge(known) if known else {}
        maintenance_ms = overlap(intervals(service.turns), start_ms, start_ms + passed_ms)
        return [
            Point(
                rollup.name,
                window.name,
                start,
                (("service", name), ("region", region)),
                fields(region, found.get(region, Region()), passed_ms, maintenance_ms),
            )
            for region in sorted(regions)
        ]

    async def _open_minutes(self, name: str, service: Service, present: _Present) -> Mapping[int, Summary]:
        """Of the minute that is passing, and of results of that day that are ahead of the watermark: they are counted,
        and hold nothing yet. After a rest the watermark passes through days that are full of them; windows after its
        day have not begun."""
        until = min(
            max(service.last_ms or 0, present.begins) + 1, DAY.end(DAY.start(present.begins // 1000)) * 1000
        )
        minutes = range(present.begins // 1000, -(-until // 1000), MINUTE.seconds)
        results = await self._results(name, service, minutes[0], minutes[-1] + MINUTE.seconds)
        states = await _in_state(results, service, present.begins, present.watermark)
        return {at: summary(results.get(at, ()), states.get(at * 1000, {})) for at in minutes}

    async def _summaries(self, name: str, minutes: Sequence[int]) -> Mapping[int, Summary]:
        service = self._services.get(name, NOBODY)
        start, end = minutes[0], minutes[-1] + MINUTE.seconds
        results = await self._results(name, service, start, end)
        states = await _in_state(results, service, start * 1000, end * 1000)
        made = {at: summary(results.get(at, ()), states.get(at * 1000, {})) for at in minutes}
        return {at: found for at, found in made.items() if found}

    async def _results(
        self, name: str, service: Service, start: int, end: int
    ) -> Mapping[int, Sequence[Result]]:
        """By minute, all that may hold in [start, end) (epoch seconds)."""
        reach = -(-service.longest_ms // MINUTE_MS) * MINUTE.seconds
        minutes = range(max(0, start - reach), end, MINUTE.seconds)
        states = await self._rows.peek([RowKey(self._rollup.minutes, at, name) for at in minutes])
        return {key.at: results for key, results in states.items()}


@dataclass
class _Present:
    """Of one service, while its values are made: the minutes from that of the watermark on, once they were asked
    for."""

    watermark: int
    minutes: Mapping[int, Summary] | None = None

    @property
    def begins(self) -> int:
        return self.watermark - self.watermark % MINUTE_MS


async def _in_state(
    results: Mapping[int, Sequence[Result]], service: Service, start_ms: int, end_ms: int
) -> Mapping[int, Mapping[str, UpDown]]:
    """As ``time_in_state.in_state``, while the loop goes on."""
    everything = (result for each in results.values() for result in each)
    sweep = sweeping(everything, intervals(service.turns), start_ms, end_ms)
    while True:
        try:
            next(sweep)
        except StopIteration as done:
            found: Mapping[int, Mapping[str, UpDown]] = done.value
            return found
        await asyncio.sleep(0)


def _place(each: LogEvent) -> tuple[int, object, object]:
    """What decides about the key of an event: its day, and its tags as they came."""
    event = each.event
    return each.time_ms // DAY_MS, getattr(event, "service", None), getattr(event, "region", None)


def _key(event: object) -> str:
    """Service and region as they are kept. ``all`` is the quorum's name."""
    service = clean_tag(getattr(event, "service", None))
    region = clean_tag(getattr(event, "region", None))
    return joined((service, OTHER if region == ALL else region))
