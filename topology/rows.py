"""Rows in memory: loaded in bulk when touched, cached within a bound, gone only after a saved write.

A row is the state of one key in one window with ``upto``, the position up to which events are folded into
it. An event at or below ``upto`` is in the row already; so rows need no transaction between them, and a
crash between any two writes replays to the same numbers.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from topology.outages import Outages
from topology.position import NOWHERE, Position
from topology.state import RowKey, RowWrite, StateStore, StoredRow

#: Memory of a row beside its state: the object, its key, its place in the cache (measured with tracemalloc).
ROW_OVERHEAD_BYTES = 700
#: Rows encoded before the loop gets its turn: about 2 ms of work.
ENCODED_AT_A_TIME = 200
#: Rows in one write to the store.
SAVED_AT_A_TIME = 2000


class Table(Protocol):
    """How the state of one kind of row is made, stored and weighed. A ``Rollup`` is one."""

    def empty(self) -> Any: ...
    def pack(self, state: Any, /) -> bytes: ...
    def unpack(self, packed: bytes, /) -> Any: ...
    def weight(self, state: Any, /) -> int: ...


class Row:
    """One row in memory. Change it only by :meth:`RowCache.change`."""

    __slots__ = ("key", "owed", "revision", "saved", "state", "upto", "version", "weight")

    def __init__(self, key: RowKey, version: int, upto: Position, state: Any, owed: bool) -> None:
        self.key = key
        #: Version in the store, 0 = not there.
        self.version = version
        self.upto = upto
        self.state = state
        self.owed = owed
        #: Counts changes in memory; ``saved`` is the revision that the store has.
        self.revision = 0
        self.saved = 0
        self.weight = ROW_OVERHEAD_BYTES


class Saved:
    """A row as one checkpoint wrote it: what the sink is told, and which version that was."""

    __slots__ = ("key", "state", "version")

    def __init__(self, key: RowKey, version: int, state: Any) -> None:
        self.key = key
        self.version = version
        self.state = state


class RowCache:
    """The rows of one group. ``tables`` resolves a table's name; ``owing`` names those with a sink.

    ``versions`` are ascending and unique over all workers (they begin with the generation), so a version
    found in the store tells whose write it was.
    """

    def __init__(
        self,
        store: StateStore,
        tables: Mapping[str, Table],
        *,
        owing: Iterable[str],
        versions: Iterator[int],
        max_bytes: int,
        outages: Outages,
    ) -> None:
        self._store = store
        self._tables = tables
        self._owing = frozenset(owing)
        self._versions = versions
        self._max_bytes = max_bytes
        self._outages = outages
        self._rows: dict[RowKey, Row] = {}
        #: Those that the store has as they are, the longest unused first: they may leave.
        self._clean: OrderedDict[RowKey, Row] = OrderedDict()
        self._dirty: dict[RowKey, Row] = {}
        self._in_use: Counter[RowKey] = Counter()
        self._bytes = 0
        self._dirty_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def bytes_held(self) -> int:
        """Estimated memory of all rows held."""
        return self._bytes

    @property
    def unsaved(self) -> int:
        """Rows that changed since they were saved."""
        return len(self._dirty)

    async def load(self, keys: Sequence[RowKey]) -> Mapping[RowKey, Row]:
        """The rows of these keys, new ones empty. They are in the cache when this returns; use them
        before the next await. Waits while the store is away, and while unsaved rows fill the cache."""
        await self._room.wait()
        rows, clean = self._rows, self._clean
        missing = [key for key in keys if key not in rows]
        if missing:
            with self._held(keys):
                stored = await self._outages.ridden_out("state", lambda: self._store.load_rows(missing))
                for key in missing:
                    if key not in rows:
                        self._admit(key, stored.get(key))
                self._evict()  # never what is handed out here: the caller is about to change it
        found = {}
        for key in keys:
            found[key] = rows[key]
            if key in clean:
                clean.move_to_end(key)
        return found

    def change(self, row: Row, state: Any, upto: Position) -> None:
        """Set a row's state, with the changes of all events up to ``upto`` in it."""
        if self._rows.get(row.key) is not row:
            raise RuntimeError(f"{row.key} left the cache before it was changed")
        row.state = state
        row.upto = upto
        row.revision += 1
        if row.key.table in self._owing:
            row.owed = True
        weight = ROW_OVERHEAD_BYTES + self._table(row.key).weight(state)
        grown = weight - row.weight
        row.weight = weight
        self._bytes += grown
        if row.key in self._dirty:
            self._dirty_bytes += grown
        else:
            del self._clean[row.key]
            self._dirty[row.key] = row
            self._dirty_bytes += weight
        if self._dirty_bytes >= self._max_bytes:
            self._room.clear()

    def dirty(self, wanted: Callable[[RowKey], bool]) -> list[Row]:
        """The unsaved rows whose key is ``wanted``."""
        return [row for row in self._dirty.values() if wanted(row.key)]

    async def save(self, rows: Sequence[Row]) -> list[Saved]:
        """Write rows durably, each over the version it was read at. Returns those that owe the sink.

        Rows may change meanwhile: they stay unsaved with the newer state. Raises ``Conflict`` (another
        worker wrote one) or ``Unavailable`` (the very same writes may be tried again).
        """
        owing: list[Saved] = []
        for first in range(0, len(rows), SAVED_AT_A_TIME):
            owing += await self._save_some(rows[first : first + SAVED_AT_A_TIME])
        self._evict()
        return owing

    async def _save_some(self, rows: Sequence[Row]) -> list[Saved]:
        writes: list[RowWrite] = []
        revisions: list[int] = []
        states: list[Any] = []
        for count, row in enumerate(rows, 1):
            data = self._table(row.key).pack(row.state)
            stored = StoredRow(row.key, next(self._versions), row.upto, row.owed, data, row.key.at)
            writes.append(RowWrite(stored, row.version))
            revisions.append(row.revision)
            states.append(row.state)
            if count % ENCODED_AT_A_TIME == 0:
                await asyncio.sleep(0)
        # A write whose answer was lost may have happened: it is repeated as it is until it is known.
        await self._outages.ridden_out("state", lambda: self._store.save_rows(writes))
        owing: list[Saved] = []
        for row, write, revision, state in zip(rows, writes, revisions, states, strict=True):
            row.version = write.row.version
            row.saved = revision
            if row.revision == revision and self._dirty.pop(row.key, None) is not None:
                self._dirty_bytes -= row.weight
                self._clean[row.key] = row
            if write.row.owed:
                owing.append(Saved(row.key, row.version, state))
        if self._dirty_bytes < self._max_bytes:
            self._room.set()
        return owing

    def abandon(self) -> None:
        """The reading is void: nobody saves these rows, so nobody may wait for that."""
        self._max_bytes = sys.maxsize
        self._room.set()

    def settle(self, settled: Iterable[tuple[RowKey, int]]) -> None:
        """The sink has the values of these versions: rows that have not moved on owe nothing."""
        for key, version in settled:
            row = self._rows.get(key)
            if row is not None and row.version == version and row.revision == row.saved:
                row.owed = False

    def forget(self, wanted: Callable[[RowKey], bool]) -> None:
        """Drop saved rows that were purged from the store."""
        for key in [key for key in self._clean if wanted(key) and key not in self._in_use]:
            self._drop(key)

    @contextmanager
    def _held(self, keys: Sequence[RowKey]) -> Iterator[None]:
        """Keep rows from being evicted while the rest of a bulk is still being loaded."""
        self._in_use.update(keys)
        try:
            yield
        finally:
            self._in_use.subtract(keys)
            for key in keys:
                if not self._in_use[key]:
                    del self._in_use[key]

    def _admit(self, key: RowKey, stored: StoredRow | None) -> None:
        table = self._table(key)
        if stored is None:
            row = Row(key, 0, NOWHERE, table.empty(), owed=False)
        else:
            row = Row(key, stored.version, stored.upto, table.unpack(stored.data), stored.owed)
        row.weight = ROW_OVERHEAD_BYTES + table.weight(row.state)
        self._bytes += row.weight
        self._rows[key] = self._clean[key] = row

    def _evict(self) -> None:
        excess = self._bytes - self._max_bytes
        leaving: list[RowKey] = []
        for key, row in self._clean.items():
            if excess <= 0:
                break
            if key not in self._in_use:
                leaving.append(key)
                excess -= row.weight
        for key in leaving:
            self._drop(key)

    def _drop(self, key: RowKey) -> None:
        del self._clean[key]
        self._bytes -= self._rows.pop(key).weight

    def _table(self, key: RowKey) -> Table:
        return self._tables[key.table]
