"""Every event, canonical and as it came, for looking things up and for computing anything anew."""

from __future__ import annotations

from topology.agents import Batches, agent


@agent(group="archive")
async def archive(batches: Batches) -> None:
    async for batch in batches:
        await batch.archive()
