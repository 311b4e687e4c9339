"""A rollup sink that is away, busy, or takes half: the whole engine on InfluxDB, whatever it answers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from agents import ROLLUPS
from tests.oracle import Rollups, same
from tests.servers.influxdb import Influx
from tests.topology.engine import Engine, publish
from tests.topology.lives import AT_LAST, FIRST, THEN, lived, must_be
from tests.topology.stores import Stores, opened
from topology.group.groups import LOOK_FOR_REQUESTS_EVERY_S
from topology.health import LOOK_EVERY_S
from topology.influxdb.sink import InfluxRollups
from topology.sinks import Point

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


@pytest.fixture
async def sink(influx: Influx) -> AsyncIterator[InfluxRollups]:
    sink = InfluxRollups(influx.url, influx.token, influx.org, influx.bucket, timeout=timedelta(seconds=10))
    await sink.open()
    yield sink
    await sink.close()


class Sleeps:
    """How long the engine wanted to wait; it does not."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        # Until the next checkpoint, seek, request, or look at whether agents make progress.
        if seconds >= 60 or seconds in {LOOK_FOR_REQUESTS_EVERY_S, LOOK_EVERY_S}:
            await asyncio.get_running_loop().create_future()
        self.asked.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


async def started(stores: Stores, sink: InfluxRollups, sleeps: Sleeps) -> Engine:
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, rollup_sink=sink, sleep=sleeps)
    await engine.start()
    return engine


async def everything(sink: InfluxRollups) -> Rollups:
    """What InfluxDB holds. A ratio of nothing is stale, and readers leave it out."""
    found: Rollups = {}
    for name, rollup in ROLLUPS.items():
        for window in ("1m", "1h", "1d"):
            points = await sink.query(name, window, since=None, until=None, where={}, limit=100_000)
            rows = found[name, window] = {
                (point.time, tuple(dict(point.tags)[tag] for tag in rollup.key)): dict(point.fields)
                for point in points
            }
            for fields in rows.values():
                if name == "service_uptime" and fields["up_s"] + fields["down_s"] == 0:
                    fields.pop("uptime_ratio", None)
    return found


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_sink_is_left_alone_for_as_long_as_it_wishes_and_gets_everything(
    stores: Stores, influx: Influx, sink: InfluxRollups, sleeps: Sleeps, status: int
) -> None:
    engine = await started(stores, sink, sleeps)
    influx.fail_next(status, times=2, retry_after=17)
    await publish(stores, FIRST)
    await lived(engine)
    assert sleeps.asked == [17, 17]
    influx.fail_next(status, retry_after=23)
    await publish(stores, THEN)
    await engine.folded()
    await engine.crash()
    engine = await started(stores, sink, sleeps)
    await publish(stores, AT_LAST)
    await lived(engine)
    await engine.stop()
    assert sleeps.asked == [17, 17, 23]
    assert same(must_be([*FIRST, *THEN, *AT_LAST]), await everything(sink)) == []


async def test_answers_that_are_lost_and_a_server_that_goes_away_and_comes_back_cost_no_value(
    stores: Stores, influx: Influx, sink: InfluxRollups, sleeps: Sleeps
) -> None:
    engine = await started(stores, sink, sleeps)
    influx.drop_next(times=2, forwarded=True)
    influx.drop_next(forwarded=False)
    await publish(stores, FIRST)
    await lived(engine)
    await asyncio.to_thread(influx.go_away)
    await publish(stores, THEN)
    await engine.folded()
    await engine.checkpoint()
    assert engine.groups[0].sink_away
    await asyncio.to_thread(influx.come_back)
    await publish(stores, AT_LAST)
    await lived(engine)
    await engine.stop()
    assert same(must_be([*FIRST, *THEN, *AT_LAST]), await everything(sink)) == []


async def test_of_a_batch_that_is_half_taken_only_what_is_refused_for_good_is_missing_and_told(
    stores: Stores, influx: Influx, sink: InfluxRollups, sleeps: Sleeps
) -> None:
    # Someone wrote a fraction where whole numbers belong: of each batch InfluxDB takes the other points, and says 400.
    day_s = min(at for at, _ in must_be(FIRST)["queue_length", "1d"])
    await sink.write(
        [Point("queue_length", "1m", day_s, (("service", "x"), ("queue", "x")), {"messages_max": 1.5})]
    )
    engine = await started(stores, sink, sleeps)
    for events in (FIRST, THEN, AT_LAST):
        await publish(stores, events)
        await lived(engine)
    await engine.stop()
    found = await everything(sink)
    expected = must_be([*FIRST, *THEN, *AT_LAST])
    for window in ("1m", "1h", "1d"):
        del found["queue_length", window], expected["queue_length", window]
    assert same(expected, found) == []
    letters = [each for each in await stores.dead_letters.list(limit=99) if each.agent == sink.name]
    assert len(letters) == 3
    assert all(b'"queue_length"' in each.body for each in letters)
