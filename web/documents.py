"""Rollups and events as documents: what the routes answer, and what the commands print with ``--format``.

An absent field is left out of JSON and empty in CSV.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from schemas.times import rfc3339
from topology.position import written
from topology.rollups.combining import Combining
from topology.sinks import Point, RawEvent, Value

#: What there is of some values and not of none; ``X_count`` tells how many those of ``X_min`` are.
_OF_SOME = frozenset({"min", "max", "p50", "p95", "p99"})
_RATIO = "uptime_ratio"

Tags: TypeAlias = tuple[tuple[str, str], ...]


class Row(Protocol):
    """What a rollup says of one key in one window, which begins at ``time`` (epoch seconds). A value that is None says
    that there is nothing; one that is missing leaves it unsaid. A ``Point`` is one."""

    @property
    def time(self) -> int: ...
    @property
    def tags(self) -> Tags: ...
    @property
    def fields(self) -> Mapping[str, Value | None]: ...


class MadeRow(NamedTuple):
    """A row that no store has like this."""

    time: int
    tags: Tags
    fields: Mapping[str, Value | None]


class Described(Protocol):
    """What a document tells about a rollup; ``topology.rollups.declaration.Rollup`` has it."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def retracts(self) -> bool:
        """Whether a correction can take back all that a row counted."""

    @property
    def combining(self) -> Mapping[str, Combining]:
        """Of each field, how values of several rows make one."""

    @property
    def together(self) -> Mapping[str, str]:
        """Of a key tag, the value under which the others are taken together."""

    @property
    def windows(self) -> Mapping[str, object]:
        """By name, the finest first."""


def rollups_document(rollups: Iterable[Described]) -> dict[str, Any]:
    """Which rollups there are: ``{"rollups": [{"name", "windows", "key", "fields"}]}``."""
    return {
        "rollups": [
            {"name": each.name, "windows": list(each.windows), "key": each.key, "fields": each.fields}
            for each in rollups
        ]
    }


def rollup_document(rollup: Described, window: str, points: Iterable[Point]) -> dict[str, Any]:
    """``{"rollup", "window", "rows": [{"time", key tags, fields}]}``, rows in the order of ``points``."""
    return rows_document(rollup.name, window, told(rollup, points))


def rows_document(name: str, window: str, rows: Iterable[Row]) -> dict[str, Any]:
    """The same of rows."""
    return {"rollup": name, "window": window, "rows": row_documents(rows)}


def row_documents(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Each row as an object: time, key tags, fields."""
    times: dict[int, str] = {}
    documents: list[dict[str, Any]] = []
    for row in rows:
        time = row.time
        text = times.get(time)
        if text is None:
            text = times[time] = rfc3339(time * 1000)
        documents.append({"time": text, **dict(row.tags), **row.fields})
    return documents


def rollup_csv(rollup: Described, points: Iterable[Point]) -> str:
    """The same rows as CSV (RFC 4180) with a line of names: time, key tags, fields."""
    return rows_csv(rollup.key, rollup.fields, told(rollup, points))


def rows_csv(key: Sequence[str], fields: Sequence[str], rows: Iterable[Row]) -> str:
    """The same of rows."""
    # Only names and tags can need quotes, and the same key is in every window: with the csv module alone it takes
    # three times as long.
    listed = list(rows)
    numbers = _numbers(fields, listed)
    lines = [_cells(("time", *key, *fields))]
    times: dict[int, str] = {}
    keys: dict[Tags, str] = {}
    for row, text in zip(listed, numbers, strict=True):
        at, tags = row.time, row.tags
        time = times.get(at)
        if time is None:
            time = times[at] = rfc3339(at * 1000)
        named = keys.get(tags)
        if named is None:
            values = dict(tags)
            named = keys[tags] = _cells(("", *(values.get(tag) for tag in key))) if key else ""
        lines.append(f"{time}{named},{text}" if fields else f"{time}{named}")
    return "\r\n".join([*lines, ""])


def _numbers(fields: Sequence[str], rows: Sequence[Row]) -> Sequence[str]:
    """The values of each row, with commas, all written at once: there is no bracket in a number, and null is none."""
    if not rows:
        return []
    values = [[*map(row.fields.get, fields)] for row in rows]
    return msgspec.json.encode(values).decode()[2:-2].replace("null", "").split("],[")


def _cells(values: Sequence[str | None]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    # What ends a line is quoted where it is in a cell: of a writer of lines without an end nothing would be.
    return text.getvalue().removesuffix("\r\n")


def event_document(event: RawEvent) -> dict[str, Any]:
    """``{"position", "received", …event}``; fields of the event's own by these names give way."""
    ours = {"position": written(event.position), "received": rfc3339(event.received)}
    return {**ours, **msgspec.json.decode(event.event, type=dict[str, Any]), **ours}


def events_document(events: Iterable[RawEvent], cursor: str | None) -> dict[str, Any]:
    """``{"events", "cursor"}``; ``cursor`` asks for the events after these, None where there are no more."""
    return {"events": [event_document(event) for event in events], "cursor": cursor}


def told(rollup: Described, points: Iterable[Point]) -> Sequence[Row]:
    """The points that tell of something, each with its fields in the rollup's order and without the stale ones.

    A correction cannot remove a point, only write zeros. Had the events come in another order, there would be none.
    A store keeps a field that a later write left out.
    """
    fields, retracts = rollup.fields, rollup.retracts
    rows = [point if tuple(point.fields) == fields else _in_order(point, fields) for point in points]
    if any(field == _RATIO or field.rpartition("_")[2] in _OF_SOME for field in fields):
        rows = [_fresh(row) for row in rows]
    return [row for row in rows if any(row.fields.values())] if retracts else rows


def _in_order(point: Point, fields: Sequence[str]) -> Point:
    values = point.fields
    return point._replace(fields={field: values[field] for field in fields if field in values})


def _fresh(point: Point) -> Point:
    values = point.fields
    stale = [field for field in values if _stale(field, values)]
    return (
        point._replace(fields={field: values[field] for field in values if field not in stale})
        if stale
        else point
    )


def _stale(field: str, fields: Mapping[str, Value]) -> bool:
    """Whether it is of nothing: a ratio of no known time, the least, the most or a quantile of no values."""
    if field == _RATIO:
        return not (fields.get("up_s") or fields.get("down_s"))
    of, _, what = field.rpartition("_")
    return what in _OF_SOME and fields.get(f"{of}_count") == 0
