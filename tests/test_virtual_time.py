"""A day of traffic without waiting for it: the clock is a variable, and moved by the test."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.events import (
    Event,
    ExtractionFailed,
    ExtractionStarted,
    ExtractionSubmitted,
    ExtractionSucceeded,
    FileUploaded,
    LoggedIn,
    MaintenanceEnded,
    MaintenanceStarted,
    Pinged,
    ResourceDownloaded,
    ResponseTimes,
)
from tests.oracle import Rollups, placed, rollups, same
from tests.topology.engine import Engine, every_rollup, publish_batches, rollup, unsynced
from tests.topology.stores import opened
from topology.group.reading import ALLOWED_DISORDER_MS

#: A midnight.
MIDNIGHT_MS = 1_795_478_400_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
#: Events that are published together, and the rhythm of checkpoints.
BATCH = 250


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with opened(tmp_path) as stores:
        await unsynced(stores)
        engine = Engine(stores, by_hand=True)
        await engine.start()
        yield engine
        await engine.stop()


def pings(chance: random.Random) -> Iterator[Event]:
    """Of each of two services from three regions, once a minute; a region now and then sees nothing."""
    for minute in range(24 * 60):
        for service in ("clowder", "mongo"):
            for at, region in enumerate(("eu", "us", "ap")):
                if chance.random() < 0.02:
                    continue
                average = chance.randrange(1, 2_000_000) / 1000
                yield Pinged(
                    time=MIDNIGHT_MS + minute * MINUTE_MS + 7000 * at + chance.randrange(2000),
                    service=service,
                    region=region,
                    up=chance.random() < 0.97,
                    response_ms=ResponseTimes(avg=average, max=2 * average),
                )
    yield MaintenanceStarted(time=MIDNIGHT_MS + 9 * HOUR_MS, service="clowder")
    yield MaintenanceEnded(time=MIDNIGHT_MS + 11 * HOUR_MS + 12_345, service="clowder")


def jobs(chance: random.Random, count: int) -> Iterator[Event]:
    for job in range(count):
        at = MIDNIGHT_MS + chance.randrange(DAY_MS - HOUR_MS)
        who: dict[str, Any] = {
            "job_id": f"j{job}",
            "extractor": chance.choice(["wordcount", "digest", "faces"]),
        }
        yield ExtractionSubmitted(time=at, **who)
        at += chance.randrange(MINUTE_MS)
        yield ExtractionStarted(time=at, **who)
        at += chance.randrange(10 * MINUTE_MS)
        ends = ExtractionFailed if chance.random() < 0.1 else ExtractionSucceeded
        yield ends(time=at, **who)


def people(chance: random.Random, count: int) -> Iterator[Event]:
    for number in range(count):
        at = MIDNIGHT_MS + chance.randrange(DAY_MS)
        space, user = f"s{chance.randrange(3)}", f"u{chance.randrange(40)}"
        size = chance.randrange(10**9)
        match number % 3:
            case 0:
                yield FileUploaded(time=at, user_id=user, file_id="f", space_id=space, bytes=size)
            case 1:
                yield LoggedIn(time=at, user_id=user)
            case _:
                yield ResourceDownloaded(
                    time=at, user_id=user, resource_type="file", resource_id="f", space_id=space, bytes=size
                )


def in_order(events: Iterable[Event], chance: random.Random) -> list[Event]:
    """As they arrive: nearly in order, a few of them hours late."""

    def arrival(event: Event) -> float:
        late = chance.random()
        return (event.time or 0) + (3 * HOUR_MS if late < 0.01 else 8000 * late)

    return sorted(events, key=arrival)


async def told_until(engine: Engine, ms: int) -> None:
    """Nothing comes, and the clock stands there."""
    engine.now_ms = ms
    await engine.quiet()
    await engine.checkpoint()
    await engine.delivered()


def by_oracle(events: Iterable[Event], now_ms: int) -> Rollups:
    return rollups(placed(events), watermark_ms=now_ms - ALLOWED_DISORDER_MS)


async def test_a_day_of_traffic_is_told_exactly(engine: Engine) -> None:
    chance = random.Random(20261124)
    everything = [*pings(chance), *jobs(chance, 1500), *people(chance, 7000)]
    events = in_order(everything, chance)
    assert len(events) > 19_000
    for first in range(0, len(events), BATCH):
        batch = events[first : first + BATCH]
        engine.now_ms = max(engine.now_ms, *(event.time or 0 for event in batch))
        await publish_batches(engine.stores, [batch])
        await engine.folded()
        if first // BATCH % 8 == 7:
            await engine.checkpoint()
    end = MIDNIGHT_MS + DAY_MS + HOUR_MS
    await told_until(engine, end)
    assert same(by_oracle(events, end), await every_rollup(engine.stores)) == []


async def test_a_service_that_nobody_looks_at_any_more_is_told_of_for_a_day(engine: Engine) -> None:
    #          00:00:30                  next day 00:00:30      the day after
    # results  [up 30 s---|                       |                 |
    # rows     |==================================|                 |
    # clock        ^      ^        ^              ^   ^             ^
    ping = Pinged(time=MIDNIGHT_MS + 30_000, service="clowder", region="eu", up=True, valid_for_s=30)
    engine.now_ms = MIDNIGHT_MS + 30_000
    await publish_batches(engine.stores, [[ping]])
    row = (MIDNIGHT_MS // 1000, ("clowder", "eu"))
    unknown = []
    for minutes in (0, 1, 2, 61, 1440, 1441, 1500, 2880, 3000):
        now = MIDNIGHT_MS + minutes * MINUTE_MS + 40_000
        await told_until(engine, now)
        rows = await every_rollup(engine.stores)
        assert same(by_oracle([ping], now), rows) == []
        unknown.append(rows["service_uptime", "1d"][row]["unknown_s"])
    # of the first day: 30 s before the result, and what has passed since it no longer holds
    passed = [30, 60 + 30, 120 + 30, 3660 + 30, *[86_400] * 5]
    assert unknown == [since - known for since, known in zip(passed, [0, *[30] * 8], strict=True)]
    last = max(await rollup(engine.stores, "service_uptime", "1m"))
    assert last == (MIDNIGHT_MS // 1000 + 86_400, ("clowder", "eu"))
    next_day = (await rollup(engine.stores, "service_uptime", "1d"))[row[0] + 86_400, row[1]]
    assert next_day["unknown_s"] == 86_400


async def test_a_row_begins_with_the_result_and_grows_while_that_is_ahead_of_the_watermark(
    engine: Engine,
) -> None:
    # s        0     25  28 30         40
    # results  |      :   :  [up--------
    # passed   |======^===^                  the watermark has not reached the result
    ping = Pinged(time=MIDNIGHT_MS + 30_000, service="clowder", region="eu", up=True)
    await publish_batches(engine.stores, [[ping]])
    for seconds in (25, 28):
        now = MIDNIGHT_MS + seconds * 1000 + ALLOWED_DISORDER_MS
        await told_until(engine, now)
        rows = await every_rollup(engine.stores)
        assert same(by_oracle([ping], now), rows) == []
        row = rows["service_uptime", "1d"][MIDNIGHT_MS // 1000, ("clowder", "eu")]
        assert (row["unknown_s"], row["checks"]) == (seconds, 1)


async def test_a_service_that_comes_back_after_days_has_no_rows_in_between(engine: Engine) -> None:
    #        day 0        1        2        3        4
    # ping   |            |        |        |^       |
    # rows   |============|=       |        |=
    events = [
        Pinged(time=MIDNIGHT_MS + at, service="clowder", region="eu", up=True)
        for at in (30_000, 3 * DAY_MS + 30_000)
    ]
    for event in events:
        assert event.time is not None
        await told_until(engine, event.time)
        await publish_batches(engine.stores, [[event]])
        await told_until(engine, event.time + HOUR_MS)
    now = MIDNIGHT_MS + 3 * DAY_MS + 30_000 + HOUR_MS
    assert same(by_oracle(events, now), await every_rollup(engine.stores)) == []
