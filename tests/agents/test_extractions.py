"""``extractor_runtime``: jobs as who asks sees them, whichever of their events came first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agents import ROLLUPS
from agents.extractions import extractions, extractor_runtime
from schemas.events import EVENT_TYPES, Event
from tests.topology.engine import NOW_MS, publish, started
from web.documents import rollup_document

#: 2026-11-23T20:00:00Z
HOUR_AGO = NOW_MS - 3_600_000

# 20:00          20:01          20:02
# [submitted     [failed        [succeeded)     the last end counts
#    started)       started)
JOB = [
    (0, "submitted"),
    (30, "started"),
    (70, "failed"),
    (90, "started"),
    (130, "succeeded"),
]


def _type(kind: type[Event]) -> str:
    return str(kind.__struct_config__.tag)


def test_it_reads_all_that_extractors_say_and_nothing_else() -> None:
    told = frozenset(kind for kind in EVENT_TYPES if _type(kind).startswith("extraction."))
    assert extractions.types == told
    assert extractions.rollups == (ROLLUPS["extractor_runtime"],)


async def asked(folder: Path, story: Sequence[tuple[int, str]]) -> Any:
    """What who asks is told after each event of the story was written out by itself."""
    async with started(folder) as engine:
        for seconds, what in story:
            event = {"type": f"extraction.{what}", "time": HOUR_AGO + 1000 * seconds}
            await publish(engine.stores, [{**event, "job_id": "j", "extractor": "x"}])
            await engine.folded()
            await engine.checkpoint()
        points = await engine.stores.rollups.query(
            "extractor_runtime", "1m", since=None, until=None, where={}, limit=100
        )
    return rollup_document(extractor_runtime, "1m", points)["rows"]


async def test_a_job_counts_where_it_ends_and_what_it_was_told_where_that_happened(tmp_path: Path) -> None:
    first, second, third = await asked(tmp_path, JOB)
    assert (first["time"], first["submitted"], first["started"]) == ("2026-11-23T20:00:00Z", 1, 1)
    assert (second["time"], second["failed"], second["started"]) == ("2026-11-23T20:01:00Z", 0, 1)
    assert (third["time"], third["succeeded"], third["failed"]) == ("2026-11-23T20:02:00Z", 1, 0)
    assert (third["runtime_s_sum"], third["wait_s_sum"]) == (40.0, 30.0)  # 130 - 90, 30 - 0
    # One value is its own minimum, maximum and median, though a sketch is off by up to 1 %.
    assert {third[f"runtime_s_{of}"] for of in ("min", "max", "p50", "p95", "p99")} == {40.0}
    assert "runtime_s_min" not in second


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_in_any_order_who_asks_is_told_the_same(tmp_path: Path, order: Sequence[int]) -> None:
    # An end at 20:01 that is taken back leaves zeros in the sink, and no trace for who asks.
    story = [(30, "started"), (70, "failed"), (130, "succeeded")]
    rows = await asked(tmp_path, [story[at] for at in order])
    assert [row["time"] for row in rows] == ["2026-11-23T20:00:00Z", "2026-11-23T20:02:00Z"]
    assert [row["succeeded"] for row in rows] == [0, 1]
    assert rows[1]["runtime_s_sum"] == 100.0
