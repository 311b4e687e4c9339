"""Services: for how long each was up, seen from each region, and how its pages, connections and queues are."""

from __future__ import annotations

from schemas.events import (
    ConnectionsCounted,
    MaintenanceEnded,
    MaintenanceStarted,
    PageFetched,
    Pinged,
    QueueMeasured,
)
from topology.agents import Batches, agent
from topology.rollups.declaration import Rollup
from topology.rollups.measures import Count, Failures, Max, Mean, Quantile
from topology.services.rows import UptimeRollup

service_uptime = UptimeRollup(
    "service_uptime",
    pinged=Pinged,
    fetched=PageFetched,
    maintenance_started=MaintenanceStarted,
    maintenance_ended=MaintenanceEnded,
)

#: Milliseconds are added up as microseconds.
MICROSECONDS = 1000

service_page = Rollup(
    "service_page",
    key=["service", "region"],
    measures={
        "fetches": Count(PageFetched),
        "failures": Failures(PageFetched),
        "bytes_mean": Mean(PageFetched, "bytes"),
        "elapsed_ms_mean": Mean(PageFetched, "elapsed_ms", parts=MICROSECONDS),
        "elapsed_ms_max": Max(PageFetched, "elapsed_ms", integer=False),
        "elapsed_ms_p95": Quantile(PageFetched, "elapsed_ms", 95),
    },
)

service_connections = Rollup(
    "service_connections",
    key=["service", "region"],
    measures={
        "connections_mean": Mean(ConnectionsCounted, "connections"),
        "connections_max": Max(ConnectionsCounted, "connections"),
    },
)

queue_length = Rollup(
    "queue_length",
    key=["service", "queue"],
    measures={
        "messages_mean": Mean(QueueMeasured, "messages"),
        "messages_max": Max(QueueMeasured, "messages"),
    },
)

ROLLUPS = (service_uptime, service_page, service_connections, queue_length)


@agent(group="rollups", rollups=ROLLUPS)
async def uptime(batches: Batches) -> None:
    async for batch in batches:
        for rollup in ROLLUPS:
            await batch.fold(rollup)
