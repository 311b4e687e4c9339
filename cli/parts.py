"""The real parts, built from settings. Nothing else builds a connection, and nothing here opens one.

Embedded stores of one process share one ``Database``, so that they do not wait for each other's write lock:
``embedded`` makes it, each takes it. The log has a connection of its own, so that an append does not
wait behind the writing of rollups.

Clients of servers are imported where they are used: who stays embedded does not wait for them.
"""

from __future__ import annotations

from cli import data_folder
from cli.settings import Settings
from topology import sqlite_log
from topology.log import Log
from topology.sqlite import Database
from topology.sqlite_log import SqliteLog

#: One file, one schema: whoever opens it first makes everything.
SCHEMA = sqlite_log.SCHEMA


def open_log(settings: Settings) -> Log:
    """The log, to be opened."""
    log = settings.log
    if log.embedded:
        data_folder.make(log.url.path.parent)
        return SqliteLog(Database(log.url.path, schema=SCHEMA))
    from topology.rabbitmq_log import RabbitLog

    return RabbitLog(log.url.reveal(), log.exchange, log.queue, log.max_age, log.max_bytes)
