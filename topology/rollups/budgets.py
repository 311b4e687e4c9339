"""The budget of a key tag: so many distinct values a day, the first ones in log order; the rest is folded into
``other``. Without it one producer with a counter in a name makes series without bound.

Which values those are is state: saved with the rows, so that a replay decides as the first reading did. Values are
only ever added, and nothing is added to a full set, so a set that is ahead of the events decides alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from topology.group.rows import RowCache
from topology.position import Position
from topology.rollups.measures import fingerprint
from topology.rollups.tags import OTHER, UNKNOWN, joined, taken_apart
from topology.state import RowKey
from topology.windows import DAY

log = logging.getLogger(__name__)

#: Decisions that are remembered, so that what was decided costs one look.
DECISIONS_REMEMBERED = 50_000
#: Of one value in a set (measured with tracemalloc).
_VALUE_WEIGHT_BYTES = 80

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[int]).decode


class BudgetTable:
    """How the values of one tag on one day are stored: as fingerprints."""

    def empty(self) -> set[int]:
        return set()

    def pack(self, values: set[int]) -> bytes:
        return _encode(sorted(values))

    def unpack(self, packed: bytes) -> set[int]:
        return set(_decode(packed))

    def weight(self, values: set[int]) -> int:
        return _VALUE_WEIGHT_BYTES * len(values)


def budget_table(rollup: str) -> str:
    """Name of the rows that hold the values of a rollup's key tags."""
    return f"{rollup}/keys"


class KeyBudget:
    """The budgets of one rollup's key tags in one reading. ``tags``: names of those that have one, None for those that
    need none. ``exceeded(tag)`` is told of every key that a value beyond the budget was taken out of."""

    def __init__(
        self,
        rows: RowCache,
        rollup: str,
        tags: Sequence[str | None],
        limit: int,
        exceeded: Callable[[str], None],
    ) -> None:
        self._rows = rows
        self._rollup = rollup
        self._table = budget_table(rollup)
        self._tags = [(at, tag) for at, tag in enumerate(tags) if tag is not None]
        self._limit = limit
        self._exceeded = exceeded
        self._decided: dict[tuple[int, str], str] = {}
        self._told: set[tuple[int, str]] = set()

    async def placed(self, wanted: Sequence[tuple[int, str, Position]]) -> list[str]:
        """The keys under which events are folded: for each of their time (epoch seconds), joined tags and position, in
        log order, the joined tags within the budget. Waits while the store is away."""
        decided = self._decided
        if len(decided) > DECISIONS_REMEMBERED:
            decided.clear()
        keys = [(at_s - at_s % DAY.seconds, key) for at_s, key, _ in wanted]
        open_days = {day for day, key in keys if (day, key) not in decided}
        if open_days and self._tags:
            needed = [RowKey(self._table, day, tag) for day in open_days for _, tag in self._tags]
            loaded = await self._rows.load(needed)
            known = {key: row.state for key, row in loaded.items()}
            changed: dict[RowKey, Position] = {}
            for (day, key), (_, _, position) in zip(keys, wanted, strict=True):
                if (day, key) not in decided and day in open_days:
                    decided[day, key] = self._decide(day, key, position, known, changed)
            for row_key, position in changed.items():
                row = loaded[row_key]
                self._rows.change(row, row.state, max(row.upto, position))
        placed = []
        for day, key in keys:
            within = decided.get((day, key), key)
            if within != key:
                self._tell(day, key, within)
            placed.append(within)
        return placed

    def _decide(
        self,
        day: int,
        key: str,
        position: Position,
        known: dict[RowKey, set[int]],
        changed: dict[RowKey, Position],
    ) -> str:
        values = list(taken_apart(key))
        for at, tag in self._tags:
            value = values[at]
            if value in (UNKNOWN, OTHER):
                continue
            row_key = RowKey(self._table, day, tag)
            seen = known[row_key]
            number = fingerprint(value)
            if number in seen:
                continue
            if len(seen) < self._limit:
                seen.add(number)
                changed[row_key] = position
            else:
                values[at] = OTHER
        return joined(values)

    def _tell(self, day: int, key: str, within: str) -> None:
        was, now = taken_apart(key), taken_apart(within)
        for at, tag in self._tags:
            if was[at] == now[at]:
                continue
            self._exceeded(tag)
            if (day, tag) not in self._told:
                self._told.add((day, tag))
                log.warning(
                    "%s: more than %d different values of %s in one day, the rest is counted under %r; look at who "
                    "sends them, or raise EVENTSINK_KEY_BUDGET",
                    self._rollup,
                    self._limit,
                    tag,
                    OTHER,
                )
