"""What waits to be posted, on this machine's disk, in order, until the endpoint has it.

Every result goes through it, whether the endpoint answers or not: what was measured survives the kill of the process.
When it is full, what comes is dropped and counted, and what is there stays: the beginning of an outage is what nobody
else can tell. See docs/decisions/0033-the-outbox.md. How far a probe has read is kept here too, in one transaction with
the result that tells of it (docs/decisions/0038).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from monitors.probe import Measured, Progress, Read, Unknown
from topology.sqlite.file import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS progress (name TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS outbox_lost (why TEXT PRIMARY KEY, events INTEGER NOT NULL);
"""

#: Of one row beside its body, reckoned high; and of the tree above the rows, which grows by whole pages.
ROW_BYTES = 64
TREE_BYTES = 4 * 4096

DROPPED = "dropped"
REFUSED = "refused"


class Waiting(NamedTuple):
    """An event in the outbox: ``body`` is its JSON, complete with ``source``, ``id`` and ``time``."""

    number: int
    body: bytes


class Kept(NamedTuple):
    """What became of results that were to be kept, beside those that were: ``dropped``, since there was no room;
    ``overtaken``, since another process has told of what they were read from."""

    dropped: int = 0
    overtaken: int = 0


class Held(NamedTuple):
    """What an outbox holds, and what it has lost since its file was made: ``dropped`` because it was full, ``refused``
    by the endpoint for good. ``oldest_ms`` is the time of the first event."""

    events: int = 0
    bytes: int = 0
    oldest_ms: int | None = None
    dropped: int = 0
    refused: int = 0


class Outbox:
    """The file at ``path``. Several processes may use one: a command puts its events behind the monitor's."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """``max_bytes`` bounds the pages of the file that are in use; room that becomes free is used again."""
        self.path = path
        self._max_bytes = max_bytes
        self._database = Database(path, schema=SCHEMA)
        #: As this process saw it last.
        self.held = Held()

    async def open(self) -> None:
        """Open or make the file. Raises ``Unavailable`` or ``ForeignSchema``."""
        await self._database.open()
        await self.look()

    async def close(self) -> None:
        """Close; idempotent."""
        await self._database.close()

    async def look(self) -> Held:
        """What it holds now, other processes' events included. Raises like ``open``."""
        self.held = await self._database.read(_held)
        return self.held

    async def keep(self, results: Sequence[Measured | Read]) -> Kept:
        """Put complete events, each with an integer ``time``, behind all others, and progress where it belongs; on disk
        when this returns. What has no room is dropped, all that comes behind it too, and its progress is not kept: what
        was read is read again. Raises ``Unavailable``: nothing is kept."""
        entries = [_entry(result) for result in results]

        def append(connection: sqlite3.Connection) -> tuple[Kept, Held]:
            room = self._max_bytes - TREE_BYTES - _bytes(connection)
            dropped = overtaken = 0
            for row, progress in entries:
                if progress is not None and _progress(connection, progress.name) != progress.before:
                    overtaken += 1
                    continue
                if row is not None:
                    room -= len(row[1]) + ROW_BYTES
                    if room < 0:
                        dropped += 1
                        continue
                    connection.execute("INSERT INTO outbox (time_ms, body) VALUES (?, ?)", row).close()
                if progress is not None:
                    connection.execute(
                        "INSERT INTO progress VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
                        (progress.name, progress.now),
                    ).close()
            _count_lost(connection, DROPPED, dropped)
            return Kept(dropped, overtaken), _held(connection)

        kept, self.held = await self._database.write(append)
        return kept

    async def progress(self, name: str) -> bytes | None:
        """What was kept last under this name. Raises like ``open``."""
        return await self._database.read(lambda connection: _progress(connection, name))

    async def first(self, *, limit: int, max_bytes: int) -> Sequence[Waiting]:
        """The oldest events, at least one unless it is empty. Raises like ``open``."""

        def read(connection: sqlite3.Connection) -> Sequence[Waiting]:
            found: list[Waiting] = []
            size = 0
            rows = connection.execute("SELECT number, body FROM outbox ORDER BY number LIMIT ?", (limit,))
            for row in rows:
                size += len(row[1])
                if found and size > max_bytes:
                    break
                found.append(Waiting._make(row))
            rows.close()
            return found

        return await self._database.read(read)

    async def remove(self, upto: int, *, refused: int = 0) -> None:
        """Forget the events up to this number: the endpoint has them, but for so many, which it will never take. Where
        another process has forgotten them already, it has counted those."""

        def forget(connection: sqlite3.Connection) -> Held:
            removed = connection.execute("DELETE FROM outbox WHERE number <= ?", (upto,))
            _count_lost(connection, REFUSED, min(refused, removed.rowcount))
            removed.close()
            return _held(connection)

        self.held = await self._database.write(forget)


def _entry(result: Measured | Read) -> tuple[tuple[object, bytes] | None, Progress | None]:
    """A row of the outbox, and progress."""
    progress = result.progress if isinstance(result, Read) else None
    event = result.result if isinstance(result, Read) else result
    if isinstance(event, Unknown):
        return None, progress
    return (event["time"], msgspec.json.encode(event)), progress


def _progress(connection: sqlite3.Connection, name: str) -> bytes | None:
    row = connection.execute("SELECT body FROM progress WHERE name = ?", (name,)).fetchone()
    return None if row is None else bytes(row[0])


def _count_lost(connection: sqlite3.Connection, why: str, events: int) -> None:
    if events:
        connection.execute(
            "INSERT INTO outbox_lost VALUES (?, ?) ON CONFLICT (why) DO UPDATE SET events = events + excluded.events",
            (why, events),
        ).close()


def _number(connection: sqlite3.Connection, question: str) -> int:
    (number,) = connection.execute(question).fetchone()
    return int(number)


def _bytes(connection: sqlite3.Connection) -> int:
    pages = _number(connection, "PRAGMA page_count") - _number(connection, "PRAGMA freelist_count")
    return pages * _number(connection, "PRAGMA page_size")


def _held(connection: sqlite3.Connection) -> Held:
    oldest = connection.execute("SELECT time_ms FROM outbox ORDER BY number LIMIT 1").fetchone()
    lost = dict(connection.execute("SELECT why, events FROM outbox_lost").fetchall())
    return Held(
        events=_number(connection, "SELECT count(*) FROM outbox"),
        bytes=_bytes(connection),
        oldest_ms=None if oldest is None else oldest[0],
        dropped=lost.get(DROPPED, 0),
        refused=lost.get(REFUSED, 0),
    )
