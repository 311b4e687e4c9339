"""Views and downloads: how often, how much, and by how many different people."""

from __future__ import annotations

from schemas.events import PageViewed, ResourceDownloaded, ResourceViewed
from topology.agents import Batches, agent
from topology.rollups.declaration import ByType, Rollup
from topology.rollups.measures import Count, Distinct, Sum

ACTIONS = {
    ResourceViewed: "viewed",
    ResourceDownloaded: "downloaded",
    PageViewed: "page_viewed",
}

resource_traffic = Rollup(
    "resource_traffic",
    key=[ByType("action", ACTIONS), "resource_type", "space_id"],
    measures={
        "events": Count(*ACTIONS),
        # A file is downloaded in bytes, a dataset in items; the two are never added up.
        "bytes": Sum(ResourceDownloaded, "bytes"),
        "items": Sum(ResourceDownloaded, "items"),
        "unique_users": Distinct(ACTIONS, "user_id"),
    },
)


@agent(group="rollups", rollups=[resource_traffic])
async def traffic(batches: Batches) -> None:
    async for batch in batches:
        await batch.fold(resource_traffic)
