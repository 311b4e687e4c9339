"""The real parts, built from settings. Nothing else builds a connection, and nothing here opens one.

Embedded stores of one process share one ``Database``, so that they do not wait for each other's write lock:
``embedded`` makes it, and each takes it; without one, each makes its own. The log has a connection of its
own in any case, so that an append does not wait behind the writing of rollups.

Clients of servers are imported where they are used: who stays embedded does not wait for them.
"""

from __future__ import annotations

from cli import data_folder
from cli.settings import Settings
from topology import sqlite_events, sqlite_log, sqlite_rollups, sqlite_state
from topology.log import Log
from topology.sinks import DeadLetters, RawEvents, RollupSink
from topology.sqlite import Database
from topology.sqlite_events import SqliteDeadLetters, SqliteRawEvents
from topology.sqlite_log import SqliteLog
from topology.sqlite_rollups import SqliteRollups
from topology.sqlite_state import SqliteState
from topology.state import StateStore

#: One file, one schema: whoever opens it first makes everything.
SCHEMA = sqlite_log.SCHEMA + sqlite_state.SCHEMA + sqlite_rollups.SCHEMA + sqlite_events.SCHEMA


def embedded(settings: Settings, *, create: bool = True) -> Database:
    """The file of the embedded stores. ``create``: make it and the data folder where they are missing; else
    opening says that there is nothing yet."""
    if create:
        data_folder.make(settings.data)
    return Database(settings.database_file, schema=SCHEMA, create=create)


def open_log(settings: Settings) -> Log:
    """The log, to be opened by the caller."""
    log = settings.log
    if log.embedded:
        data_folder.make(log.url.path.parent)
        return SqliteLog(Database(log.url.path, schema=SCHEMA))
    from topology.rabbitmq_log import RabbitLog

    return RabbitLog(log.url.reveal(), log.exchange, log.queue, log.max_age, log.max_bytes)


def state_store(settings: Settings, database: Database | None = None) -> StateStore:
    """Rows, arrivals, generations, positions. ``database``: of the embedded stores."""
    if settings.state is not None:
        raise NotImplementedError
    if settings.state_file != settings.database_file:
        data_folder.make(settings.state_file.parent)
        return SqliteState(Database(settings.state_file, schema=SCHEMA))
    return SqliteState(database or embedded(settings))


def rollup_sink(settings: Settings, database: Database | None = None) -> RollupSink:
    """What the values of rollups are written to, and queried from."""
    influx = settings.influx
    if influx is not None:
        raise NotImplementedError
    return SqliteRollups(database or embedded(settings))


def raw_events(settings: Settings, database: Database | None = None) -> RawEvents:
    """The archive."""
    if settings.mongo is not None:
        raise NotImplementedError
    return SqliteRawEvents(database or embedded(settings))


def dead_letters(settings: Settings, database: Database | None = None) -> DeadLetters:
    """What could not be processed."""
    if settings.mongo is not None:
        raise NotImplementedError
    return SqliteDeadLetters(database or embedded(settings))
