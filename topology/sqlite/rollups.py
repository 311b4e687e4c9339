"""The rollup sink, embedded: one table. The interface and its promises: ``sinks.py``."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence

from topology.errors import Refused
from topology.sinks import Point, Value
from topology.sqlite.file import Database

#: The key is also the index of every query: windows of one rollup, by time.
SCHEMA = """
CREATE TABLE IF NOT EXISTS rollups (
    rollup TEXT NOT NULL,
    window TEXT NOT NULL,
    time INTEGER NOT NULL,
    tags TEXT NOT NULL,
    fields TEXT NOT NULL,
    PRIMARY KEY (rollup, window, time, tags)
) WITHOUT ROWID;
"""

#: Tags are part of an address, so equal ones must give equal text: no option may ever change here.
_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

_LAST = 2**63 - 1


class SqliteRollups:
    """Opening and closing are those of ``database``, which may hold other tables too. A point without a field
    says nothing and is not written."""

    name = "rollups"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def write(self, points: Sequence[Point]) -> None:
        """All of them in one transaction. ``Refused``: none was written."""
        # In a thread, and before the transaction: 5000 points take 20 ms.
        records = await asyncio.to_thread(lambda: [_record(point) for point in points if point.fields])
        if not records:
            return
        await self._database.write(
            lambda connection: connection.executemany("REPLACE INTO rollups VALUES (?, ?, ?, ?, ?)", records)
        )

    async def query(
        self,
        rollup: str,
        window: str,
        *,
        since: int | None,
        until: int | None,
        where: Mapping[str, str],
        limit: int,
    ) -> Sequence[Point]:
        if limit <= 0 or not all(map(_is_text, where.values())):
            return []
        conditions = ["rollup = ?", "window = ?"]
        values: list[str | int] = [rollup, window]
        if since is not None:
            conditions.append("time >= ?")
            values.append(since)
        if until is not None:
            conditions.append("time < ?")
            values.append(until)
        for tag, wanted in where.items():
            # The path is a value too: a tag's name is never part of the statement.
            conditions.append("json_extract(tags, ?) = ?")
            values += [f'$."{tag}"', wanted]
        wanted_rows = " FROM rollups WHERE " + " AND ".join(conditions)
        # Up to all of the window that the limit falls into: within it, tags as text come in another order
        # than tags as values, which is the one that is promised.
        statement = (
            f"SELECT time, tags, fields{wanted_rows}"
            f" AND time <= ifnull((SELECT time{wanted_rows} ORDER BY time LIMIT 1 OFFSET ?), {_LAST})"
        )

        def select(connection: sqlite3.Connection) -> list[Point]:
            found = connection.execute(statement, (*values, *values, limit - 1))
            points = [
                Point(rollup, window, time, tuple(json.loads(tags).items()), json.loads(fields))
                for time, tags, fields in found
            ]
            points.sort(key=lambda point: (point.time, point.tags))
            return points[:limit]

        return await self._database.read(select)


def _record(point: Point) -> tuple[str, str, int, str, str]:
    tags = _written(dict(point.tags))
    if not _is_text(tags):
        raise Refused(f"a tag of {point.rollup!r} is no text: {tags!r}")
    try:
        fields = _written(dict[str, Value](point.fields))
    except ValueError:
        raise Refused(f"a field of {point.rollup!r} is no finite number: {dict(point.fields)}") from None
    return point.rollup, point.window, point.time, tags, fields


def _is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: half of a surrogate pair is in Python's strings, and nowhere else."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
