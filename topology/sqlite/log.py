"""The embedded log: a table of the one SQLite file. Appending is a transaction, so a commit is an fsync.

Readers of the process that appends are woken at once; what another process appends they find by looking.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
from collections.abc import Sequence
from datetime import timedelta

from topology.log import LogReader, LogStart, Message, Outgoing
from topology.sqlite.file import Database

log = logging.getLogger(__name__)

#: ``upto_bytes`` is the size of all bodies ever appended, up to this one: the size of any stretch of the log
#: is a difference, found without reading the stretch.
SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    offset INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL,
    content_type TEXT,
    event_id TEXT,
    received_ms INTEGER,
    upto_bytes INTEGER NOT NULL
);
"""

#: How soon another process's append is seen. A look costs about 50 µs.
POLL_EVERY = timedelta(milliseconds=50)
#: Rows deleted in one transaction, so that an append never waits longer than for some milliseconds.
TRIM_ROWS = 2_000


class SqliteLog:
    """The log in ``database``, which may hold other tables too: opened with the log, and closed with it."""

    def __init__(self, database: Database, *, poll_every: timedelta = POLL_EVERY) -> None:
        self._database = database
        self._poll_every = poll_every
        self._appended = asyncio.Event()

    async def open(self) -> None:
        """Open the file. Raises ``Unavailable`` or ``ForeignSchema``."""
        await self._database.open()

    async def close(self) -> None:
        """Close the file; idempotent. Where others share the database, the log is closed last."""
        await self._database.close()

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Append all in one transaction; synced to disk when this returns."""
        if not messages:
            return
        await self._database.write(lambda connection: _append(connection, messages))
        appended, self._appended = self._appended, asyncio.Event()
        appended.set()

    async def reader(self, offset: int) -> LogReader:
        """A reader from the lowest offset that is >= ``offset``."""
        return SqliteReader(self, offset)

    async def message_at(self, offset: int) -> Message | None:
        """The message at exactly this offset, None if the log has none there."""
        found = await self.read(offset, limit=1, max_bytes=0)
        return found[0] if found and found[0].offset == offset else None

    async def first_offset(self) -> int | None:
        """The lowest offset that is left, None if there is none."""

        def first(connection: sqlite3.Connection) -> int | None:
            row = connection.execute("SELECT min(offset) FROM log").fetchone()
            return None if row[0] is None else int(row[0])

        return await self._database.read(first)

    async def end_offset(self) -> int:
        """The offset that the next message will get."""
        return await self._database.read(_end)

    async def offset_since(self, start: LogStart) -> int:
        """As ``Log.offset_since``; ``last`` is the last message. A message whose arrival nobody stamped counts as
        younger than the last one before it that has one."""
        return await self._database.read(lambda connection: _since(connection, start))

    async def trim(self, *, max_age: timedelta, max_bytes: int, now_ms: int) -> int:
        """Forget messages from the front: those received before ``now_ms - max_age``, and as many as the
        log's bodies exceed ``max_bytes``. Returns how many.

        Offsets never start again, and the newest message stays: by it a group recognises the log after any
        pause. Room in the file is used again, the file does not shrink.
        """
        oldest_ms = now_ms - max_age // timedelta(milliseconds=1)
        keep_from = await self._database.read(lambda connection: _kept(connection, oldest_ms, max_bytes))
        trimmed = 0
        while count := await self._database.write(lambda connection: _delete(connection, keep_from)):
            trimmed += count
        return trimmed

    # -- for the readers --

    @property
    def appended(self) -> asyncio.Event:
        """Set by the next append of this process. Taken before looking, so that none is missed."""
        return self._appended

    @property
    def poll_every(self) -> timedelta:
        """How long to wait for ``appended`` before looking all the same."""
        return self._poll_every

    async def read(self, offset: int, *, limit: int, max_bytes: int) -> Sequence[Message]:
        """Messages from ``offset`` on that are there now, within the bounds of ``LogReader.fetch``."""
        return await self._database.read(lambda connection: _select(connection, offset, limit, max_bytes))


class SqliteReader:
    """One reading of the table. Nothing is held between calls, so there is nothing to lose."""

    def __init__(self, source: SqliteLog, offset: int) -> None:
        self._source = source
        self._next = offset
        self._cut = 0
        self._reading = False

    async def fetch(self, *, limit: int, max_bytes: int, timeout: timedelta) -> Sequence[Message]:
        """As ``LogReader.fetch``; at once when something is there."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout.total_seconds()
        while True:
            appended = self._source.appended
            messages = await self._source.read(self._next, limit=limit, max_bytes=max_bytes)
            if messages:
                self._advance(messages)
                return messages
            left = deadline - loop.time()
            if left <= 0:
                return ()
            try:
                async with asyncio.timeout(min(left, self._source.poll_every.total_seconds())):
                    await appended.wait()
            except TimeoutError:
                pass

    @property
    def cut(self) -> int:
        """As ``LogReader.cut``."""
        return self._cut

    async def at_end(self) -> bool:
        """Whether the table holds nothing that was not fetched."""
        return not await self._source.read(self._next, limit=1, max_bytes=0)

    async def close(self) -> None:
        """Nothing is held; idempotent."""

    def _advance(self, messages: Sequence[Message]) -> None:
        # The first fetch may begin later than asked for: its caller has looked where the log begins.
        if self._reading and messages[0].offset > self._next:
            self._cut += messages[0].offset - self._next
            log.error(
                "data at risk: messages %d to %d of the log were trimmed before they were read; keep the "
                "log longer (EVENTSINK_LOG_MAX_AGE, EVENTSINK_LOG_MAX_BYTES)",
                self._next,
                messages[0].offset - 1,
            )
        self._reading = True
        self._next = messages[-1].offset + 1


def _end(connection: sqlite3.Connection) -> int:
    # SQLite keeps the highest offset ever given, whatever was deleted.
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
    return 0 if row is None else int(row[0]) + 1


def _since(connection: sqlite3.Connection, start: LogStart) -> int:
    end = _end(connection)
    match start:
        case "first":
            return 0
        case "next":
            return end
        case "last":
            row = connection.execute("SELECT max(offset) FROM log").fetchone()
            return end if row[0] is None else int(row[0])
        case _:
            ms = int(start.timestamp() * 1000)
            (young,) = connection.execute(
                "SELECT min(offset) FROM log WHERE received_ms >= ?", (ms,)
            ).fetchone()
            (old,) = connection.execute(
                "SELECT max(offset) FROM log WHERE received_ms < ? AND offset < ?",
                (ms, end if young is None else young),
            ).fetchone()
            return 0 if old is None else int(old) + 1


def _append(connection: sqlite3.Connection, messages: Sequence[Outgoing]) -> None:
    row = connection.execute("SELECT upto_bytes FROM log ORDER BY offset DESC LIMIT 1").fetchone()
    sizes = itertools.accumulate((len(message.body) for message in messages), initial=row[0] if row else 0)
    next(sizes)
    # AUTOINCREMENT by itself would begin at 1.
    connection.executemany(
        "INSERT INTO log (offset, body, content_type, event_id, received_ms, upto_bytes) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            (offset, *message, size)
            for offset, message, size in zip(itertools.count(_end(connection)), messages, sizes, strict=False)
        ),
    )


def _select(connection: sqlite3.Connection, offset: int, limit: int, max_bytes: int) -> Sequence[Message]:
    messages: list[Message] = []
    size = 0
    rows = connection.execute(
        "SELECT offset, body, content_type, event_id, received_ms FROM log "
        "WHERE offset >= ? ORDER BY offset LIMIT ?",
        (offset, limit),
    )
    for row in rows:
        message = Message._make(row)
        size += len(message.body)
        if messages and size > max_bytes:
            break
        messages.append(message)
    rows.close()
    return messages


def _kept(connection: sqlite3.Connection, oldest_ms: int, max_bytes: int) -> int:
    """The lowest offset to keep."""
    last = connection.execute("SELECT offset, upto_bytes FROM log ORDER BY offset DESC LIMIT 1").fetchone()
    if last is None:
        return 0
    young = connection.execute(
        "SELECT offset FROM log WHERE received_ms >= ? ORDER BY offset LIMIT 1", (oldest_ms,)
    ).fetchone()
    if young is None:  # then after the last one whose age is known
        young = connection.execute(
            "SELECT offset + 1 FROM log WHERE received_ms IS NOT NULL ORDER BY offset DESC LIMIT 1"
        ).fetchone()
    # The first one after which no more than max_bytes follow, itself included; sizes grow with offsets, so
    # it is found by halving.
    low = connection.execute("SELECT min(offset) FROM log").fetchone()[0]
    high = last[0]
    while low < high:
        middle = (low + high) // 2
        (upto,) = connection.execute(
            "SELECT upto_bytes - length(body) FROM log WHERE offset >= ? ORDER BY offset LIMIT 1", (middle,)
        ).fetchone()
        if last[1] - upto <= max_bytes:
            high = middle
        else:
            low = middle + 1
    return int(min(last[0], max(low, young[0] if young else 0)))


def _delete(connection: sqlite3.Connection, keep_from: int) -> int:
    return connection.execute(
        "DELETE FROM log WHERE offset IN (SELECT offset FROM log WHERE offset < ? ORDER BY offset LIMIT ?)",
        (keep_from, TRIM_ROWS),
    ).rowcount
