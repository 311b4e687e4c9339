"""Totals, embedded: one statement over the rows of a range."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from topology.sinks import Point
from topology.totals import Fold, MaxOf, whole


def _folded(fold: Fold) -> str:
    """An expression, with a place for the path of the field, and before it one for that of its count."""
    if isinstance(fold, MaxOf):
        return "max(CASE WHEN json_extract(fields, ?) > 0 THEN json_extract(fields, ?) END)"
    # total() never overflows, where sum() of integers is an error.
    return f"{'total' if fold == 'sum' else 'max'}(json_extract(fields, ?))"


def totals(
    rollup: str,
    window: str,
    since: int,
    until: int,
    by: Sequence[str],
    folds: Mapping[str, Fold],
    each_window: bool,
) -> Callable[[sqlite3.Connection], Sequence[Point]]:
    """What ``topology.sinks.RollupSink.totals`` promises, as work for a connection."""
    # Paths are values: no name is part of the statement.
    tags = [f"json_extract(tags, ?) AS tag{at}" for at in range(len(by))]
    columns = [
        "time" if each_window else "?",
        *tags,
        *map(_folded, folds.values()),
    ]
    groups = [*(["time"] if each_window else []), *(f"tag{at}" for at in range(len(by)))]
    statement = (
        f"SELECT {', '.join(columns)} FROM rollups "  # noqa: S608 - no text of others is in it
        "WHERE rollup = ? AND window = ? AND time >= ? AND time < ?"
        + (f" GROUP BY {', '.join(groups)}" if groups else " HAVING count(*) > 0")
    )
    named = [
        name
        for field, fold in folds.items()
        for name in ((fold.counted_by, field) if isinstance(fold, MaxOf) else (field,))
    ]
    paths = [f'$."{name}"' for name in (*by, *named)]
    values = [*([] if each_window else [since]), *paths, rollup, window, since, until]

    def select(connection: sqlite3.Connection) -> Sequence[Point]:
        return [
            Point(
                rollup,
                window,
                time,
                tuple((tag, found[at]) for at, tag in enumerate(by) if found[at] is not None),
                {
                    field: whole(number)
                    for field, number in zip(folds, found[len(by) :], strict=True)
                    if number is not None
                },
            )
            for time, *found in connection.execute(statement, values)
        ]

    return select
