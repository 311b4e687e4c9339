"""The real parts, built from settings. Nothing else builds a connection, and nothing here opens one.

Stores of one process that live in one place share a connection to it: hand the same ``Shared`` to each.
Opening one opens it, closing one closes it for all. The log has a connection of its own in any case, so that
an append does not wait behind the writing of rollups.

Clients of servers are imported where they are used: who stays embedded does not wait for them.
"""

from __future__ import annotations

from typing import Any

from cli import data_folder
from cli.settings import MongoSettings, Settings
from topology.log import Log
from topology.sinks import DeadLetters, RawEvents, RollupSink
from topology.sqlite import events as sqlite_events
from topology.sqlite import log as sqlite_log
from topology.sqlite import rollups as sqlite_rollups
from topology.sqlite import state as sqlite_state
from topology.sqlite.events import SqliteDeadLetters, SqliteRawEvents
from topology.sqlite.file import Database
from topology.sqlite.log import SqliteLog
from topology.sqlite.rollups import SqliteRollups
from topology.sqlite.state import SqliteState
from topology.state import StateStore

#: One file, one schema: whoever opens it first makes everything.
SCHEMA = sqlite_log.SCHEMA + sqlite_state.SCHEMA + sqlite_rollups.SCHEMA + sqlite_events.SCHEMA


class Shared:
    """Connections to where stores are, each made when the first store asks for it. ``create``: make the embedded
    file and its folder where they are missing; else opening says that there is nothing yet."""

    def __init__(self, settings: Settings, *, create: bool = True) -> None:
        self._settings = settings
        self._create = create
        self._database: Database | None = None
        # Any: their module is imported only where MongoDB is set.
        self._mongos: dict[MongoSettings, Any] = {}

    def database(self) -> Database:
        """The embedded file."""
        if self._database is None:
            if self._create:
                data_folder.make(self._settings.data)
            self._database = Database(self._settings.database_file, schema=SCHEMA, create=self._create)
        return self._database

    def mongo(self, where: MongoSettings) -> Any:
        """The ``topology.mongo.connection.Mongo`` of a database."""
        if where not in self._mongos:
            from topology.mongo.connection import Mongo

            self._mongos[where] = Mongo(where.url.reveal(), where.database)
        return self._mongos[where]


def open_log(settings: Settings) -> Log:
    """The log, to be opened by the caller."""
    log = settings.log
    if log.embedded:
        data_folder.make(log.url.path.parent)
        return SqliteLog(Database(log.url.path, schema=SCHEMA))
    from topology.rabbitmq.log import RabbitLog

    return RabbitLog(log.url.reveal(), log.exchange, log.queue, log.max_age, log.max_bytes)


def state_store(settings: Settings, shared: Shared | None = None) -> StateStore:
    """Rows, arrivals, generations, positions."""
    shared = shared or Shared(settings)
    if settings.state is not None:
        from topology.mongo.state import MongoState

        return MongoState(shared.mongo(settings.state))
    if settings.state_file != settings.database_file:
        data_folder.make(settings.state_file.parent)
        return SqliteState(Database(settings.state_file, schema=SCHEMA))
    return SqliteState(shared.database())


def rollup_sink(settings: Settings, shared: Shared | None = None) -> RollupSink:
    """What the values of rollups are written to, and queried from."""
    from agents import ROLLUPS

    keys = {rollup.name: rollup.key for rollup in ROLLUPS.values()}
    influx = settings.influx
    if influx is not None:
        from topology.influxdb.sink import InfluxRollups

        return InfluxRollups(
            influx.url.reveal(),
            influx.token.reveal(),
            influx.org,
            influx.bucket,
            keys=keys,
        )
    return SqliteRollups((shared or Shared(settings)).database(), keys=keys)


def raw_events(settings: Settings, shared: Shared | None = None) -> RawEvents:
    """The archive."""
    shared = shared or Shared(settings)
    if settings.mongo is not None:
        from topology.mongo.events import MongoRawEvents

        return MongoRawEvents(shared.mongo(settings.mongo))
    return SqliteRawEvents(shared.database())


def dead_letters(settings: Settings, shared: Shared | None = None) -> DeadLetters:
    """What could not be processed."""
    shared = shared or Shared(settings)
    if settings.mongo is not None:
        from topology.mongo.events import MongoDeadLetters

        return MongoDeadLetters(shared.mongo(settings.mongo))
    return SqliteDeadLetters(shared.database())
