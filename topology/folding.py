"""Folding: the events of a batch into the rows of a rollup, each event once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from topology.batch import LogEvent
from topology.position import Position
from topology.rollups import Cells, Rollup, Tags
from topology.rows import RowCache
from topology.state import RowKey
from topology.windows import MINUTE


class Folded(NamedTuple):
    """Positions of the events that the rollup looks at, and of those with a window before the horizon."""

    taken: set[Position]
    late: set[Position]


async def fold(
    rollup: Rollup,
    events: Sequence[LogEvent],
    rows: RowCache,
    *,
    after: Position,
    horizon: Callable[[], int | None],
) -> Folded:
    """Fold the events beyond position ``after``; all of them or, when this raises, none.

    Events of one key and minute are reduced to one part, which is merged into the row of each window: the
    cost of an event does not grow with the number of windows. An event at or below a row's ``upto`` is in
    that row and is skipped. ``horizon``: windows that end at or before it (epoch seconds) are gone.
    """
    taken: set[Position] = set()
    groups: defaultdict[tuple[int, Tags], list[LogEvent]] = defaultdict(list)
    types = rollup.types
    for event in events:
        if type(event.event) in types:
            taken.add(event.position)
            if event.position > after:
                groups[MINUTE.start(event.time_ms // 1000), rollup.tags(event.event)].append(event)
    late: set[Position] = set()
    targets = [
        _Target(rollup.row_key(window, window.start(minute), tags), window.end(window.start(minute)), part)
        for (minute, tags), part in ((group, _Part(rollup, grouped)) for group, grouped in groups.items())
        for window in rollup.windows.values()
    ]
    targets = _in_time(targets, horizon(), late)
    if targets:
        loaded = await rows.load(list(dict.fromkeys(target.key for target in targets)))
        # No await from here on: all changes of this batch to a row are one, and rows change together. The
        # load may have waited: what was purged meanwhile must not be begun anew.
        changes: dict[RowKey, tuple[Cells, Position]] = {}
        for key, _, part in _in_time(targets, horizon(), late):
            row = loaded[key]
            cells, upto = changes.get(key, (row.state, row.upto))
            if (news := part.beyond(row.upto)) is not None:
                changes[key] = (rollup.merge(cells, news), max(upto, part.last))
        for key, (cells, upto) in changes.items():
            rows.change(loaded[key], cells, upto)
    return Folded(taken, late)


class _Target(NamedTuple):
    """One row that a part goes into, and where its window ends."""

    key: RowKey
    end: int
    part: _Part


def _in_time(targets: Sequence[_Target], horizon: int | None, late: set[Position]) -> list[_Target]:
    """The targets whose windows are still kept; the events of the others are added to ``late``."""
    if horizon is None:
        return list(targets)
    kept = []
    for target in targets:
        if target.end > horizon:
            kept.append(target)
        else:
            late.update(target.part.positions)
    return kept


class _Part:
    """Events of one key and minute, reduced once however many windows take them."""

    def __init__(self, rollup: Rollup, events: Sequence[LogEvent]) -> None:
        self._rollup = rollup
        self._events = events
        self._whole: Cells | None = None
        self.last = events[-1].position

    @property
    def positions(self) -> Iterator[Position]:
        return (event.position for event in self._events)

    def beyond(self, upto: Position) -> Cells | None:
        """The cells of the events that a row folded up to ``upto`` lacks, None if it lacks none."""
        if upto < self._events[0].position:
            if self._whole is None:
                self._whole = self._rollup.of([event.event for event in self._events])
            return self._whole
        lacking = [event.event for event in self._events if event.position > upto]
        return self._rollup.of(lacking) if lacking else None
