"""An agent that fails on some events of a batch: those are dead letters, the others count, the log has one line."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.topology.engine import NOW_MS, Engine, publish
from tests.topology.stores import Stores, opened
from topology.batch import LogEvent
from topology.position import Position
from topology.rollups.operators import TumblingOperator


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as made:
        yield made


async def test_the_events_to_blame_are_told_of_together(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fold = TumblingOperator.fold

    async def failing(
        self: TumblingOperator, events: Mapping[type, Sequence[LogEvent]], *, after: Position
    ) -> set[Position]:
        originals = [each.original for found in events.values() for each in found]
        if self._rollup.name == "space_storage" and any(b'"bad"' in each for each in originals):
            raise ZeroDivisionError("by the test")
        return await fold(self, events, after=after)

    monkeypatch.setattr(TumblingOperator, "fold", failing)
    uploads: list[dict[str, Any]] = [
        {"type": "storage.file_uploaded", "file_id": name, "space_id": "s", "bytes": 1, "time": NOW_MS}
        for name in ("good", "bad", "good", "bad", "bad")
    ]
    engine = Engine(stores, by_hand=True)
    await publish(stores, uploads)
    with caplog.at_level(logging.WARNING):
        await engine.start()
        await engine.folded()
    told = [record for record in caplog.records if record.name == "topology.views"]
    assert [record.levelname for record in told] == ["ERROR"]
    assert vars(told[0])["position"] == "0/1/0"  # epoch, message, event of it
    assert told[0].exc_info is not None
    assert await stores.dead_letters.count() == 3

    def counted(outcome: str) -> float | None:
        labels = {"group": "rollups", "agent": "storage", "outcome": outcome}
        return stores.registry.get_sample_value("eventsink_events_total", labels)

    assert (counted("folded"), counted("dead")) == (2, 3)
    imbalance = stores.registry.get_sample_value("eventsink_ledger_imbalance_events", {"agent": "storage"})
    assert imbalance == 0
