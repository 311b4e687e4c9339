"""A full disk: one clear line, nothing lost, and work goes on when there is room again."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.topology.engine import Engine, publish, rollup
from tests.topology.stores import Stores, opened
from topology.errors import Unavailable
from topology.log import JSON, Outgoing


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


async def limit_pages(stores: Stores, more: int | None) -> None:
    """Let the file grow by so many pages, or without limit: SQLite then says that the disk is full."""

    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {2**30 if more is None else pages + more}")

    await stores.log._database.read(limit)


async def test_what_does_not_fit_is_not_accepted_and_what_was_accepted_stays(stores: Stores) -> None:
    body = b"x" * 100_000
    await stores.log.publish([Outgoing(b"first", JSON, None, None)])
    await limit_pages(stores, 5)
    with pytest.raises(Unavailable, match=r"the disk of .* is full: make room, nothing was lost"):
        await stores.log.publish([Outgoing(body, JSON, None, None)])
    assert await stores.log.end_offset() == 1
    await limit_pages(stores, None)
    await stores.log.publish([Outgoing(body, JSON, None, None)])
    first = await stores.log.message_at(0)
    second = await stores.log.message_at(1)
    assert first is not None
    assert second is not None
    assert (first.body, second.body) == (b"first", body)


async def test_agents_wait_for_room_and_come_to_the_right_numbers(stores: Stores) -> None:
    await publish(
        stores,
        [
            {
                "type": "storage.file_uploaded",
                "file_id": "f",
                "time": 60_000 * n,
                "bytes": 1,
                "space_id": f"s{n}",
            }
            for n in range(500)
        ],
    )
    engine = Engine(stores)
    await limit_pages(stores, 5)
    await engine.start()
    while not engine.stores.outages.away:
        await engine.tick()
    assert "is full" in "".join(engine.stores.outages.away.values())
    await limit_pages(stores, None)
    await engine.folded()
    await engine.checkpoint()
    await engine.stop()
    rows = await rollup(stores, "space_storage", "1d")
    assert sum(fields["bytes_added"] for fields in rows.values()) == 500
