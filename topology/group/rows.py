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
from typing import Any, NamedTuple, Protocol

from topology.outages import Outages
from topology.position import NOWHERE, Position
from topology.state import RowKey, RowWrite, StoredRow

#: Memory of a row beside its state: the object, its key, its place in the cache (measured with tracemalloc).
ROW_OVERHEAD_BYTES = 700
#: Rows encoded before the loop gets its turn: about 2 ms of work.
ENCODED_AT_A_TIME = 200
#: Rows in one write to the store.
SAVED_AT_A_TIME = 2000
#: Keys that are known to have no row: minutes without an event are looked for again and again.
ABSENT_REMEMBERED = 50_000


class Table(Protocol):
    """How the state of one kind of row is made, stored and weighed. A ``Rollup`` is one."""

    def empty(self) -> Any: ...
    def pack(self, state: Any, /) -> bytes: ...
    def unpack(self, packed: bytes, /) -> Any: ...
    def weight(self, state: Any, /) -> int: ...


class RowStore(Protocol):
    """What a cache of rows needs of ``state.StateStore``."""

    async def load_rows(self, keys: Sequence[RowKey], /) -> Mapping[RowKey, StoredRow]: ...
    async def save_rows(self, writes: Sequence[RowWrite], /) -> None: ...
    async def keys_of(self, table: str, /) -> Sequence[RowKey]: ...


class Row:
    """One row in memory. Change it only by :meth:`RowCache.change`."""

    __slots__ = ("key", "owed", "revision", "saved", "state", "until", "upto", "version", "weight")

    def __init__(self, key: RowKey, version: int, upto: Position, state: Any, owed: bool, until: int) -> None:
        self.key = key
        #: Version in the store, 0 = not there.
        self.version = version
        self.upto = upto
        self.state = state
        self.owed = owed
        #: The latest event time in it (epoch seconds), by which it is purged.
        self.until = until
        #: Counts changes in memory; ``saved`` is the revision that the store has.
        self.revision = 0
        self.saved = 0
        self.weight = ROW_OVERHEAD_BYTES


class Unsaved(NamedTuple):
    """A row as it was when a checkpoint began. All that one checkpoint saves is of one moment: a row that is derived
    from another is then never behind it."""

    row: Row
    revision: int
    state: Any
    upto: Position
    owed: bool
    until: int


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
        store: RowStore,
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
        self._absent: set[RowKey] = set()
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

    async def keys_of(self, table: str) -> Sequence[RowKey]:
        """The keys of all rows of a small table, those that are not yet saved among them. Waits while the store is
        away."""
        stored = await self._outages.ridden_out("state", lambda: self._store.keys_of(table))
        return list(dict.fromkeys([*stored, *(key for key in self._rows if key.table == table)]))

    def keys_held(self, table: str, start: int, end: int) -> Sequence[RowKey]:
        """The keys of the rows in memory of windows that start in [start, end) and that have changed since they were
        saved."""
        return [key for key in self._dirty if key.table == table and start <= key.at < end]

    async def peek(self, keys: Sequence[RowKey]) -> Mapping[RowKey, Any]:
        """The states of those of the rows that exist, to be looked at: a row that is not in the cache does not come
        into it. Waits while the store is away."""
        rows, absent = self._rows, self._absent
        missing = [key for key in keys if key not in rows and key not in absent]
        found: dict[RowKey, Any] = {}
        # Until all are there, none may leave: what is in the cache now would be missed, and what comes into it, is
        # changed, saved and leaves meanwhile would be taken for what the store had before.
        with self._held(keys):
            if missing:
                stored = await self._outages.ridden_out("state", lambda: self._store.load_rows(missing))
                if len(absent) > ABSENT_REMEMBERED:
                    absent.clear()
                for key in missing:
                    if (there := stored.get(key)) is not None:
                        found[key] = self._table(key).unpack(there.data)
                    elif key not in rows:
                        absent.add(key)
            for key in keys:
                if (row := rows.get(key)) is not None and (row.version or row.revision):
                    found[key] = row.state  # it may have been loaded, or changed, meanwhile
        return found

    async def upto(self, keys: Sequence[RowKey]) -> Mapping[RowKey, Position]:
        """Up to where events are folded into those of the rows that exist. As ``peek``."""
        rows = self._rows
        missing = [key for key in keys if key not in rows]
        found: dict[RowKey, Position] = {}
        if missing:
            stored = await self._outages.ridden_out("state", lambda: self._store.load_rows(missing))
            found = {key: row.upto for key, row in stored.items()}
        for key in keys:
            if (row := rows.get(key)) is not None and (row.version or row.revision):
                found[key] = row.upto
        return found

    def change(
        self,
        row: Row,
        state: Any,
        upto: Position,
        *,
        until: int | None = None,
        owed: bool | None = None,
    ) -> None:
        """Set a row's state, with the changes of all events up to ``upto`` in it.

        ``until``: its latest event time (epoch seconds) where that is not its window. ``owed``: None where every change
        of the row is owed to the sink.
        """
        if self._rows.get(row.key) is not row:
            raise RuntimeError(f"{row.key} left the cache before it was changed")
        row.state = state
        row.upto = upto
        row.revision += 1
        if until is not None:
            row.until = until
        if owed is not None:
            row.owed = owed
        elif row.key.table in self._owing:
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

    def dirty(self) -> list[Unsaved]:
        """The unsaved rows, as they are now."""
        return [
            Unsaved(row, row.revision, row.state, row.upto, row.owed, row.until)
            for row in self._dirty.values()
        ]

    async def save(self, rows: Sequence[Unsaved]) -> list[Saved]:
        """Write rows durably, each over the version it was read at. Returns those that owe the sink.

        Rows may change meanwhile: what is written is as it was, and they stay unsaved. Raises ``Conflict`` (another
        worker wrote one) or ``Unavailable`` (the very same writes may be tried again).
        """
        owing: list[Saved] = []
        for first in range(0, len(rows), SAVED_AT_A_TIME):
            owing += await self._save_some(rows[first : first + SAVED_AT_A_TIME])
        self._evict()
        return owing

    async def _save_some(self, rows: Sequence[Unsaved]) -> list[Saved]:
        writes: list[RowWrite] = []
        for count, each in enumerate(rows, 1):
            key = each.row.key
            data = self._table(key).pack(each.state)
            stored = StoredRow(key, next(self._versions), each.upto, each.owed, data, each.until)
            writes.append(RowWrite(stored, each.row.version))
            if count % ENCODED_AT_A_TIME == 0:
                await asyncio.sleep(0)
        # A write whose answer was lost may have happened: it is repeated as it is until it is known.
        await self._outages.ridden_out("state", lambda: self._store.save_rows(writes))
        owing: list[Saved] = []
        for (row, revision, state, *_), write in zip(rows, writes, strict=True):
            row.version = write.row.version
            row.saved = revision
            if row.revision == revision and self._dirty.pop(row.key, None) is not None:
                self._dirty_bytes -= row.weight
                self._clean[row.key] = row
            if write.row.owed and row.key.table in self._owing:
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

    def found(self, key: RowKey, version: int) -> bool:
        """The store was seen to have this row at this version, which may be another worker's: what is remembered of
        the row at another one is void. False where it cannot be dropped, because it changed here or is being loaded:
        then nothing must be made of it. Whoever saves it has a newer version, or meets the conflict."""
        self._absent.discard(key)
        row = self._rows.get(key)
        if row is None or row.version == version:
            return True
        if key in self._dirty or key in self._in_use:
            return False
        self._drop(key)
        return True

    def forget(self, wanted: Callable[[Row], bool]) -> None:
        """Drop saved rows that were purged from the store."""
        for key in [key for key, row in self._clean.items() if wanted(row) and key not in self._in_use]:
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
            row = Row(key, 0, NOWHERE, table.empty(), owed=False, until=key.at)
        else:
            state = table.unpack(stored.data)
            row = Row(key, stored.version, stored.upto, state, stored.owed, stored.until)
        self._absent.discard(key)
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
