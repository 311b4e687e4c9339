"""Jobs of extractors: how many, how they end, how long they take and how long they wait."""

from __future__ import annotations

from schemas.events import (
    ExtractionFailed,
    ExtractionProgressed,
    ExtractionRetried,
    ExtractionSkipped,
    ExtractionStarted,
    ExtractionSubmitted,
    ExtractionSucceeded,
)
from topology.agents import Batches, agent
from topology.jobs.job import JobRollup

extractor_runtime = JobRollup(
    "extractor_runtime",
    key="extractor",
    submitted=ExtractionSubmitted,
    started=ExtractionStarted,
    progressed=ExtractionProgressed,
    retried=ExtractionRetried,
    succeeded=ExtractionSucceeded,
    failed=ExtractionFailed,
    skipped=ExtractionSkipped,
)


@agent(group="rollups", rollups=[extractor_runtime])
async def extractions(batches: Batches) -> None:
    async for batch in batches:
        await batch.fold(extractor_runtime)
