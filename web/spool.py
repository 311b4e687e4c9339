"""The spool: accepted messages on this machine's disk, in order, until the broker has them.

One SQLite file of its own in the data folder. An append is over when its transaction is synced, and messages that wait
at the same time share one. Several processes may append to one spool; one of them at a time drains it
(``draining.DrainRight``). See docs/decisions/0029-the-spool.md.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from topology.errors import EventsinkError, ForeignSchema, Unavailable
from topology.log import NDJSON, Outgoing
from topology.sqlite.file import Database

#: ``upto_events`` counts the events of all messages from the first one in the table up to this one: how many there are
#: is a difference, found without counting. Numbers ascend without gaps and are never given again.
SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL,
    content_type TEXT NOT NULL,
    event_id TEXT,
    received_ms INTEGER,
    events INTEGER NOT NULL,
    upto_events INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS refused (
    number INTEGER PRIMARY KEY,
    body BLOB NOT NULL,
    content_type TEXT NOT NULL,
    event_id TEXT,
    received_ms INTEGER,
    events INTEGER NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS refused_events ON refused (events);
CREATE TABLE IF NOT EXISTS looked (one INTEGER PRIMARY KEY, times INTEGER NOT NULL);
"""

#: Of one transaction: so many that its sync costs little for each, so few that none waits long for it.
WRITE_MESSAGES = 1_000
WRITE_BYTES = 8 << 20
#: Beyond it, who comes is turned away at once: the disk is too slow for what arrives.
WAITING_BYTES = 64 << 20
#: Left free on the disk: removing what was published needs room for a moment, and a spool that had filled the disk
#: itself could never be drained. SQLite's write-ahead log grows to 16 MiB and the last transaction.
RESERVED_BYTES = 32 << 20
#: SQLite's own default.
PAGE_BYTES = 4096
#: Messages of one transaction, when what was put aside is taken up again.
TAKEN_UP_AT_ONCE = 100
#: What must fit for the spool to count as taking events: the largest message of the ingest.
LARGEST_BYTES = 1 << 20


class Spooled(NamedTuple):
    """A message in the spool."""

    number: int
    message: Outgoing


class Held(NamedTuple):
    """What the spool holds: ``bytes`` of its file that are in use, ``oldest_ms`` the arrival of the first message;
    ``refused_events`` are those that the broker will not take."""

    messages: int = 0
    events: int = 0
    bytes: int = 0
    oldest_ms: int | None = None
    refused_events: int = 0


class _Waiting(NamedTuple):
    message: Outgoing
    synced: asyncio.Future[None]


class Spool:
    """The file at ``path``; opened when it is first used, if ``open`` could not. ``max_bytes`` bounds what it holds on
    disk; room that becomes free is used again, the file does not shrink."""

    def __init__(self, path: Path, *, max_bytes: int, free: Callable[[Path], int] | None = None) -> None:
        """``free`` tells how many bytes the disk of a folder has left."""
        self.path = path
        self._max_bytes = max_bytes
        self._free = free or _free_bytes
        self._database = Database(path, schema=SCHEMA)
        self._opening = asyncio.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        #: As the last transaction left it.
        self.held = Held()

    @property
    def empty(self) -> bool:
        """Whether it holds nothing for the broker, as far as this process knows, and nothing is on its way into it."""
        return not self.held.messages and not self._waiting and self._writing is None

    async def open(self) -> None:
        """Open or make the file. Raises ``Unavailable`` (disk, permissions) or ``ForeignSchema``."""
        await self.look()

    async def close(self) -> None:
        """Close, after the appends in hand; idempotent."""
        if self._writing is not None:
            await self._writing
        await self._database.close()

    async def look(self) -> Held:
        """What it holds now, other processes' messages included. Raises like ``open``."""
        await self._opened()
        self.held = await self._database.read(_held)
        return self.held

    async def prove(self) -> None:
        """See that it would take a message. Raises ``Unavailable``."""
        self._demand_free_disk()

        def touch(connection: sqlite3.Connection) -> Held:
            connection.execute(
                "INSERT INTO looked VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET times = times + 1"
            ).close()
            return _held(connection)

        with _as_unavailable():
            await self._opened()
            self.held = await self._database.write(touch)
        if self.held.bytes + LARGEST_BYTES > self._max_bytes:
            raise self._full()

    async def append(self, message: Outgoing) -> None:
        """Keep a message behind all others; on disk when this returns. Raises ``Unavailable`` where it is not kept."""
        if self._waiting and self._waiting_bytes + len(message.body) > WAITING_BYTES:
            raise Unavailable(f"the disk of {self.path.name} is too slow for what arrives: try again later")
        synced = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(message, synced))
        self._waiting_bytes += len(message.body)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="spool: writing")
        await synced

    async def settled(self) -> None:
        """Return when every append that was begun before is over."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def first(self, *, limit: int, max_bytes: int) -> Sequence[Spooled]:
        """The oldest messages, at least one unless it is empty. Raises like ``open``."""
        await self._opened()
        return await self._database.read(lambda connection: _first(connection, limit, max_bytes))

    async def remove(self, upto: int) -> None:
        """Forget the messages up to this number, which the broker has. Raises ``Unavailable``."""

        def forget(connection: sqlite3.Connection) -> Held:
            connection.execute("DELETE FROM spool WHERE number <= ?", (upto,)).close()
            return _held(connection)

        await self._opened()
        self.held = await self._database.write(forget)

    async def put_aside(self, number: int, reason: str) -> None:
        """Keep the first message where it is in nobody's way, since the broker will never take it: its ``number``."""

        def move(connection: sqlite3.Connection) -> Held:
            connection.execute(
                "INSERT INTO refused SELECT number, body, content_type, event_id, received_ms, events, ? "
                "FROM spool WHERE number = ?",
                (reason, number),
            ).close()
            connection.execute("DELETE FROM spool WHERE number = ?", (number,)).close()
            return _held(connection)

        await self._opened()
        self.held = await self._database.write(move)

    async def take_up_again(self) -> int:
        """Put what was put aside behind everything else: the broker may be set up otherwise now. Returns how many."""

        def move(connection: sqlite3.Connection) -> tuple[int, Held]:
            return _take_up(connection), _held(connection)

        await self._opened()
        count = 0
        for _ in range(0, self.held.refused_events, TAKEN_UP_AT_ONCE):
            moved, self.held = await self._database.write(move)
            count += moved
        return count

    async def _opened(self) -> None:
        async with self._opening:
            await self._database.open()

    # -- appending --

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                try:
                    kept = await self._write([each.message for each in group])
                except EventsinkError as error:
                    _resolve(group, error)
                except BaseException as error:
                    # Nobody may wait for ever for a task that has ended.
                    _resolve([*group, *self._waiting], Unavailable(f"{self.path.name}: {error!r}"))
                    self._waiting.clear()
                    self._waiting_bytes = 0
                    raise
                else:
                    _resolve(group[:kept], None)
                    _resolve(group[kept:], self._full())
        finally:
            self._writing = None

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        while self._waiting and len(group) < WRITE_MESSAGES and size < WRITE_BYTES:
            each = self._waiting.popleft()
            size += len(each.message.body)
            group.append(each)
        self._waiting_bytes -= size
        return group

    async def _write(self, messages: Sequence[Outgoing]) -> int:
        """How many of them fitted: none after the first one that did not, so that order is kept."""
        self._demand_free_disk()

        def append(connection: sqlite3.Connection) -> tuple[int, Held]:
            return _append(connection, messages, self._max_bytes), _held(connection)

        with _as_unavailable():
            await self._opened()
            kept, self.held = await self._database.write(append)
        return kept

    def _demand_free_disk(self) -> None:
        try:
            free = self._free(self.path.parent)
        except OSError as error:
            raise Unavailable(f"{self.path.parent}: {error.strerror}: check the disk") from error
        if free < RESERVED_BYTES:
            raise Unavailable(
                f"the disk of {self.path.name} has less than {RESERVED_BYTES >> 20} MiB left: make room, nothing that "
                "was accepted is lost"
            )

    def _full(self) -> Unavailable:
        return Unavailable(
            f"the spool is full ({self.held.bytes} of {self._max_bytes} bytes) and the broker is away: nothing "
            "that was accepted is lost; bring the broker back, or raise EVENTSINK_SPOOL_MAX_BYTES"
        )


def events_in(message: Outgoing) -> int:
    """How many events a message of the ingest holds."""
    return message.body.count(b"\n") + 1 if message.content_type == NDJSON else 1


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """A file that SQLite cannot read any more takes nothing either, and whoever sends is to send again."""
    try:
        yield
    except ForeignSchema as error:
        raise Unavailable(str(error)) from error


def _resolve(group: Iterable[_Waiting], error: Exception | None) -> None:
    for each in group:
        if each.synced.done():
            continue  # its request is gone
        if error is None:
            each.synced.set_result(None)
        else:
            each.synced.set_exception(error)


# -- inside transactions --


def _number(connection: sqlite3.Connection, question: str) -> int:
    (number,) = connection.execute(question).fetchone()
    return int(number)


def _bytes(connection: sqlite3.Connection) -> int:
    """Of the pages that are in use."""
    pages = _number(connection, "PRAGMA page_count") - _number(connection, "PRAGMA freelist_count")
    return pages * _number(connection, "PRAGMA page_size")


def _held(connection: sqlite3.Connection) -> Held:
    refused = _number(connection, "SELECT coalesce(sum(events), 0) FROM refused")
    first = connection.execute(
        "SELECT number, upto_events - events, received_ms FROM spool ORDER BY number LIMIT 1"
    ).fetchone()
    if first is None:
        return Held(bytes=_bytes(connection), refused_events=refused)
    number, upto = connection.execute(
        "SELECT number, upto_events FROM spool ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return Held(
        messages=number - first[0] + 1,
        events=upto - first[1],
        bytes=_bytes(connection),
        oldest_ms=first[2],
        refused_events=refused,
    )


def _upto_events(connection: sqlite3.Connection) -> int:
    return _number(
        connection, "SELECT coalesce((SELECT upto_events FROM spool ORDER BY number DESC LIMIT 1), 0)"
    )


def _append(connection: sqlite3.Connection, messages: Sequence[Outgoing], max_bytes: int) -> int:
    upto = _upto_events(connection)
    used = _bytes(connection)
    for count, message in enumerate(messages):
        # Two pages beside the body's own: one for the row, and one for the tree above it.
        need = len(message.body) + 2 * PAGE_BYTES
        if used + need > max_bytes:
            used = _bytes(connection)  # what was reckoned is more than what was used
            if used + need > max_bytes:
                return count
        used += need
        events = events_in(message)
        upto += events
        connection.execute(
            "INSERT INTO spool (body, content_type, event_id, received_ms, events, upto_events) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (*message, events, upto),
        ).close()
    return len(messages)


def _first(connection: sqlite3.Connection, limit: int, max_bytes: int) -> Sequence[Spooled]:
    found: list[Spooled] = []
    size = 0
    rows = connection.execute(
        "SELECT number, body, content_type, event_id, received_ms FROM spool ORDER BY number LIMIT ?",
        (limit,),
    )
    for number, *message in rows:
        size += len(message[0])
        if found and size > max_bytes:
            break
        found.append(Spooled(number, Outgoing._make(message)))
    rows.close()
    return found


def _take_up(connection: sqlite3.Connection) -> int:
    """Move some of what was refused behind everything else."""
    upto = _upto_events(connection)
    last = connection.execute(
        "SELECT number FROM refused ORDER BY number LIMIT 1 OFFSET ?", (TAKEN_UP_AT_ONCE - 1,)
    ).fetchone()
    number = (
        last[0] if last is not None else _number(connection, "SELECT coalesce(max(number), 0) FROM refused")
    )
    moved = connection.execute(
        "INSERT INTO spool (body, content_type, event_id, received_ms, events, upto_events) "
        "SELECT body, content_type, event_id, received_ms, events, ? + sum(events) OVER (ORDER BY number) "
        "FROM refused WHERE number <= ? ORDER BY number",
        (upto, number),
    ).rowcount
    connection.execute("DELETE FROM refused WHERE number <= ?", (number,)).close()
    return moved
