"""The lag counts events, not messages, as far as anybody can know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.topology.engine import NOW_MS, Engine, publish
from tests.topology.stores import opened
from topology.group.reading import ALLOWED_DISORDER_MS, Reading
from topology.position import NOWHERE, Position, position
from topology.state import GroupState


def reading(positions: Mapping[str, Position]) -> Reading:
    unused: Any = None
    return Reading(1, GroupState(generation=1, positions=dict(positions)), positions, unused, unused, unused)


def test_what_was_read_counts_exactly() -> None:
    #        message 0      message 1        message 2
    #        3 events       1 event          1000 events     end = 3
    # agent  done           done             in hand
    read = reading({"storage": NOWHERE})
    for offset, events in enumerate((3, 1, 1000)):
        read.handed(position(0, offset), b"", messages=1, events=events)
    read.done("storage", position(0, 1), events=4)
    assert read.lag("storage", end=3) == 1000
    read.done("storage", position(0, 2), events=1000)
    assert read.lag("storage", end=3) == 0


def test_a_message_that_was_not_read_counts_as_the_mean_of_those_that_were() -> None:
    read = reading({"storage": NOWHERE})
    read.handed(position(0, 1), b"", messages=2, events=30)
    # 30 in hand, 4 messages of 15 events each
    assert read.lag("storage", end=6) == 30 + 4 * 15


def test_before_anything_was_read_a_message_counts_as_one_event() -> None:
    assert reading({"storage": NOWHERE}).lag("storage", end=7) == 7
    assert reading({"storage": position(0, 4)}).lag("storage", end=7) == 2


def test_an_agent_that_was_ahead_is_not_behind_by_what_it_knows() -> None:
    # The group reads from `new`'s beginning; `old` was at message 9 already.
    read = reading({"old": position(0, 9), "new": NOWHERE})
    read.handed(position(0, 4), b"", messages=5, events=5)
    assert read.lag("old", end=10) == 0
    assert read.lag("new", end=10) == 5 + 5


def test_a_log_that_is_shorter_than_what_was_read_of_it_leaves_no_lag() -> None:
    assert reading({"storage": position(0, 9)}).lag("storage", end=3) == 0


def test_what_an_agent_folded_last_may_be_older_than_its_watermark() -> None:
    # A monitor was cut off for an hour: its backlog comes after what is of now.
    hour_ms = 3_600_000
    read = reading({"storage": NOWHERE, "slow": NOWHERE})
    assert read.newest("storage") is None
    read.seen("storage", 2 * hour_ms)
    read.seen("slow", hour_ms)
    assert (read.newest("storage"), read.newest("slow")) == (2 * hour_ms, hour_ms)
    read.seen("storage", hour_ms)
    assert read.newest("storage") == hour_ms
    assert read.watermark == hour_ms - ALLOWED_DISORDER_MS


def test_before_its_first_batch_an_agent_is_where_it_was_saved() -> None:
    unused: Any = None
    saved = GroupState(generation=1, positions={"old": position(0, 9)}, watermark=1000)
    read = Reading(1, saved, ("old", "new"), unused, unused, unused)
    assert read.newest("old") == 1000 + ALLOWED_DISORDER_MS
    assert read.newest("new") is None


# -- in the engine --

HOUR_MS = 3_600_000


def upload(at_ms: int) -> dict[str, Any]:
    return {"type": "storage.file_uploaded", "file_id": "f", "space_id": "s", "bytes": 1, "time": at_ms}


async def test_each_agent_tells_how_old_its_own_last_events_are(tmp_path: Path) -> None:
    async with opened(tmp_path) as stores:
        engine = Engine(stores, by_hand=True)
        await engine.start()
        (group,) = engine.groups

        def shown(agent: str) -> float | None:
            return stores.registry.get_sample_value("eventsink_agent_lag_seconds", {"agent": agent})

        await publish(stores, [upload(NOW_MS - 60_000)])
        await engine.folded()
        # `storage` folds no more; the others get a backlog of an hour ago.
        async with group._turns["storage"]:
            await publish(stores, [upload(NOW_MS - HOUR_MS)])
            end = await stores.log.end_offset()
            others = [agent for agent in group.agents if agent != "storage"]
            while any(group.reading.lag(agent, end) for agent in others):
                await asyncio.sleep(0.001)
            group.measure_lag(end)
            assert {shown(agent) for agent in others} == {0}
            assert shown("storage") == 60
            group.measure_lag(end + 1)  # one more that nobody has read
            assert {shown(agent) for agent in others} == {3600}
            assert shown("storage") == 60
        await engine.stop()
