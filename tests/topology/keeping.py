"""Where stores are kept: a folder or a MongoDB. Each call opens another connection, as another process would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeVar

from tests.servers.mongo import Mongo as MongoServer
from topology.errors import Unavailable
from topology.mongo.connection import Mongo
from topology.mongo.events import MongoDeadLetters, MongoRawEvents
from topology.mongo.state import MongoState
from topology.sinks import DeadLetters, RawEvents
from topology.sqlite import events as sqlite_events
from topology.sqlite import state as sqlite_state
from topology.sqlite.events import SqliteDeadLetters, SqliteRawEvents
from topology.sqlite.file import Database
from topology.sqlite.state import SqliteState
from topology.state import StateStore

T = TypeVar("T")

SCHEMA = sqlite_state.SCHEMA + sqlite_events.SCHEMA
#: For tests in which the server is there: a busy machine is not an outage.
PATIENT = timedelta(seconds=30)
#: For tests in which it is not.
IMPATIENT = timedelta(seconds=0.3)


class _Store(Protocol):
    async def open(self) -> None: ...
    async def close(self) -> None: ...


S = TypeVar("S", bound=_Store)


class Kept:
    """Stores over the same data, as many as a test wants; ``mongo`` is None where they are embedded."""

    def __init__(self, folder: Path, mongo: MongoServer | None, patience: timedelta = PATIENT) -> None:
        self.file = folder / "eventsink.db"
        self.mongo = mongo
        self._patience = patience
        self._opened = AsyncExitStack()

    async def state(self) -> StateStore:
        if self.mongo is not None:
            return await self._open(MongoState(self._mongo(self.mongo)))
        return await self._open(SqliteState(self._database()))

    async def raw_events(self) -> RawEvents:
        if self.mongo is not None:
            return await self._open(MongoRawEvents(self._mongo(self.mongo)))
        return await self._open(SqliteRawEvents(self._database()))

    async def dead_letters(self) -> DeadLetters:
        if self.mongo is not None:
            return await self._open(MongoDeadLetters(self._mongo(self.mongo)))
        return await self._open(SqliteDeadLetters(self._database()))

    async def close(self) -> None:
        await self._opened.aclose()

    def _database(self) -> Database:
        return Database(self.file, schema=SCHEMA)

    def _mongo(self, server: MongoServer) -> Mongo:
        return Mongo(server.url, server.database, patience=self._patience)

    async def _open(self, store: S) -> S:
        self._opened.push_async_callback(store.close)
        await store.open()
        return store


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """The same call until the store takes it, as ``Outages.ridden_out`` does it."""
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(0.05)
