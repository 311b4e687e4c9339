"""The archive and the dead letters, embedded: two tables. The interfaces and their promises: ``sinks.py``."""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Sequence

from topology.position import Position
from topology.sinks import DeadLetter, RawEvent
from topology.sqlite.file import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    time INTEGER NOT NULL,
    received INTEGER NOT NULL,
    type TEXT NOT NULL,
    space_id TEXT,
    event BLOB NOT NULL,
    original BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_time ON events (time, position);
CREATE INDEX IF NOT EXISTS events_type ON events (type, time, position);
CREATE INDEX IF NOT EXISTS events_space ON events (space_id, time) WHERE space_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS dead_letters (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    received INTEGER NOT NULL,
    agent TEXT NOT NULL,
    reason TEXT NOT NULL,
    pointer TEXT NOT NULL,
    body BLOB NOT NULL,
    length INTEGER NOT NULL,
    sha256 TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS dead_letters_position ON dead_letters (position, agent);
"""

_LETTER = "id, position, received, agent, reason, pointer, body, length, sha256"


class SqliteRawEvents:
    """``database`` may hold other tables too; whoever made it opens and closes it."""

    name = "events"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def insert(self, events: Sequence[RawEvent]) -> None:
        await self._database.write(
            lambda connection: connection.executemany(
                "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", events
            )
        )

    async def query(
        self,
        *,
        since: int | None,
        until: int | None,
        type: str | Sequence[str] | None,
        limit: int,
        before: tuple[int, Position] | None = None,
    ) -> Sequence[RawEvent]:
        conditions = ["1"]
        values: list[str | int] = []
        for condition, value in (("time >= ?", since), ("time < ?", until)):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        if before is not None:
            conditions.append("(time, position) < (?, ?)")
            values += before
        # Of several types each is read in the order of its index, side by side: in one statement all would be read
        # to be sorted.
        types = (None,) if type is None else (type,) if isinstance(type, str) else tuple(dict.fromkeys(type))
        if types != (None,):
            conditions.append("type = ?")
        statement = (
            "SELECT id, position, time, received, type, space_id, event, original FROM events WHERE "  # noqa: S608
            + " AND ".join(conditions)
            + " ORDER BY time DESC, position DESC LIMIT ?"
        )

        def select(connection: sqlite3.Connection) -> list[RawEvent]:
            cursors = [
                connection.execute(statement, (*values, *(() if each is None else (each,)), limit))
                for each in types
            ]
            newest_first = heapq.merge(
                *(map(RawEvent._make, cursor) for cursor in cursors),
                key=lambda event: (event.time, event.position),
                reverse=True,
            )
            found = list(itertools.islice(newest_first, limit))
            for cursor in cursors:
                cursor.close()
            return found

        return await self._database.read(select)


class SqliteDeadLetters:
    """``database`` may hold other tables too; whoever made it opens and closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        await self._database.write(
            lambda connection: connection.executemany(
                "INSERT OR IGNORE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", letters
            )
        )

    async def list(
        self, *, limit: int, before: tuple[Position, str, str] | None = None
    ) -> Sequence[DeadLetter]:
        below = "" if before is None else " WHERE (position, agent, id) < (?, ?, ?)"
        statement = (
            f"SELECT {_LETTER} FROM dead_letters{below}"  # noqa: S608
            " ORDER BY position DESC, agent DESC, id DESC LIMIT ?"
        )
        return await self._database.read(
            lambda connection: [
                DeadLetter(*record) for record in connection.execute(statement, (*(before or ()), limit))
            ]
        )

    async def get(self, id: str) -> DeadLetter | None:
        def one(connection: sqlite3.Connection) -> DeadLetter | None:
            found = connection.execute(
                f"SELECT {_LETTER} FROM dead_letters WHERE id = ?",  # noqa: S608
                (id,),
            ).fetchone()
            return None if found is None else DeadLetter(*found)

        return await self._database.read(one)

    async def count(self) -> int:
        return await self._database.read(
            lambda connection: int(connection.execute("SELECT count(*) FROM dead_letters").fetchone()[0])
        )

    async def remove(self, ids: Sequence[str]) -> int:
        statement = "DELETE FROM dead_letters WHERE id = ?"
        return await self._database.write(
            lambda connection: sum(connection.execute(statement, (id_,)).rowcount for id_ in ids)
        )
