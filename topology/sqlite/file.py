"""One SQLite file for everything embedded: log, rows, rollups, raw events, dead letters.

WAL lets readers (the commands a person types) go on beside the one writer; ``synchronous=FULL`` makes a
commit an fsync, so what was committed survives the kill of any process and the loss of power.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from topology.errors import EventsinkError, ForeignSchema, Unavailable

T = TypeVar("T")

#: 16 MiB. Rows are rewritten every second; the fewer the checkpoints, the fewer times a page is copied.
CHECKPOINT_PAGES = 4000

#: "evts" in ASCII: marks the file as ours (https://sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x65767473
SCHEMA_VERSION = 2

#: Another process may hold the write lock for the length of one commit; far longer means that it hangs.
BUSY_TIMEOUT_MS = 15_000


class Database:
    """A connection with a thread of its own; work is handed to it as functions of the connection.

    Transactions are short and contain no await, so no two tasks ever interleave inside one.
    """

    def __init__(self, path: Path, *, schema: str = "", create: bool = True) -> None:
        self.path = path
        self._schema = schema
        self._create = create
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open or make the file. Raises ``Unavailable`` (disk) or ``ForeignSchema``."""
        if self._connection is None:
            self._connection = await self._call(self._connect)

    async def close(self) -> None:
        """Close after the work in hand; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._call(connection.close)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` outside a transaction of ours."""
        connection = self._open_connection()
        return await self._call(lambda: work(connection))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in one transaction; committed and synced when this returns, undone when it raises."""
        connection = self._open_connection()

        def transaction() -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return await self._call(transaction)

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise Unavailable(f"{self.path} is closed: open it first")
        return self._connection

    async def _call(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                result = work()
                if isinstance(result, sqlite3.Cursor):
                    # Dropped by another thread, it would reset a statement that this one is using again.
                    result.close()
                return result
            except sqlite3.DatabaseError as error:
                raise self._translated(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def _translated(self, error: sqlite3.DatabaseError) -> EventsinkError:
        text = str(error)
        if "not a database" in text or "malformed" in text:
            return ForeignSchema(
                f"{self.path} is not an eventsink database ({text}): choose another folder with --data"
            )
        if "full" in text:
            return Unavailable(f"the disk of {self.path} is full: make room, nothing was lost")
        return Unavailable(f"{self.path}: {text}: check the disk and the permissions")

    def _connect(self) -> sqlite3.Connection:
        if not self._create and not self.path.exists():
            raise Unavailable(f"{self.path} does not exist: start `eventsink up` first")
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            self._make_ours(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_ours(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            raise ForeignSchema(
                f"{self.path} holds somebody else's tables: choose another folder with --data"
            )
        if tables and version != SCHEMA_VERSION:
            raise ForeignSchema(
                f"{self.path} has schema {version}, this eventsink reads {SCHEMA_VERSION}: "
                "use the release that made it, or another folder with --data"
            )
        if not tables:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in filter(str.strip, self._schema.split(";")):
            connection.execute(statement)
        connection.execute("COMMIT")
