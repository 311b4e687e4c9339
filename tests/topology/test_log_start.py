"""Where a group begins that has no saved position: EVENTSINK_LOG_START."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from tests.servers.rabbitmq import Broker
from tests.topology.engine import NOW_MS, Engine, publish, rollup
from tests.topology.stores import Stores, opened
from topology.log import JSON, LogReader, LogStart, Outgoing
from topology.rabbitmq.log import RabbitLog

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


async def arrive(stores: Stores, *arrivals: tuple[int, datetime]) -> None:
    """Uploads of so many bytes, each with its arrival."""
    await stores.log.publish(
        [
            Outgoing(
                b'{"type":"storage.file_uploaded","time":%d,"file_id":"f%d","space_id":"s","bytes":%d}'
                % (NOW_MS, size, size),
                JSON,
                None,
                int(at.timestamp() * 1000),
            )
            for size, at in arrivals
        ]
    )


async def run(stores: Stores, start: LogStart, *, save: bool = True) -> Engine:
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, log_start=start)
    await engine.start()
    await engine.folded()
    if save:
        await engine.checkpoint()
        await engine.stop()
    return engine


async def bytes_added(stores: Stores) -> int:
    found = await rollup(stores, "space_storage", "1d")
    return sum(fields["bytes_added"] for fields in found.values())


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("first", 1 + 2 + 4),
        ("last", 4),
        (NOON, 2 + 4),
        (NOON + 2 * MINUTE, 4),
        (NOON - MINUTE, 1 + 2 + 4),
        (NOON + timedelta(days=1), 0),
    ],
)
async def test_a_group_without_a_saved_position_begins_where_it_is_told(
    stores: Stores, start: LogStart, expected: int
) -> None:
    await arrive(stores, (1, NOON - MINUTE), (2, NOON), (4, NOON + 2 * MINUTE))
    await run(stores, start)
    assert await bytes_added(stores) == expected


async def test_a_saved_position_goes_before_the_setting(stores: Stores) -> None:
    await arrive(stores, (1, NOON))
    await run(stores, "first")
    await arrive(stores, (2, NOON), (4, NOON))
    await run(stores, "last")
    assert await bytes_added(stores) == 1 + 2 + 4


async def test_an_empty_log_has_nothing_to_leave_out(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_readers = 0
    reader = stores.log.reader

    async def counting(offset: int) -> LogReader:
        nonlocal opened_readers
        opened_readers += 1
        return await reader(offset)

    monkeypatch.setattr(stores.log, "reader", counting)
    engine = await run(stores, "last", save=False)
    while opened_readers < len(engine.groups):
        await engine.tick()
    await arrive(stores, (1, NOON), (2, NOON))
    await engine.folded()
    await engine.checkpoint()
    await engine.stop()
    assert await bytes_added(stores) == 1 + 2


async def test_a_crash_before_the_first_checkpoint_does_not_move_the_beginning(stores: Stores) -> None:
    await arrive(stores, (1, NOON), (2, NOON))
    engine = await run(stores, "last", save=False)
    await arrive(stores, (4, NOON), (8, NOON))
    await engine.folded()
    await engine.crash()
    await run(stores, "last")
    assert await bytes_added(stores) == 2 + 4 + 8


async def test_a_log_that_began_late_is_no_cut_log_and_no_new_one(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    await arrive(stores, (1, NOON), (2, NOON))
    await run(stores, "last")
    await run(stores, "last")
    await publish(stores, [])
    assert await bytes_added(stores) == 2
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "WARNING"}]
    saved = await stores.state.read_group("rollups")
    assert saved is not None
    assert saved.generation == 2


# -- on a broker: to the second, and to the chunk (each publish below is one, since it waits for its confirm) --


@pytest.fixture
async def on_broker(stores: Stores, broker: Broker) -> AsyncIterator[Stores]:
    """Embedded stores, and the log on RabbitMQ."""
    log = RabbitLog(broker.url, broker.exchange, broker.queue)
    await log.open()
    embedded, cast(Any, stores).log = stores.log, log
    yield stores
    cast(Any, stores).log = embedded
    await log.close()


async def the_next_second() -> datetime:
    """Returns when it has begun."""
    second = int(datetime.now(UTC).timestamp())
    while int((now := datetime.now(UTC)).timestamp()) == second:
        await asyncio.sleep(0.02)
    return now


@pytest.mark.servers
@pytest.mark.parametrize(
    ("start", "expected"),
    [("first", 1 + 2 + 4), ("last", 4), ("between", 2 + 4), ("long ago", 1 + 2 + 4), ("tomorrow", 0)],
)
async def test_on_a_broker_too_and_a_saved_position_goes_before_it(
    on_broker: Stores, start: str, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    await arrive(on_broker, (1, NOON))
    between = await the_next_second()
    await arrive(on_broker, (2, NOON))
    await arrive(on_broker, (4, NOON))
    times = {
        "between": between,
        "long ago": datetime(2020, 1, 1, tzinfo=UTC),
        "tomorrow": between + timedelta(days=1),
    }
    begin = cast(LogStart, times.get(start, start))
    await run(on_broker, begin)
    assert await bytes_added(on_broker) == expected
    for size in (8, 16):  # of which "last" and "tomorrow" would leave one out, or both
        await arrive(on_broker, (size, NOON))
    await run(on_broker, begin)
    assert await bytes_added(on_broker) == expected + 8 + 16
    # It is no log that was cut, and no new one. (aiormq tells of calls that a stop cut off.)
    ours = [record for record in caplog.records if record.name.startswith("topology")]
    assert not [record for record in ours if record.levelname in {"ERROR", "WARNING"}]


@pytest.mark.parametrize("how", ["stop", "crash"])
async def test_an_empty_log_is_read_from_its_first_message_whatever_happens_before_that_comes(
    stores: Stores, how: str
) -> None:
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, log_start="last")
    await engine.start()
    while not all(group.reading.begins_at_first for group in engine.groups):
        await engine.tick()
    await engine.checkpoint()
    await (engine.stop() if how == "stop" else engine.crash())
    await arrive(stores, (1, NOON), (2, NOON), (4, NOON))  # while the worker is down
    await run(stores, "last")
    assert await bytes_added(stores) == 7
