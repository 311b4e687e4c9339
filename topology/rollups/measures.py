"""Measures: one number of a rollup each. All of them merge, in any order, to the same value.

A measure keeps a *cell*: what has to be remembered of the events of one key in one window. Cells are
values; nothing here edits a cell that it was handed. ``merge`` is associative and commutative, so parts of
a window from several batches, windows or partitions add up to what one pass over all events gives.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, runtime_checkable

from topology.rollups.combining import DISTINCT, MEANS, QUANTILES, Combining
from topology.rollups.quantiles import EMPTY, Sketch, merged, quantile, sketch

log = logging.getLogger(__name__)

Cell: TypeAlias = Any
EventType: TypeAlias = type[Any]

#: The largest integer that InfluxDB, SQLite and MongoDB all hold.
MAX_SUM = 2**63 - 1

#: Up to here distinct values are kept as they are; beyond, as a sketch.
EXACT_DISTINCT = 1000


@runtime_checkable
class Measure(Protocol):
    """``types``: the events it looks at. ``integer``: whether its value is a count of something. ``combining``: how
    values of several rows make one."""

    types: frozenset[EventType]
    integer: bool
    combining: Combining

    def empty(self) -> Cell:
        """The cell of no events."""

    def of(self, events: Sequence[Any]) -> Cell:
        """The cell of these events; those of other types count for nothing."""

    def merge(self, one: Cell, other: Cell) -> Cell:
        """The cell of the events of both."""

    def value(self, cell: Cell) -> int | float | None:
        """The number, or None where there is none (the minimum of nothing)."""

    def pack(self, cell: Cell) -> Any:
        """The cell as msgpack can hold it."""

    def unpack(self, packed: Any) -> Cell:
        """Inverse of ``pack``."""


def added(one: int, other: int) -> int:
    """Sum that stops at the largest storable integer instead of wrapping around."""
    total = one + other
    if total > MAX_SUM:
        if MAX_SUM not in (one, other):  # said once of each total, not of every event after
            log.warning("a sum stopped at 2^63 - 1: the true total no longer fits any store")
        return MAX_SUM
    return total


class _Plain:
    """What measures whose cell is a number or None share."""

    integer = True
    combining: Combining = "sum"

    def __init__(self, types: Iterable[EventType]) -> None:
        self.types = frozenset(types)

    def value(self, cell: Cell) -> int | float | None:
        number: int | float | None = cell
        return number

    def pack(self, cell: Cell) -> Any:
        return cell

    def unpack(self, packed: Any) -> Cell:
        return packed


class Count(_Plain):
    """How many events of these types."""

    def __init__(self, *types: EventType) -> None:
        super().__init__(types)

    def empty(self) -> int:
        return 0

    def of(self, events: Sequence[Any]) -> int:
        types = self.types
        return sum(1 for event in events if type(event) in types)

    def merge(self, one: int, other: int) -> int:
        return added(one, other)


class Failures(Count):
    """How many events of these types say that what they looked at is not up."""

    def of(self, events: Sequence[Any]) -> int:
        types = self.types
        return sum(1 for event in events if type(event) in types and not event.up)


class Sum(_Plain):
    """Total of an integer field over the events of one type; an event without the field adds nothing."""

    def __init__(self, event_type: EventType, field: str) -> None:
        super().__init__((event_type,))
        self.field = field

    def empty(self) -> int:
        return 0

    def of(self, events: Sequence[Any]) -> int:
        total = 0
        for event in events:
            if type(event) in self.types:
                number = getattr(event, self.field)
                if number is not None:
                    total = added(total, number)
        return total

    def merge(self, one: int, other: int) -> int:
        return added(one, other)


class _Extreme(_Plain):
    def __init__(self, event_type: EventType, field: str, *, integer: bool = True) -> None:
        super().__init__((event_type,))
        self.field = field
        self.integer = integer

    def empty(self) -> None:
        return None

    def _numbers(self, events: Sequence[Any]) -> list[int | float]:
        numbers = (getattr(event, self.field) for event in events if type(event) in self.types)
        return [number for number in numbers if number is not None]


class Min(_Extreme):
    """Smallest value of a field; None where no event has it."""

    combining: Combining = "min"

    def of(self, events: Sequence[Any]) -> int | float | None:
        return min(self._numbers(events), default=None)

    def merge(self, one: int | float | None, other: int | float | None) -> int | float | None:
        if one is None or other is None:
            return other if one is None else one
        return min(one, other)


class Max(_Extreme):
    """Largest value of a field; None where no event has it."""

    combining: Combining = "max"

    def of(self, events: Sequence[Any]) -> int | float | None:
        return max(self._numbers(events), default=None)

    def merge(self, one: int | float | None, other: int | float | None) -> int | float | None:
        if one is None or other is None:
            return other if one is None else one
        return max(one, other)


class Mean:
    """Mean of a field over the events of one type that have it; None of none.

    ``parts``: the sum is of integers, each the value times ``parts`` (1000: microseconds of a field in milliseconds).
    A sum of floats would depend on their order.
    """

    integer = False
    combining: Combining = MEANS

    def __init__(self, event_type: EventType, field: str, *, parts: int = 1) -> None:
        self.types = frozenset((event_type,))
        self.field = field
        self.parts = parts

    def empty(self) -> tuple[int, int]:
        return (0, 0)

    def of(self, events: Sequence[Any]) -> tuple[int, int]:
        count = total = 0
        for event in events:
            if type(event) in self.types and (value := getattr(event, self.field)) is not None:
                count += 1
                total += value if self.parts == 1 else round(value * self.parts)
        return (count, added(0, total))

    def merge(self, one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
        return (one[0] + other[0], added(one[1], other[1]))

    def value(self, cell: tuple[int, int]) -> float | None:
        count, total = cell
        return total / (count * self.parts) if count else None

    def pack(self, cell: tuple[int, int]) -> Any:
        return cell

    def unpack(self, packed: Any) -> tuple[int, int]:
        count, total = packed
        return (count, total)


class Quantile:
    """The value of a field at index ⌊q·(n−1)⌋ of the n sorted ones, within 2 %; None of none. ``per_cent`` is q in
    hundredths. The cell is a DDSketch (``quantiles``)."""

    integer = False
    combining: Combining = QUANTILES

    def __init__(self, event_type: EventType, field: str, per_cent: int) -> None:
        self.types = frozenset((event_type,))
        self.field = field
        self.per_cent = per_cent

    def empty(self) -> Sketch:
        return EMPTY

    def of(self, events: Sequence[Any]) -> Sketch:
        values = (getattr(event, self.field) for event in events if type(event) in self.types)
        return sketch(value for value in values if value is not None)

    def merge(self, one: Sketch, other: Sketch) -> Sketch:
        return merged((one, other))

    def value(self, cell: Sketch) -> float | None:
        return quantile(cell, self.per_cent)

    def pack(self, cell: Sketch) -> Any:
        return sorted(cell.items())

    def unpack(self, packed: Any) -> Sketch:
        return dict(packed)


@lru_cache(maxsize=50_000)
def fingerprint(value: str) -> int:
    """64 bits in place of the value: personal ids do not belong into the rows of a rollup."""
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


class Distinct:
    """How many different values a field has: exact up to 1000, then within 3 %.

    The cell is a frozenset of fingerprints, or beyond 1000 of them the bytes of a HyperLogLog sketch
    (``hyperloglog``, loaded for the first of them). An event without the field does not count.
    """

    integer = True
    combining: Combining = DISTINCT

    def __init__(self, types: Iterable[EventType], field: str) -> None:
        self.types = frozenset(types)
        self.field = field

    def empty(self) -> frozenset[int]:
        return frozenset()

    def of(self, events: Sequence[Any]) -> frozenset[int] | bytes:
        return self._bounded(
            frozenset(
                fingerprint(value)
                for event in events
                if type(event) in self.types and (value := getattr(event, self.field)) is not None
            )
        )

    def merge(self, one: frozenset[int] | bytes, other: frozenset[int] | bytes) -> frozenset[int] | bytes:
        if isinstance(one, frozenset) and isinstance(other, frozenset):
            if other <= one:
                return one
            return self._bounded(one | other)
        from topology.rollups import hyperloglog

        return hyperloglog.merged((one, other))

    def value(self, cell: frozenset[int] | bytes) -> int:
        if isinstance(cell, frozenset):
            return len(cell)
        from topology.rollups import hyperloglog

        return hyperloglog.estimate(cell)

    def pack(self, cell: frozenset[int] | bytes) -> Any:
        return sorted(cell) if isinstance(cell, frozenset) else cell

    def unpack(self, packed: Any) -> frozenset[int] | bytes:
        return packed if isinstance(packed, bytes) else frozenset(packed)

    def _bounded(self, values: frozenset[int]) -> frozenset[int] | bytes:
        if len(values) <= EXACT_DISTINCT:
            return values
        from topology.rollups import hyperloglog

        return hyperloglog.packed(values)
