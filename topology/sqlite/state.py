"""The store of rows, embedded: tables of the one SQLite file. The interface and its promises: ``state.py``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from topology.errors import Conflict, Superseded
from topology.position import Position
from topology.sqlite.file import Database
from topology.state import GroupState, Request, RowKey, RowWrite, StoredRow

SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    partition INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    owed INTEGER NOT NULL,
    data BLOB NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (partition, kind, at, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_owed ON rows (kind, until) WHERE owed;
CREATE INDEX IF NOT EXISTS rows_of_no_window ON rows (kind, until) WHERE at = 0;
CREATE TABLE IF NOT EXISTS groups (
    name TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    state BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epochs (partition INTEGER PRIMARY KEY, epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS arrivals (position INTEGER PRIMARY KEY, arrival_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    what BLOB NOT NULL,
    state BLOB NOT NULL,
    version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_of_owner ON requests (owner);
"""

_COLUMNS = "partition, kind, at, key, version, upto, owed, data, until"
#: With a plain ``at = ?`` each new value makes SQLite compile the statement again, to see whether the index of
#: ``at = 0`` serves: two thirds of a look-up, half of a settlement. The value of an expression it does not ask for.
_THE_ROW = "partition = ? AND kind = ? AND at = +? AND key = ?"
#: One key at a time: with a list of keys SQLite reads the whole table.
_LOAD = f"SELECT {_COLUMNS} FROM rows WHERE {_THE_ROW}"  # noqa: S608 - constants
#: A row that was purged meanwhile is made again: only another version in its place forbids the write.
_SAVE = (
    f"INSERT INTO rows ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608 - constants
    "ON CONFLICT (partition, kind, at, key) DO UPDATE "
    "SET version = excluded.version, upto = excluded.upto, owed = excluded.owed, data = excluded.data, "
    "until = excluded.until "
    "WHERE version = ?"
)
_SETTLE = f"UPDATE rows SET owed = 0 WHERE {_THE_ROW} AND version = ?"  # noqa: S608 - constants
_OWE_AGAIN = f"UPDATE rows SET owed = 1 WHERE {_THE_ROW} AND version <> ?"  # noqa: S608 - constants
_OWE = f"UPDATE rows SET owed = 1 WHERE {_THE_ROW}"  # noqa: S608 - constants
COUNT_OWED = "SELECT count(*) FROM rows WHERE owed AND kind = ? AND until < ?"
_KEYS = "SELECT kind, at, key, partition FROM rows WHERE partition = 0 AND kind = ?"
#: A row ends at or after its window's start, so of windows only those are looked at that start early enough. Rows
#: of no window all lie at 0, which neither range may touch; their index is named, lest some SQLite choose the
#: primary key and walk through all of them.
_OLD = "partition = 0 AND kind = :table AND until < :before AND upto <= :upto AND (:owed OR NOT owed)"
PURGE = (
    f"DELETE FROM rows WHERE at > 0 AND at < :before AND {_OLD}",  # noqa: S608 - constants
    f"DELETE FROM rows WHERE at < min(0, :before) AND {_OLD}",  # noqa: S608 - constants
    f"DELETE FROM rows INDEXED BY rows_of_no_window WHERE at = 0 AND {_OLD}",  # noqa: S608 - constants
)
_REQUEST = "SELECT id, owner, what, state, version FROM requests"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(GroupState).decode


class SqliteState:
    """``database`` may hold other tables too; whoever made it opens and closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    # -- who works --

    async def begin(self, group: str) -> GroupState:
        def next_generation(connection: sqlite3.Connection) -> GroupState:
            connection.execute(
                "INSERT INTO groups (name, generation) VALUES (?, 1) "
                "ON CONFLICT (name) DO UPDATE SET generation = generation + 1",
                (group,),
            )
            state = _group(connection, group)
            if state is None:  # the statement above made it
                raise AssertionError(group)
            return state

        return await self._database.write(next_generation)

    async def generation(self, group: str) -> int:
        state = await self.read_group(group)
        return 0 if state is None else state.generation

    async def save_group(self, group: str, state: GroupState) -> None:
        def save(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE groups SET state = ? WHERE name = ? AND generation = ?",
                (_encode(state), group, state.generation),
            ).rowcount

        if not await self._database.write(save):
            raise Superseded(f"another worker took over group {group}: this one stops, nothing is lost")

    async def read_group(self, group: str) -> GroupState | None:
        return await self._database.read(lambda connection: _group(connection, group))

    async def read_groups(self) -> Mapping[str, GroupState]:
        def groups(connection: sqlite3.Connection) -> dict[str, GroupState]:
            names = [name for (name,) in connection.execute("SELECT name FROM groups")]
            states = ((name, _group(connection, name)) for name in names)
            return {name: state for name, state in states if state is not None}

        return await self._database.read(groups)

    # -- which log --

    async def epoch(self) -> int:
        return await self._database.read(_epoch)

    async def raise_epoch(self, above: int) -> int:
        def raised(connection: sqlite3.Connection) -> int:
            connection.execute(
                "INSERT INTO epochs VALUES (0, ?) ON CONFLICT (partition) DO UPDATE SET epoch = excluded.epoch "
                "WHERE epoch < excluded.epoch",
                (above + 1,),
            )
            return _epoch(connection)

        return await self._database.write(raised)

    # -- rows --

    async def load_rows(self, keys: Sequence[RowKey]) -> Mapping[RowKey, StoredRow]:
        def load(connection: sqlite3.Connection) -> dict[RowKey, StoredRow]:
            found = {}
            for key in keys:
                record = connection.execute(_LOAD, _address(key)).fetchone()
                if record is not None:
                    found[key] = _row(record)
            return found

        return await self._database.read(load)

    async def save_rows(self, writes: Sequence[RowWrite]) -> None:
        def save(connection: sqlite3.Connection) -> list[RowKey]:
            records = [(*_address(row.key), *row[1:], expected) for row, expected in writes]
            if connection.executemany(_SAVE, records).rowcount == len(writes):
                return []
            # The very version that was to be written is success: an earlier answer was lost.
            return [row.key for row, _ in writes if _version(connection, row.key) != row.version]

        conflicts = await self._database.write(save)
        if conflicts:
            raise Conflict(conflicts)

    async def owed_rows(self, tables: Sequence[str], limit: int) -> Sequence[StoredRow]:
        marks = ", ".join("?" * len(tables))

        def owed(connection: sqlite3.Connection) -> list[StoredRow]:
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM rows WHERE owed AND kind IN ({marks}) LIMIT ?",  # noqa: S608 - marks only
                (*tables, limit),
            )
            return [_row(record) for record in found]

        return await self._database.read(owed)

    async def settle_rows(self, settled: Sequence[tuple[RowKey, int]]) -> None:
        records = [(*_address(key), version) for key, version in settled]

        def settle(connection: sqlite3.Connection) -> None:
            if connection.executemany(_SETTLE, records).rowcount < len(records):
                connection.executemany(_OWE_AGAIN, records)

        await self._database.write(settle)

    async def owe_rows(self, keys: Sequence[RowKey]) -> None:
        records = [_address(key) for key in keys]
        await self._database.write(lambda connection: connection.executemany(_OWE, records))

    async def count_owed(self, table: str, *, before: int) -> int:
        def count(connection: sqlite3.Connection) -> int:
            return int(connection.execute(COUNT_OWED, (table, before)).fetchone()[0])

        return await self._database.read(count)

    async def keys_of(self, table: str) -> Sequence[RowKey]:
        def keys(connection: sqlite3.Connection) -> list[RowKey]:
            return [RowKey(*record) for record in connection.execute(_KEYS, (table,))]

        return await self._database.read(keys)

    async def keys_between(self, table: str, start: int, end: int) -> Sequence[RowKey]:
        def keys(connection: sqlite3.Connection) -> list[RowKey]:
            found = connection.execute(_KEYS + " AND at >= ? AND at < ?", (table, start, end))
            return [RowKey(*record) for record in found]

        return await self._database.read(keys)

    async def purge_rows(self, table: str, *, before: int, upto: Position, owed: bool = False) -> int:
        which = {"table": table, "before": before, "upto": upto, "owed": owed}

        def purge(connection: sqlite3.Connection) -> int:
            return sum(connection.execute(statement, which).rowcount for statement in PURGE)

        return await self._database.write(purge)

    # -- requests --

    async def put_request(self, request: Request) -> None:
        await self._database.write(
            lambda connection: connection.execute(
                "INSERT INTO requests (id, owner, what, state, version) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO NOTHING",
                (request.id, request.group, request.what, request.state, request.version),
            )
        )

    async def requests(self, group: str) -> Sequence[Request]:
        def of_group(connection: sqlite3.Connection) -> list[Request]:
            found = connection.execute(f"{_REQUEST} WHERE owner = ? ORDER BY id", (group,))
            return [_request(record) for record in found]

        return await self._database.read(of_group)

    async def request(self, id: str) -> Request | None:
        return await self._database.read(lambda connection: _find_request(connection, id))

    async def save_request(self, request: Request, *, expected: int) -> bool:
        def save(connection: sqlite3.Connection) -> bool:
            if connection.execute(
                "UPDATE requests SET owner = ?, what = ?, state = ?, version = ? WHERE id = ? AND version = ?",
                (request.group, request.what, request.state, request.version, request.id, expected),
            ).rowcount:
                return True
            there = _find_request(connection, request.id)
            return there is not None and (there.version, there.state) == (request.version, request.state)

        return await self._database.write(save)

    async def delete_request(self, id: str) -> None:
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM requests WHERE id = ?", (id,))
        )

    # -- facts --

    async def arrivals(self, first: Position, last: Position) -> Mapping[Position, int]:
        def between(connection: sqlite3.Connection) -> dict[Position, int]:
            return dict(
                connection.execute("SELECT * FROM arrivals WHERE position BETWEEN ? AND ?", (first, last))
            )

        return await self._database.read(between)

    async def record_arrivals(self, arrivals: Mapping[Position, int]) -> Mapping[Position, int]:
        def record(connection: sqlite3.Connection) -> dict[Position, int]:
            connection.executemany("INSERT OR IGNORE INTO arrivals VALUES (?, ?)", arrivals.items())
            return {
                position: connection.execute(
                    "SELECT arrival_ms FROM arrivals WHERE position = ?", (position,)
                ).fetchone()[0]
                for position in arrivals
            }

        return await self._database.write(record)

    async def purge_arrivals(self, upto: Position, before_ms: int) -> None:
        await self._database.write(
            lambda connection: connection.execute(
                "DELETE FROM arrivals WHERE position <= ? AND arrival_ms < ?", (upto, before_ms)
            )
        )


def _group(connection: sqlite3.Connection, name: str) -> GroupState | None:
    found = connection.execute("SELECT generation, state FROM groups WHERE name = ?", (name,)).fetchone()
    if found is None:
        return None
    generation, state = found
    if state is None:
        return GroupState(generation=generation)
    return msgspec.structs.replace(_decode(state), generation=generation)


def _epoch(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT epoch FROM epochs WHERE partition = 0").fetchone()
    return 0 if found is None else int(found[0])


def _address(key: RowKey) -> tuple[int, str, int, str]:
    return key.partition, key.table, key.at, key.key


def _version(connection: sqlite3.Connection, key: RowKey) -> int | None:
    found = connection.execute(f"SELECT version FROM rows WHERE {_THE_ROW}", _address(key)).fetchone()  # noqa: S608
    return None if found is None else int(found[0])


def _row(record: tuple[int, str, int, str, int, int, int, bytes, int]) -> StoredRow:
    partition, kind, at, key, version, upto, owed, data, until = record
    return StoredRow(RowKey(kind, at, key, partition), version, Position(upto), bool(owed), data, until)


def _find_request(connection: sqlite3.Connection, id: str) -> Request | None:
    found = connection.execute(f"{_REQUEST} WHERE id = ?", (id,)).fetchone()
    return None if found is None else _request(found)


def _request(record: tuple[str, str, bytes, bytes, int]) -> Request:
    key, group, what, state, version = record
    return Request(id=key, group=group, what=what, state=state, version=version)
