"""Rollups and events as documents: what the routes answer, and what the commands print with ``--format``.

An absent field is left out of JSON and empty in CSV.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from schemas.times import rfc3339
from topology.position import written
from topology.sinks import Point, RawEvent, Value

#: What there is of some values and not of none; ``X_count`` tells how many those of ``X_min`` are.
_OF_SOME = frozenset({"min", "max", "p50", "p95", "p99"})


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
    return {
        "rollup": rollup.name,
        "window": window,
        "rows": [
            {"time": _time(point), **dict(point.tags), **values} for point, values in _rows(rollup, points)
        ],
    }


def rollup_csv(rollup: Described, points: Iterable[Point]) -> str:
    """The same rows as CSV (RFC 4180) with a line of names: time, key tags, fields."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("time", *rollup.key, *rollup.fields))
    for point, values in _rows(rollup, points):
        tags = dict(point.tags)
        writer.writerow(
            (
                _time(point),
                *(tags.get(tag) for tag in rollup.key),
                *(values.get(field) for field in rollup.fields),
            )
        )
    return text.getvalue()


def event_document(event: RawEvent) -> dict[str, Any]:
    """``{"position", "received", …event}``; fields of the event's own by these names give way."""
    ours = {"position": written(event.position), "received": rfc3339(event.received)}
    return {**ours, **msgspec.json.decode(event.event, type=dict[str, Any]), **ours}


def events_document(events: Iterable[RawEvent], cursor: str | None) -> dict[str, Any]:
    """``{"events", "cursor"}``; ``cursor`` asks for the events after these, None where there are no more."""
    return {"events": [event_document(event) for event in events], "cursor": cursor}


def _time(point: Point) -> str:
    return rfc3339(point.time * 1000)


def _rows(rollup: Described, points: Iterable[Point]) -> Iterator[tuple[Point, Mapping[str, Value]]]:
    """The points that tell of something, each with its fields in the rollup's order.

    A correction cannot remove a point, only write zeros. Had the events come in another order, there would be none.
    """
    for point in points:
        values = _values(rollup, point)
        if any(values.values()) or not rollup.retracts:
            yield point, values


def _values(rollup: Described, point: Point) -> dict[str, Value]:
    """The fields without the stale ones: a store keeps a field that a later write left out."""
    fields = point.fields
    return {field: fields[field] for field in rollup.fields if field in fields and not _stale(field, fields)}


def _stale(field: str, fields: Mapping[str, Value]) -> bool:
    """Whether it is of nothing: a ratio of no known time, the least, the most or a quantile of no values."""
    if field == "uptime_ratio":
        return not (fields.get("up_s") or fields.get("down_s"))
    of, _, what = field.rpartition("_")
    return what in _OF_SOME and fields.get(f"{of}_count") == 0
