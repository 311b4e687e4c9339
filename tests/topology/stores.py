"""Embedded stores in a temporary folder, as tests of the engine need them, and a store that fails on order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from topology.errors import Unavailable
from topology.metrics import Metrics
from topology.outages import Outages
from topology.sqlite import events as sqlite_events
from topology.sqlite import log as sqlite_log
from topology.sqlite import rollups as sqlite_rollups
from topology.sqlite import state as sqlite_state
from topology.sqlite.events import SqliteDeadLetters, SqliteRawEvents
from topology.sqlite.file import Database
from topology.sqlite.log import SqliteLog
from topology.sqlite.rollups import SqliteRollups
from topology.sqlite.state import SqliteState

SCHEMA = "\n".join(module.SCHEMA for module in (sqlite_log, sqlite_state, sqlite_rollups, sqlite_events))


#: Calls that change nothing outside.
READS = frozenset(
    {"load_rows", "keys_of", "owed_rows", "count_owed", "generation", "epoch", "read_group", "read_groups"}
    | {"arrivals", "end_offset", "first_offset", "message_at", "offset_since", "reader"}
)


class Stores:
    """Everything embedded, in one file."""

    def __init__(self, database: Database) -> None:
        self.log = SqliteLog(database)
        self.state = SqliteState(database)
        self.rollups = SqliteRollups(database)
        self.raw_events = SqliteRawEvents(database)
        self.dead_letters = SqliteDeadLetters(database)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.outages = Outages(sleep=at_once)
        #: Called before the stores are closed, the last one first.
        self.at_end: list[Callable[[], Awaitable[None]]] = []


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Stores]:
    """Opened stores; closed at the end."""
    database = Database(folder / "eventsink.db", schema=SCHEMA)
    await database.open()
    try:
        stores = Stores(database)
        for part in (stores.log, stores.state, stores.rollups, stores.raw_events, stores.dead_letters):
            await part.open()
        try:
            yield stores
        finally:
            for end in reversed(stores.at_end):
                await end()
    finally:
        await database.close()


async def at_once(seconds: float) -> None:
    """A sleep that lets the others work, and does not wait."""
    await asyncio.sleep(0)


class Failing:
    """Passes every call on to ``inner``; the calls named in ``failures`` fail first, the given number of times.

    With ``lost=True`` the call is carried out and its answer is lost.
    """

    def __init__(self, inner: Any, *, lost: bool = False, **failures: int) -> None:
        self._inner = inner
        self._lost = lost
        self.failures = failures
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._inner, name)
        if not callable(real):
            return real

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.failures.get(name, 0) > 0:
                self.failures[name] -= 1
                if self._lost:
                    await real(*args, **kwargs)
                raise Unavailable(f"{name} failed on order")
            return await real(*args, **kwargs)

        return call


class Killed:
    """Stops a process at its n-th call to the outside, before or after that call is carried out.

    From then on no call of any part that it guards returns, as if nobody were there any more. A read leaves nothing
    behind, so of reads in a row only the first is counted, and only where death comes before the call.
    """

    def __init__(self, at: int, *, after: bool) -> None:
        self._at = at
        self._after = after
        self._reading = after
        self.calls = 0
        self.dead = asyncio.Event()

    def guarding(self, inner: Any) -> Any:
        """``inner``, for as long as the process lives."""
        return _Guarded(inner, self)

    async def call(self, name: str, real: Callable[..., Awaitable[Any]], args: Any, kwargs: Any) -> Any:
        reads = name in READS
        if not (reads and self._reading):
            self.calls += 1
        self._reading = reads or self._after
        if self.calls == self._at and not self.dead.is_set():
            if self._after:
                await real(*args, **kwargs)
            self.dead.set()
        if self.dead.is_set():
            await asyncio.get_running_loop().create_future()
        return await real(*args, **kwargs)


class _Guarded:
    def __init__(self, inner: Any, killed: Killed) -> None:
        self._inner = inner
        self._killed = killed

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._inner, name)
        if not callable(real):
            return real

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._killed.call(name, real, args, kwargs)

        return call
