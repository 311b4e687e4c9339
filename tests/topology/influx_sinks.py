"""A sink on a real InfluxDB, and what is in it."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from datetime import timedelta

from tests.servers.influxdb import Influx
from tests.servers.victoria import Victoria
from topology.influxdb.sink import InfluxRollups
from topology.sinks import Point, Value

#: 2021-04-05T13:00:00Z
T0 = 1617627600


def sink_on(
    server: Influx | Victoria,
    *,
    url: str | None = None,
    token: str | None = None,
    bucket: str | None = None,
    timeout_s: float = 10,
) -> InfluxRollups:
    return InfluxRollups(
        server.url if url is None else url,
        server.token if token is None else token,
        server.org,
        server.bucket if bucket is None else bucket,
        timeout=timedelta(seconds=timeout_s),
    )


def point(space: str = "s1", *, time: int = T0, **fields: Value) -> Point:
    return Point("space_storage", "1h", time, (("space_id", space),), fields or {"files_added": 1})


async def everything(sink: InfluxRollups) -> Sequence[Point]:
    return await sink.query("space_storage", "1h", since=None, until=None, where={}, limit=1000)


def everything_said(error: BaseException) -> str:
    """The message, its causes and their traces: whatever a log might show."""
    return "".join(traceback.format_exception(error))
