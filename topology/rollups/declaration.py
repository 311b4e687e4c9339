"""Rollups: a name, key tags, measures. Declared in ``agents/``, folded by ``folding``."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import msgspec

from topology.rollups.combining import Combining
from topology.rollups.measures import Cell, Distinct, EventType, Max, Measure, Quantile
from topology.rollups.tags import MAX_TAG_CHARACTERS, SEPARATOR, UNKNOWN, clean_tag, taken_apart
from topology.rollups.tags import joined as joined_tags
from topology.sinks import Point, Value
from topology.state import RowKey
from topology.windows import MINUTE, WINDOWS, Tumbling

Tags: TypeAlias = tuple[str, ...]
Cells: TypeAlias = tuple[Cell, ...]

#: Key tags are cleaned once for so many different keys.
KEYS_REMEMBERED = 50_000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class ByType:
    """A key tag that follows from the type of the event, not from a field."""

    def __init__(self, name: str, values: Mapping[Any, str]) -> None:
        self.name = name
        self.values = dict(values)


class _Tag(NamedTuple):
    """Where the value of a key tag is found in events of one type: in a field, or always the same."""

    field: str | None
    constant: str


def _tag(tag: str | ByType, kind: EventType) -> _Tag:
    if isinstance(tag, ByType):
        return _Tag(None, clean_tag(tag.values.get(kind)))
    return _Tag(tag if tag in kind.__struct_fields__ else None, UNKNOWN)


def _getter(fields: Sequence[str]) -> Callable[[Any], Any]:
    return attrgetter(*fields) if fields else _nothing


def _nothing(event: Any) -> None:
    return None


class Rollup:
    """Windowed aggregate. Each key tag is a field of the events, ``unknown`` for types that lack it, or a ``ByType``.
    ``windows``: the finest first, each made of whole windows of the one before."""

    #: Whether what a window has counted can be taken back.
    retracts = False
    #: Of each key tag that has one, the value under which the others are taken together.
    together: Mapping[str, str] = {}

    def __init__(
        self,
        name: str,
        *,
        key: Sequence[str | ByType],
        measures: Mapping[str, Measure],
        windows: Sequence[Tumbling] = WINDOWS,
    ) -> None:
        self.name = name
        self.key: Tags = tuple(tag if isinstance(tag, str) else tag.name for tag in key)
        self.measures = dict(measures)
        self.fields: Tags = tuple(measures)
        self.combining: Mapping[str, Combining] = {
            name: measure.combining for name, measure in measures.items()
        }
        self.windows: Mapping[str, Tumbling] = {window.name: window for window in windows}
        #: Window sizes, the finest first, with the name under which the rows of each are kept.
        self.tables: Sequence[tuple[Tumbling, str]] = [(window, self.table(window)) for window in windows]
        self.types: frozenset[EventType] = frozenset().union(*(m.types for m in measures.values()))
        self._measures: tuple[Measure, ...] = tuple(measures.values())
        # Thousands of rows are made, merged and packed a second: what can be looked up once is looked up here.
        # The last cell of all counts the events: a window that is computed anew must not have lost any.
        self._empty: Cells = (*(measure.empty() for measure in self._measures), 0)
        self._merges = tuple(measure.merge for measure in self._measures)
        self._packs = tuple(measure.pack for measure in self._measures)
        self._unpacks = tuple(measure.unpack for measure in self._measures)
        self._points = tuple((name, measure.value, measure.integer) for name, measure in measures.items())
        #: A quantile is off by up to 1 %: beside the largest value, above it, it would look like a fault.
        self._held = [
            (quantile, largest)
            for quantile, one in measures.items()
            for largest, other in measures.items()
            if isinstance(one, Quantile)
            and isinstance(other, Max)
            and (one.field, one.types) == (other.field, other.types)
        ]
        self._of: Mapping[EventType, Sequence[tuple[int, Callable[[Sequence[Any]], Cell]]]] = {
            kind: [(at, measure.of) for at, measure in enumerate(self._measures) if kind in measure.types]
            for kind in self.types
        }
        #: Where the cells are that grow.
        self._growing = [
            at for at, measure in enumerate(self._measures) if isinstance(measure, Distinct | Quantile)
        ]
        self._tags: Mapping[EventType, tuple[_Tag, ...]] = {
            kind: tuple(_tag(tag, kind) for tag in key) for kind in self.types
        }
        #: How to read, of each type of event, what tells its row from others. See ``joined``.
        self.key_of: Mapping[EventType, Callable[[Any], Any]] = {
            kind: _getter([tag.field for tag in tags if tag.field is not None])
            for kind, tags in self._tags.items()
        }
        #: Of each key tag that may take any number of values, its name; None of the others.
        self.budgeted: Sequence[str | None] = [tag if isinstance(tag, str) else None for tag in key]
        self._joined: dict[tuple[EventType, Any], str] = {}
        if SEPARATOR in name or not self.key:
            raise ValueError(f"rollup {name!r} needs a plain name and at least one key tag")
        if windows[0].seconds % MINUTE.seconds:
            raise ValueError(f"rollup {name!r}: {windows[0].name} is not made of whole minutes")
        for finer, coarser in itertools.pairwise(windows):
            if coarser.seconds % finer.seconds:
                raise ValueError(
                    f"rollup {name!r}: {coarser.name} is not made of whole windows of {finer.name}"
                )

    def __repr__(self) -> str:
        return f"Rollup({self.name!r})"

    def tags(self, event: Any) -> Tags:
        """Values of the key tags of this event, in the order of ``key``."""
        kind = type(event)
        return taken_apart(self.joined(kind, self.key_of[kind](event)))

    def joined(self, kind: EventType, raw: Any) -> str:
        """The key tags, cleaned and joined, of an event of type ``kind`` whose ``key_of`` is ``raw``."""
        joined = self._joined.get((kind, raw))
        if joined is None:
            tags = self._tags[kind]
            given = raw if isinstance(raw, tuple) else (raw,)
            values = iter(given)
            cleaned = [tag.constant if tag.field is None else clean_tag(next(values)) for tag in tags]
            joined = joined_tags(cleaned)
            # A key may be a megabyte long: such are not remembered.
            if all(value is None or len(value) <= MAX_TAG_CHARACTERS for value in given):
                if len(self._joined) >= KEYS_REMEMBERED:
                    self._joined.clear()
                self._joined[kind, raw] = joined
        return joined

    def table(self, window: Tumbling) -> str:
        """Name under which the rows of one window size are kept."""
        return f"{self.name}/{window.name}"

    def row_key(self, window: Tumbling, start_s: int, tags: Tags) -> RowKey:
        """Address of the row of these tags in the window that starts at ``start_s``."""
        return RowKey(self.table(window), start_s, joined_tags(tags))

    def point(self, key: RowKey, cells: Cells) -> Point:
        """What the sink is told about a row: absolute values, every field that has one."""
        values: dict[str, Value] = {}
        for (field, value, integer), cell in zip(self._points, cells, strict=False):
            number = value(cell)
            if number is not None:
                values[field] = number if integer else float(number)
        for quantile, largest in self._held:
            if quantile in values:
                values[quantile] = min(values[quantile], values[largest])
        window = key.table.rpartition("/")[2]
        tags = tuple(zip(self.key, taken_apart(key.key), strict=True))
        return Point(self.name, window, key.at, tags, values)

    # -- the state of a row: one cell a measure --

    def empty(self) -> Cells:
        return self._empty

    def of(self, kind: EventType, events: Sequence[Any]) -> Cells:
        """The cells of events that are all of type ``kind``."""
        cells = list(self._empty)
        for at, of in self._of[kind]:
            cells[at] = of(events)
        cells[-1] = len(events)
        return tuple(cells)

    def events_in(self, cells: Cells) -> int:
        """How many events are in these cells."""
        return int(cells[-1])

    def merge(self, one: Cells, other: Cells) -> Cells:
        if one is self._empty:
            return other
        return (
            *[merge(a, b) for merge, a, b in zip(self._merges, one, other, strict=False)],
            one[-1] + other[-1],
        )

    def merged(self, many: Sequence[Cells]) -> Cells:
        return many[0] if len(many) == 1 else functools.reduce(self.merge, many)

    def pack(self, cells: Cells) -> bytes:
        return _encode([*[pack(cell) for pack, cell in zip(self._packs, cells, strict=False)], cells[-1]])

    def unpack(self, packed: bytes) -> Cells:
        *cells, events = _decode(packed)
        return (*[unpack(cell) for unpack, cell in zip(self._unpacks, cells, strict=True)], events)

    def weight(self, cells: Cells) -> int:
        """Bytes of memory, roughly: what the bound of the cache is counted in."""
        weight = 0
        for at in self._growing:
            cell = cells[at]
            weight += len(cell) if isinstance(cell, bytes) else 80 * len(cell)
        return weight
