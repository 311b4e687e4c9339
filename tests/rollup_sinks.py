"""Every rollup sink, for suites that all of them pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from topology.influxdb.sink import InfluxRollups
from topology.sinks import RollupSink
from topology.sqlite import rollups as sqlite_rollups
from topology.sqlite.file import Database
from topology.sqlite.rollups import SqliteRollups

#: Parameters of a fixture that yields an ``opened_sink``.
ROLLUP_SINKS = ["sqlite", pytest.param("influxdb", marks=pytest.mark.servers)]


@asynccontextmanager
async def opened_sink(
    request: pytest.FixtureRequest, folder: Path, keys: Mapping[str, Sequence[str]]
) -> AsyncIterator[RollupSink]:
    """The sink that the fixture's parameter names, empty; ``keys``: the key tags of each rollup."""
    sink: RollupSink
    if request.param == "sqlite":
        sink = SqliteRollups(Database(folder / "rollups.db", schema=sqlite_rollups.SCHEMA), keys=keys)
    else:
        server = request.getfixturevalue("influx")
        sink = InfluxRollups(server.url, server.token, server.org, server.bucket, keys=keys)
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()
