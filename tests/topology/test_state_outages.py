"""What can happen to a store of rows, whatever keeps it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
from pymongo import MongoClient

from tests.topology.keeping import Kept, until_answered
from tests.topology.rows import MANY, TABLE, key, request, row, save, stored
from topology.errors import ForeignSchema, Unavailable
from topology.mongo.connection import MARKER, META
from topology.position import NOWHERE, position
from topology.sqlite.file import APPLICATION_ID
from topology.state import GroupState, RowWrite, StateStore


async def test_a_database_with_somebody_elses_things_is_left_alone(kept: Kept) -> None:
    if kept.mongo is None:
        with sqlite3.connect(kept.file) as theirs:
            theirs.execute("CREATE TABLE rows (whatever)")
        theirs.close()
    else:
        with MongoClient[dict[str, object]](kept.mongo.url) as client:
            client[kept.mongo.database]["rows"].insert_one({"whatever": 1})
    with pytest.raises(ForeignSchema):
        await kept.state()


async def test_what_an_earlier_schema_left_is_refused_in_one_line_and_left_alone(kept: Kept) -> None:
    if kept.mongo is None:
        with sqlite3.connect(kept.file) as earlier:
            earlier.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            earlier.execute("PRAGMA user_version = 1")
            earlier.execute("CREATE TABLE rows (kind, at)")
        earlier.close()
    else:
        with MongoClient[dict[str, object]](kept.mongo.url) as client:
            marker = {"_id": MARKER, "application": "eventsink", "version": 1}
            client[kept.mongo.database][META].insert_one(marker)
    for _ in range(2):
        with pytest.raises(
            ForeignSchema, match="has schema 1, this eventsink reads 2: use the release"
        ) as error:
            await kept.state()
        assert "\n" not in str(error.value)


async def test_a_closed_store_says_so_and_closes_twice(kept: Kept) -> None:
    store = await kept.state()
    await store.close()
    await store.close()
    with pytest.raises(Unavailable):
        await store.epoch()


def calls(store: StateStore) -> Sequence[tuple[Callable[[], Awaitable[object]], object]]:
    """Each call, with its answer when it is made for the second time."""
    state = GroupState(generation=1, watermark=5)
    saved = row(key(1), 10)
    return [
        (lambda: store.save_group("rollups", state), None),
        (lambda: store.read_group("rollups"), state),
        (lambda: store.generation("rollups"), 1),
        (lambda: store.raise_epoch(3), 4),
        (lambda: store.epoch(), 4),
        (lambda: save(store, (saved, 0)), None),
        (lambda: store.load_rows([key(1)]), {key(1): saved}),
        (lambda: store.owed_rows([TABLE], 5), [saved]),
        (lambda: store.record_arrivals({position(0, 1): 6}), {position(0, 1): 6}),
        (lambda: store.arrivals(position(0, 1), position(0, 1)), {position(0, 1): 6}),
        (lambda: store.count_owed(TABLE, before=1000), 1),
        (lambda: store.keys_of(TABLE), [key(1)]),
        (lambda: store.keys_between(TABLE, 60, 61), [key(1)]),
        (lambda: store.owe_rows([key(1)]), None),
        (lambda: store.settle_rows([(key(1), 10)]), None),
        (lambda: store.purge_rows(TABLE, before=0, upto=NOWHERE), 0),
        (lambda: store.purge_arrivals(NOWHERE, 0), None),
        (lambda: store.put_request(request()), None),
        (lambda: store.save_request(request(version=2), expected=1), True),
        (lambda: store.request("01"), request(version=2)),
        (lambda: store.requests("rollups"), [request(version=2)]),
        (lambda: store.delete_request("02"), None),
    ]


@pytest.mark.servers
async def test_a_server_that_is_away_is_unavailable_and_the_same_call_succeeds_when_it_is_back(
    on_mongo: Kept,
) -> None:
    assert on_mongo.mongo is not None
    store = await until_answered(on_mongo.state)
    assert (await store.begin("rollups")).generation == 1
    for call, _ in calls(store):
        await call()
    await until_answered(lambda: save(store, (row(key(1), 10), 0)))

    on_mongo.mongo.stop()
    for call, _ in calls(store):
        with pytest.raises(Unavailable) as error:
            await call()
        assert "MongoDB at 127.0.0.1" in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(Unavailable):
        await on_mongo.state()

    on_mongo.mongo.start()
    await until_answered(lambda: store.epoch())
    await save(store, (row(key(2), 11), 0))
    assert await store.owed_rows([TABLE], 5) == [row(key(2), 11)], "what was settled before stayed so"
    assert await store.begin("rollups") == GroupState(generation=2, watermark=5)


@pytest.mark.servers
@pytest.mark.parametrize("break_it", ["stop", "cut"])
async def test_a_bulk_write_that_is_broken_in_the_middle_is_repeated_to_the_same_rows(
    on_mongo: Kept, break_it: str
) -> None:
    mongo = on_mongo.mongo
    assert mongo is not None
    store = await until_answered(on_mongo.state)
    rows = [row(key(number), number + 1) for number in range(MANY)]
    writes = [RowWrite(each, 0) for each in rows]

    passed = mongo.passing("update")
    writing = asyncio.create_task(store.save_rows(writes))
    while not passed.is_set():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    if break_it == "stop":
        mongo.stop()
        mongo.start()
    else:
        mongo.cut()  # the server goes on with the first write while the second is made
    with suppress(Unavailable):  # a fast server has answered already
        await writing

    await until_answered(lambda: store.save_rows(writes))
    assert await store.load_rows([each.key for each in rows]) == {each.key: each for each in rows}


@pytest.mark.servers
async def test_a_write_whose_answer_is_lost_on_the_way_was_made_once(on_mongo: Kept) -> None:
    mongo = on_mongo.mongo
    assert mongo is not None
    store = await until_answered(on_mongo.state)
    await store.put_request(request())
    mongo.lose_answer("update")
    begun = request(state=b"begun", version=2)
    with pytest.raises(Unavailable):
        await store.save_request(begun, expected=1)
    assert await until_answered(lambda: store.request("01")) == begun
    assert await store.save_request(begun, expected=1)
    for write in ((row(key(1), 10), 0), (row(key(1), 20), 10)):
        mongo.lose_answer("update")
        with pytest.raises(Unavailable):
            await save(store, write)
        assert await until_answered(lambda: stored(store, key(1))) == write[0]
        await save(store, write)
    mongo.lose_answer("insert")
    arrivals = {position(0, 1): 5}
    assert await until_answered(lambda: store.record_arrivals(arrivals)) == arrivals
