"""Folding: the events of a batch into the rows of a rollup, each event once."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from topology.batch import Batch, LogEvent
from topology.position import Position
from topology.rollups import Rollup, Tags
from topology.rows import Row, RowCache
from topology.state import RowKey
from topology.windows import MINUTE


class Folded(NamedTuple):
    """Positions of the events that the rollup looks at, and of those with a window before the horizon."""

    taken: set[Position]
    late: set[Position]


async def fold(
    rollup: Rollup, batch: Batch, rows: RowCache, *, after: Position, horizon_s: int | None
) -> Folded:
    """Fold the events beyond position ``after``.

    Events of one key and minute are reduced to one part, which is merged into the row of each window: the
    cost of an event does not grow with the number of windows. An event at or below a row's ``upto`` is in that
    row and is skipped. ``horizon_s``: windows that end at or before it are gone.
    """
    parts: defaultdict[tuple[int, Tags], list[LogEvent]] = defaultdict(list)
    types = rollup.types
    for event in batch.events:
        if type(event.event) in types and event.position > after:
            parts[MINUTE.start(event.time_ms // 1000), rollup.tags(event.event)].append(event)
    taken: set[Position] = set()
    late: set[Position] = set()
    targets: list[tuple[RowKey, list[LogEvent], int]] = []
    for number, ((minute, tags), events) in enumerate(parts.items()):
        positions = [event.position for event in events]
        for window in rollup.windows.values():
            start = window.start(minute)
            if horizon_s is not None and window.end(start) <= horizon_s:
                late.update(positions)
            else:
                targets.append((rollup.row_key(window, start, tags), events, number))
        taken.update(positions)
    if targets:
        loaded = await rows.load(list(dict.fromkeys(key for key, _, _ in targets)))
        reduced: dict[int, object] = {}
        # From here to the end of the loop there is no await: all of a batch's changes to a row are one.
        upto = {key: row.upto for key, row in loaded.items()}
        for key, events, number in targets:
            row = loaded[key]
            if upto[key] < events[0].position:
                if number not in reduced:
                    reduced[number] = rollup.of([event.event for event in events])
                _merge(rollup, rows, row, reduced[number], events[-1].position)
            elif fresh := [event for event in events if event.position > upto[key]]:
                part = rollup.of([event.event for event in fresh])
                _merge(rollup, rows, row, part, fresh[-1].position)
    return Folded(taken, late)


def _merge(
    rollup: Rollup, rows: RowCache, row: Row, part: object, last: Position
) -> None:
    state = rollup.merge(row.state, part)  # type: ignore[arg-type]  # cells are the rollup's own
    rows.change(row, state, max(row.upto, last))
