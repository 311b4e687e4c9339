"""Quantiles by DDSketch: buckets whose bounds grow by a constant factor, so that every quantile is within 1 % of the
value at its rank, in any order and after any merge (Masson, Rim, Lee: DDSketch, PVLDB 12(12), 2019).

The mapping of values to buckets is the library's (``ddsketch``). The counts are kept here, as a mapping of bucket to
count: a row has few values, and a store of the library's is made for many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from ddsketch.mapping import LogarithmicMapping

#: Promised are 2 %; the other one is for values that are rounded on their way.
RELATIVE_ACCURACY = 0.01

Sketch: TypeAlias = Mapping[int, int]

#: No values.
EMPTY: Sketch = {}
#: The bucket of 0 and of what is too small to have a logarithm: below all others.
_ZERO = -(1 << 31)

_mapping = LogarithmicMapping(RELATIVE_ACCURACY)
_LEAST: float = _mapping.min_possible


def sketch(values: Iterable[float]) -> Sketch:
    """The sketch of these values; none may be negative."""
    counts: dict[int, int] = {}
    for value in values:
        bucket: int = _mapping.key(value) if value > _LEAST else _ZERO
        counts[bucket] = counts.get(bucket, 0) + 1
    return counts


def merged(sketches: Sequence[Sketch]) -> Sketch:
    """The sketch of the values of all."""
    found = [each for each in sketches if each]
    if len(found) < 2:
        return found[0] if found else EMPTY
    counts = dict(found[0])
    for other in found[1:]:
        for bucket, count in other.items():
            counts[bucket] = counts.get(bucket, 0) + count
    return counts


def quantile(values: Sketch, per_cent: int) -> float | None:
    """The value at index ⌊q·(n−1)⌋ of the n sorted values, None of no values. ``per_cent`` is q in hundredths."""
    total = sum(values.values())
    if not total:
        return None
    rank = per_cent * (total - 1) // 100
    for bucket in sorted(values):
        rank -= values[bucket]
        if rank < 0:
            break
    return 0.0 if bucket == _ZERO else float(_mapping.value(bucket))
