"""``Idempotency-Key``: a request that is sent again gets the answer again, and its events are in the log once.

1. reserved     name of the API key, key, digest of the request and the stamp of its message, on disk before
                anything is published
2. published    by whoever asks
3. answered     the answer is kept beside the reservation, for a day

Whoever sends a request again whose answer is not kept, because publishing failed or the process died, is given the
stamp of the first time: that message is recognised whole wherever it may have been published already
(docs/decisions/0021). Several processes may use one file; two that work on one request publish the same message.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from topology.errors import Unavailable
from topology.sqlite.file import Database
from topology.uuid7 import uuid7
from web.cloudevents import HEADER_PREFIX
from web.problems import Problem

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
#: On an answer that was kept.
REPLAYED_HEADER = "Idempotency-Replayed"

KEPT_FOR_MS = 24 * 60 * 60 * 1000
#: Half a million usual answers. Beyond it the oldest are forgotten: to take events counts for more than to know a
#: repetition, and events with an id are known all the same.
MAX_FILE_BYTES = 256 << 20
MAX_KEY_CHARACTERS = 255

_RETRY_AFTER_S = 1
#: Of each request, so that forgetting keeps up with what comes and none waits for it.
_FORGOTTEN_AT_ONCE = 20
#: Of all that there are, where the file is full.
_FORGOTTEN_SHARE = 16

SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    event_id TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    answer BLOB,
    PRIMARY KEY (name, key)
);
CREATE INDEX IF NOT EXISTS requests_received ON requests (received_ms);
"""


class Stamp(NamedTuple):
    """By what a message is recognised that is published again."""

    event_id: str
    received_ms: int


class Attempt:
    """One sending of a request. ``answer`` is the one of an earlier sending; without it, publish with ``stamp``, and
    ``keep`` what was answered."""

    def __init__(self, requests: _Requests, name: str, key: str, stamp: Stamp, answer: bytes | None) -> None:
        self._requests = requests
        self._name = name
        self._key = key
        self.stamp = stamp
        self.answer = answer

    async def keep(self, answer: bytes) -> None:
        """Keep the answer. If that fails nothing is lost: the request would be published with its stamp again."""
        try:
            await self._requests.keep(self._name, self._key, self.stamp, answer)
        except Unavailable as error:
            log.warning("an answer was given and could not be kept for its repetition: %s", error)


class Idempotency:
    """The requests of a day. ``clock``: epoch milliseconds. The file is opened when the first request needs it."""

    def __init__(self, path: Path, *, clock: Callable[[], int], max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._requests = _Requests(path, max_file_bytes)
        self._clock = clock
        #: Those that this process works on, and with which content.
        self._working: dict[tuple[str, str], bytes] = {}

    async def close(self) -> None:
        """Close the file; idempotent."""
        await self._requests.close()

    @asynccontextmanager
    async def attempt(self, name: str, key: str, digest: bytes) -> AsyncIterator[Attempt]:
        """Work on a request of the API key ``name``. Its stamp is on disk when this is entered.

        Raises a 422 ``Problem`` where the key was used for something else, 409 while the same request is being worked
        on, and ``Unavailable`` where it cannot be reserved.
        """
        working = self._working.get((name, key))
        if working is not None:
            raise _used_otherwise() if working != digest else _worked_on()
        self._working[name, key] = digest
        try:
            now = self._clock()
            found = await self._requests.reserve(name, key, digest, Stamp(uuid7(now), now))
            if found.digest != digest:
                raise _used_otherwise()
            yield Attempt(self._requests, name, key, found.stamp, found.answer)
        finally:
            del self._working[name, key]


def key_of(request: web.Request) -> str | None:
    """The key of a request, None if it has none. Raises a 400 ``Problem`` for one that cannot be."""
    keys = request.headers.getall(HEADER, [])
    if not keys:
        return None
    fits = len(keys) == 1 and 0 < len(keys[0]) <= MAX_KEY_CHARACTERS
    if not fits or not keys[0].isascii() or not keys[0].isprintable():
        raise Problem(
            400, f"{HEADER} must be one text of 1 to {MAX_KEY_CHARACTERS} printable ASCII characters"
        )
    return keys[0]


def digest_of(request: web.Request, body: bytes) -> bytes:
    """SHA-256 of what a request says. ``body`` is inflated: one that is compressed anew says the same."""
    hashing = hashlib.sha256()
    said = [request.path, request.headers.get("Content-Type", "")]
    for name, value in sorted((name.lower(), value) for name, value in request.headers.items()):
        if name.startswith(HEADER_PREFIX):
            said += [name, value]
    for text in said:
        encoded = text.encode("utf-8", "surrogateescape")
        hashing.update(b"%d:%b" % (len(encoded), encoded))
    hashing.update(body)
    return hashing.digest()


def _used_otherwise() -> Problem:
    return Problem(422, f"this {HEADER} was used for another request: choose a new one for each request")


def _worked_on() -> Problem:
    return Problem(
        409,
        "the same request is being worked on: wait for its answer, or send it again",
        headers={"Retry-After": str(_RETRY_AFTER_S)},
    )


# -- the file --


class _Found(NamedTuple):
    digest: bytes
    stamp: Stamp
    answer: bytes | None


class _Requests:
    """The table, in a file of its own: what waits for its syncs waits for nothing else."""

    def __init__(self, path: Path, max_file_bytes: int) -> None:
        self._path = path
        self._max_file_bytes = max_file_bytes
        self._database: Database | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    async def reserve(self, name: str, key: str, digest: bytes, stamp: Stamp) -> _Found:
        """What is kept of a request; where nothing is, it is reserved with this stamp and durable."""

        def work(connection: sqlite3.Connection) -> _Found:
            self._forget(connection, stamp.received_ms - KEPT_FOR_MS)
            row = connection.execute(
                "SELECT digest, event_id, received_ms, answer FROM requests"
                " WHERE name = ? AND key = ? AND received_ms > ?",
                (name, key, stamp.received_ms - KEPT_FOR_MS),
            ).fetchone()
            if row is not None:
                return _Found(row[0], Stamp(row[1], row[2]), row[3])
            connection.execute(
                "INSERT OR REPLACE INTO requests (name, key, digest, event_id, received_ms) VALUES (?, ?, ?, ?, ?)",
                (name, key, digest, *stamp),
            )
            return _Found(digest, stamp, None)

        return await (await self._opened()).write(work)

    async def keep(self, name: str, key: str, stamp: Stamp, answer: bytes) -> None:
        """Write the answer to the reservation with this stamp, unless it is forgotten by now."""
        await (await self._opened()).write(
            lambda connection: connection.execute(
                "UPDATE requests SET answer = ? WHERE name = ? AND key = ? AND event_id = ?",
                (answer, name, key, stamp.event_id),
            )
        )

    def _forget(self, connection: sqlite3.Connection, until_ms: int) -> None:
        oldest = (
            "DELETE FROM requests WHERE rowid IN (SELECT rowid FROM requests {} ORDER BY received_ms LIMIT ?)"
        )
        connection.execute(oldest.format("WHERE received_ms <= ?"), (until_ms, _FORGOTTEN_AT_ONCE))
        if self._used_bytes(connection) < self._max_file_bytes:
            return
        (count,) = connection.execute("SELECT count(*) FROM requests").fetchone()
        forgotten = count // _FORGOTTEN_SHARE + 1
        connection.execute(oldest.format(""), (forgotten,))
        log.warning(
            "%s is full: forgot %d answers that were to be kept for a day; should those requests come again, their "
            "events without an id count twice",
            self._path,
            forgotten,
        )

    def _used_bytes(self, connection: sqlite3.Connection) -> int:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * page_bytes)

    async def _opened(self) -> Database:
        async with self._opening:
            if self._database is None:
                database = Database(self._path, schema=SCHEMA)
                await database.open()
                self._database = database
            return self._database
