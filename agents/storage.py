"""Bytes and files added to and removed from each space."""

from __future__ import annotations

from schemas.events import FileDeleted, FileUploaded
from topology.agents import Batches, agent
from topology.rollups.declaration import Rollup
from topology.rollups.measures import Count, Sum

space_storage = Rollup(
    "space_storage",
    key=["space_id"],
    measures={
        "bytes_added": Sum(FileUploaded, "bytes"),
        "bytes_removed": Sum(FileDeleted, "bytes"),
        "files_added": Count(FileUploaded),
        "files_removed": Count(FileDeleted),
    },
)


@agent(group="rollups", rollups=[space_storage])
async def storage(batches: Batches) -> None:
    async for batch in batches:
        await batch.fold(space_storage)
