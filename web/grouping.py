"""Rows taken together, and gaps between them filled. Nothing here asks a store (docs/decisions/0046)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Protocol, cast

from topology.rollups.combining import Combining, Lost, Ratio
from topology.rollups.measures import MAX_SUM
from topology.sinks import Value
from topology.windows import Tumbling
from web.documents import Described, MadeRow, Row, Tags

_Numbers = list[Value]
_time_of = attrgetter("time")
_second = itemgetter(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """``key``: the tags that rows keep. ``over``: those over which they are taken together; ``total``: over time too.
    ``without``: rows with these tags are left out. ``renamed``: rows keep fewer tags than they have."""

    combining: Mapping[str, Combining]
    key: tuple[str, ...]
    over: tuple[str, ...]
    total: bool
    without: Mapping[str, str]
    renamed: bool

    @property
    def merges(self) -> bool:
        """Whether several rows become one: then some fields are lost."""
        return bool(self.over) or self.total

    def said(self) -> str:
        """Over what, for a person."""
        return " and ".join([*self.over, *(["time"] if self.total else [])])

    def of(self, rows: Iterable[Row]) -> Sequence[Row]:
        """One row for each of the groups, by time, then by tags. The time of a total is that of its first row. ``rows``
        ascend by time."""
        windows = [rows] if self.total else map(_second, itertools.groupby(rows, _time_of))
        kept: dict[Tags, Tags] = {}
        made: list[Row] = []
        for window in windows:
            members = self._members(window, kept)
            made += [
                MadeRow(members[tags][0].time, tags, self._values(members[tags])) for tags in sorted(members)
            ]
        # Totals of keys begin at different times. Those of one time are in order already.
        return sorted(made, key=_time_of) if self.total else made

    def _members(self, rows: Iterable[Row], kept: dict[Tags, Tags]) -> Mapping[Tags, Sequence[Row]]:
        """The rows that become one, by the tags that they keep. ``kept`` remembers these."""
        if not self.key and not self.without:
            every = list(rows)
            return {(): every} if every else {}
        members: dict[Tags, list[Row]] = {}
        # Of each key as it is: thousands of rows have the same.
        groups: dict[Tags, list[Row]] = {}
        for row in rows:
            group = groups.get(row.tags)
            if group is None:
                group = groups[row.tags] = self._group(row.tags, kept, members)
            group.append(row)
        return members

    def _group(self, of: Tags, kept: dict[Tags, Tags], members: dict[Tags, list[Row]]) -> list[Row]:
        """The group of rows with these tags; one of nobody's for those that are left out."""
        tags = kept.get(of)
        if tags is None:
            if any(pair in self.without.items() for pair in of):
                return []
            tags = kept[of] = tuple(pair for pair in of if pair[0] in self.key)
        return members.setdefault(tags, [])

    def _values(self, rows: Sequence[Row]) -> Mapping[str, Value | None]:
        if not self.merges:
            return rows[0].fields
        fields = [row.fields for row in rows]
        values: dict[str, Value | None] = {}
        for name, combining in self.combining.items():
            if isinstance(combining, Lost):
                continue
            value = (
                _ratio(combining, fields)
                if isinstance(combining, Ratio)
                else _combined(combining, _numbers(fields, name))
            )
            if value is not None:
                values[name] = value
        return values


def _numbers(fields: Sequence[Mapping[str, Value | None]], name: str) -> _Numbers:
    """Those that there are."""
    return [value for each in fields if (value := each.get(name)) is not None]


def _combined(how: str, numbers: _Numbers) -> Value | None:
    if not numbers:
        return None
    match how:
        case "min":
            return min(numbers)
        case "max":
            return max(numbers)
    total = sum(numbers)
    # Exactly rounded: the sum of floats by itself depends on how many there are before.
    return min(total, MAX_SUM) if isinstance(total, int) else math.fsum(numbers)


def _ratio(ratio: Ratio, fields: Sequence[Mapping[str, Value | None]]) -> float | None:
    part, whole = (
        math.fsum(value for name in names for value in _numbers(fields, name))
        for names in (ratio.part, ratio.whole)
    )
    return part / whole if whole else None


class Range(Protocol):
    """What of a question says which rows there should be."""

    @property
    def where(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def fill(self) -> str | None: ...


def filled(
    rollup: Described,
    rows: Sequence[Row],
    window: str,
    grouping: Grouping,
    wanted: Range,
    since: int | None,
    until: int | None,
    *,
    most: int,
) -> Sequence[Row]:
    """A row for every window of [since, until) and every key that has a row, or that is asked for by all of its tags.
    Without ``since`` from the first row on. Raises ``OverflowError`` where there would be more than ``most``."""
    size = cast(Tumbling, rollup.windows[window]).seconds
    there = {(row.time, row.tags): row for row in rows}
    if since is None:
        since = min((row.time for row in rows), default=until)
    if since is None or until is None:
        return list(rows)
    first = -(-since // size) * size
    times = range(first, max(first, until), size)
    keys = {row.tags for row in rows}
    if times and all(tag in wanted.where for tag in grouping.key):
        values = [tuple(dict.fromkeys(wanted.where[tag])) for tag in grouping.key]
        # Of a hundred values of each of three tags there are a million keys: they are counted before they are made.
        _check(len(times) * math.prod(map(len, values)), most)
        keys |= {tuple(zip(grouping.key, each, strict=True)) for each in itertools.product(*values)}
    if not times or not keys:
        return list(rows)
    _check(len(times) * len(keys), most)
    empty: dict[str, Value | None] = {
        name: _nothing(grouping.combining[name], wanted.fill)
        for name in rollup.fields
        if not (grouping.merges and isinstance(grouping.combining[name], Lost))
    }
    ascending = sorted(keys)
    return [
        MadeRow(time, tags, empty if row is None else {**empty, **row.fields})
        for time in times
        for tags in ascending
        for row in (there.get((time, tags)),)
    ]


def _check(rows: int, most: int) -> None:
    if rows > most:
        raise OverflowError(
            f"filled there would be {rows} rows or more, at most {most} are given: "
            "narrow since and until, use a coarser window, or ask for fewer values"
        )


def _nothing(combining: Combining, fill: str | None) -> Value | None:
    """Of no events a sum is zero; the largest, a mean or a ratio there is none."""
    return 0 if fill == "zero" and combining == "sum" else None
