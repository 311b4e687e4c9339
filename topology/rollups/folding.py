"""Folding: the events of a batch into the rows of a rollup, each event once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from topology.batch import LogEvent
from topology.group.rows import RowCache
from topology.position import Position
from topology.rollups.budgets import KeyBudget
from topology.rollups.declaration import Cells, Rollup
from topology.state import RowKey
from topology.windows import MINUTE

MINUTE_MS = MINUTE.seconds * 1000
#: Rows changed, and windows made, before the loop gets its turn: a few milliseconds of work.
CHANGED_AT_A_TIME = 500
MADE_AT_A_TIME = 1000


class _Part:
    """Events of one type, key and minute, in order, reduced once however many windows take them."""

    __slots__ = ("events", "first", "joined", "kind", "rollup", "start", "whole")

    def __init__(
        self, rollup: Rollup, kind: type, start: int, joined: str, events: Sequence[LogEvent]
    ) -> None:
        self.rollup = rollup
        self.kind = kind
        self.start = start
        self.joined = joined
        self.events = events
        self.first = events[0].position
        self.whole: Cells = rollup.of(kind, [event.event for event in events])

    def beyond(self, upto: Position) -> Cells | None:
        """The cells of the events that a row folded up to ``upto`` lacks, None if it lacks none."""
        if upto < self.first:
            return self.whole
        lacking = [event.event for event in self.events if event.position > upto]
        return self.rollup.of(self.kind, lacking) if lacking else None

    def positions(self) -> Iterator[Position]:
        """Of the events."""
        return (event.position for event in self.events)


class _Window:
    """What one row gets: the parts of a minute, or the finer windows of a coarser one."""

    __slots__ = ("end", "first", "joined", "key", "rollup", "sources", "start", "whole")

    def __init__(self, rollup: Rollup, key: RowKey, end: int, sources: Sequence[_Source]) -> None:
        self.rollup = rollup
        self.key = key
        self.start = key.at
        self.joined = key.key
        self.end = end
        self.sources = sources
        self.first: Position = min([source.first for source in sources])
        self.whole: Cells = rollup.merged([source.whole for source in sources])

    def beyond(self, upto: Position) -> Cells | None:
        """As of a part."""
        if upto < self.first:
            return self.whole
        lacking = [cells for source in self.sources if (cells := source.beyond(upto)) is not None]
        return self.rollup.merged(lacking) if lacking else None

    def positions(self) -> Iterator[Position]:
        """As of a part."""
        return (position for source in self.sources for position in source.positions())


_Source: TypeAlias = _Part | _Window


async def fold(
    rollup: Rollup,
    events: Mapping[type, Sequence[LogEvent]],
    rows: RowCache,
    *,
    after: Position,
    horizon: Callable[[], int | None],
    budget: KeyBudget,
) -> set[Position]:
    """Fold the events (by type, each in order) beyond position ``after``; into each row all of them or, when this
    raises, none. Returns the positions of those with a window before the horizon.

    Events of one type, key and minute are reduced to one part; minutes are merged to hours and hours to days before
    they are merged into rows: the cost of an event does not grow with the number of windows. An event at or below a
    row's ``upto`` is in that row and is skipped. ``horizon``: windows that end at or before it (epoch seconds) are
    gone. ``budget`` bounds the keys.
    """
    late: set[Position] = set()
    parts = _parts(rollup, events, after)
    if not parts:
        return late
    placed = await budget.placed([(part.start, part.joined, part.first) for part in parts])
    for part, within in zip(parts, placed, strict=True):
        part.joined = within
    # Every event of these keys up to there is in the rows then.
    upto = max([part.events[-1].position for part in parts])
    windows = _in_time(await _windows(rollup, parts), horizon(), late)
    for first in range(0, len(windows), CHANGED_AT_A_TIME):
        some = windows[first : first + CHANGED_AT_A_TIME]
        loaded = await rows.load([window.key for window in some])
        # No await until all of these are changed. The load may have waited: what was purged meanwhile must not be begun
        # anew.
        for window in _in_time(some, horizon(), late):
            row = loaded[window.key]
            if (cells := window.beyond(row.upto)) is not None:
                rows.change(row, rollup.merge(row.state, cells), max(row.upto, upto))
        if len(windows) > CHANGED_AT_A_TIME:
            await asyncio.sleep(0)
    return late


def _parts(rollup: Rollup, events: Mapping[type, Sequence[LogEvent]], after: Position) -> list[_Part]:
    parts: list[_Part] = []
    for kind, key_of in rollup.key_of.items():
        news = events.get(kind, ())
        if news and news[0].position <= after:
            news = [event for event in news if event.position > after]
        grouped: defaultdict[tuple[int, Any], list[LogEvent]] = defaultdict(list)
        for event in news:
            grouped[event.time_ms // MINUTE_MS, key_of(event.event)].append(event)
        parts += [
            _Part(rollup, kind, minute * MINUTE.seconds, rollup.joined(kind, raw), same)
            for (minute, raw), same in grouped.items()
        ]
    parts.sort(key=lambda part: part.first)  # the budget of keys is spent in log order
    return parts


async def _windows(rollup: Rollup, parts: Sequence[_Part]) -> list[_Window]:
    windows: list[_Window] = []
    finer: Sequence[_Source] = parts
    for size, table in rollup.tables:
        found: defaultdict[tuple[int, str], list[_Source]] = defaultdict(list)
        for source in finer:
            found[size.start(source.start), source.joined].append(source)
        of_this_size: list[_Window] = []
        for (start, joined), sources in found.items():
            of_this_size.append(_Window(rollup, RowKey(table, start, joined), size.end(start), sources))
            if len(of_this_size) % MADE_AT_A_TIME == 0:
                await asyncio.sleep(0)
        windows += of_this_size
        finer = of_this_size
    return windows


def _in_time(windows: list[_Window], horizon: int | None, late: set[Position]) -> list[_Window]:
    """The windows that are still kept; the events of the others are added to ``late``."""
    if horizon is None:
        return windows
    kept = []
    for window in windows:
        if window.end > horizon:
            kept.append(window)
        else:
            late.update(window.positions())
    return kept
