"""What every archive does, whatever keeps it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import pytest
from bson import Int64
from pymongo import MongoClient

from tests.topology.keeping import Kept, until_answered
from topology.errors import Refused, Unavailable
from topology.position import MAX_EPOCH, MAX_INDEX, MAX_OFFSET, Position, position
from topology.sinks import RawEvent, RawEvents

NOON = 1_771_243_200_000
LAST_POSITION = position(MAX_EPOCH, MAX_OFFSET, MAX_INDEX)

#: More than any implementation handles at a time.
MANY = 2_500


def event(
    number: int,
    *,
    id: str | None = None,
    time: int | None = None,
    at: Position | None = None,
    type: str = "storage.file_uploaded",
    space_id: str | None = "58d1a2b3c4d5e6f708192a3b",
    canonical: bytes = b"",
    original: bytes = b'{"msgType":"file added"}',
) -> RawEvent:
    at = position(1, number) if at is None else at
    return RawEvent(
        id=f"p:{at}" if id is None else id,
        position=at,
        time=NOON + number if time is None else time,
        received=NOON + 10_000,
        type=type,
        space_id=space_id,
        event=canonical or f'{{"type":"{type}","bytes":{number}}}'.encode(),
        original=original,
    )


async def archived(
    archive: RawEvents,
    *,
    since: int | None = None,
    until: int | None = None,
    type: str | Sequence[str] | None = None,
    limit: int = 10_000,
    before: tuple[int, Position] | None = None,
) -> list[RawEvent]:
    return list(await archive.query(since=since, until=until, type=type, limit=limit, before=before))


async def test_of_several_types_each_will_do(kept: Kept) -> None:
    archive = await kept.raw_events()
    types = [
        "health.pinged",
        "activity.logged_in",
        "health.page_fetched",
        "health.pinged",
        "storage.archived",
    ]
    events = [event(number, type=each, time=NOON + number // 2) for number, each in enumerate(types * 3)]
    await archive.insert(events)
    wanted = ["health.pinged", "health.page_fetched", "nothing", "health.pinged"]
    newest_first = [each for each in reversed(events) if each.type.startswith("health.")]
    assert await archived(archive, type=wanted) == newest_first
    assert await archived(archive, type=wanted, limit=4) == newest_first[:4]
    last = newest_first[3]
    assert await archived(archive, type=wanted, before=(last.time, last.position)) == newest_first[4:]
    assert await archived(archive, type=wanted, since=NOON + 2, until=NOON + 5) == [
        each for each in newest_first if NOON + 2 <= each.time < NOON + 5
    ]
    assert await archived(archive, type=[]) == []


ORIGINALS = {
    "json": b'{"msgType":"file added","bytes":1}',
    "layout kept": b'{ "bytes" :\t1,\r\n "a":"\\u00e9" }\n',
    "utf-8": '{"name":"é 東京 🚒"}'.encode(),
    "latin-1": '{"name":"é"}'.encode("latin-1"),
    "any bytes": bytes(range(256)),
    "nul": b"a\x00b",
    "empty": b"",
    "byte order mark": b"\xef\xbb\xbf{}",
    "surrogates": b"\xed\xa0\x80",
}


@pytest.mark.parametrize("original", ORIGINALS.values(), ids=ORIGINALS.keys())
async def test_the_original_comes_back_byte_for_byte(kept: Kept, original: bytes) -> None:
    await (await kept.raw_events()).insert([event(1, original=original)])
    (found,) = await archived(await kept.raw_events())
    assert found == event(1, original=original)


async def test_the_canonical_form_comes_back_as_it_was(kept: Kept) -> None:
    canonical = (
        '{"type":"health.pinged","time":"2026-02-16T12:00:00.000Z","id":"0","up":true,"loss":0.1,"zero":0.0,'
        '"response_ms":{"min":1.0,"avg":2.5,"max":1e22},"bytes":9007199254740991,"reason":null,'
        '"list":[1,{"b":1,"a":2}],"message":"é \\u0000 \\" 🚒","$where":"a.b"}'
    ).encode()
    await (await kept.raw_events()).insert([event(1, canonical=canonical)])
    (found,) = await archived(await kept.raw_events())
    assert found.event == canonical


async def test_every_field_comes_back(kept: Kept) -> None:
    archive = await kept.raw_events()
    events = [
        event(3, at=LAST_POSITION, space_id=None, type="traffic.page_viewed"),
        event(2, id="i:00ff", space_id=""),
        event(1, time=-5),
        event(0, time=-6, at=position(0, 0)),
    ]
    await archive.insert(events)
    assert await archived(archive) == events


async def test_a_redelivered_event_is_kept_once_and_as_it_was_first(kept: Kept) -> None:
    archive, other = await kept.raw_events(), await kept.raw_events()
    await archive.insert([event(1), event(2)])
    await other.insert([event(2, id=event(2).id, original=b"another"), event(3)])
    assert await archived(archive) == [event(3), event(2), event(1)]


async def test_a_batch_of_nothing_but_duplicates_is_success(kept: Kept) -> None:
    archive = await kept.raw_events()
    batch = [event(number) for number in range(100)]
    for _ in range(3):
        await archive.insert(batch)
    assert len(await archived(archive)) == 100


async def test_duplicates_do_not_keep_the_rest_of_a_batch_out(kept: Kept) -> None:
    # a batch whose first half, every third event and last event are there already
    archive = await kept.raw_events()
    batch = [event(number) for number in range(MANY)]
    await archive.insert(batch[: MANY // 2] + batch[MANY // 2 :: 3] + batch[-1:])
    await archive.insert(batch)
    assert await archived(archive) == batch[::-1]


async def test_the_same_event_twice_in_a_batch_is_kept_once(kept: Kept) -> None:
    archive = await kept.raw_events()
    await archive.insert([event(1, id="i:aa"), event(2, id="i:aa"), event(3)])
    assert await archived(archive) == [event(3), event(1, id="i:aa")]


async def test_two_workers_that_archive_the_same_events_keep_each_once(kept: Kept) -> None:
    one, other = await kept.raw_events(), await kept.raw_events()
    events = [event(number) for number in range(200)]
    await asyncio.gather(
        *(
            archive.insert(events[first : first + 50])
            for archive in (one, other)
            for first in range(0, 200, 50)
        )
    )
    assert await archived(one) == events[::-1]


async def test_nothing_is_inserted_for_nothing(kept: Kept) -> None:
    archive = await kept.raw_events()
    await archive.insert([])
    assert await archived(archive) == []


async def test_newest_first_by_time_then_by_position(kept: Kept) -> None:
    # time       1   2   2   2   3
    # position   9   4   6   5   1
    placed = [(1, 9), (2, 4), (2, 6), (2, 5), (3, 1)]
    archive = await kept.raw_events()
    await archive.insert([event(offset, time=time) for time, offset in placed])
    assert [(found.time, found.position) for found in await archived(archive)] == [
        (3, position(1, 1)),
        (2, position(1, 6)),
        (2, position(1, 5)),
        (2, position(1, 4)),
        (1, position(1, 9)),
    ]


async def test_pages_show_each_event_once(kept: Kept) -> None:
    archive = await kept.raw_events()
    # Seven events in each millisecond, so that pages of five end within one.
    events = [
        event(
            number,
            time=NOON + number // 7,
            at=position(number % 3, 1 << 37 | number),
            type="traffic.page_viewed" if number % 2 else "activity.logged_in",
        )
        for number in range(60)
    ]
    await archive.insert(events)
    newest_first = sorted(events, key=lambda each: (each.time, each.position), reverse=True)
    since, until = NOON + 1, NOON + 8
    for wanted in (None, "traffic.page_viewed"):
        pages: list[RawEvent] = []
        before: tuple[int, Position] | None = None
        while page := await archived(archive, since=since, until=until, type=wanted, limit=5, before=before):
            assert len(page) <= 5
            pages += page
            before = (page[-1].time, page[-1].position)
        assert pages == [
            each for each in newest_first if since <= each.time < until and wanted in (None, each.type)
        ]


async def test_since_is_in_and_until_is_not(kept: Kept) -> None:
    archive = await kept.raw_events()
    await archive.insert([event(number) for number in range(5)])
    assert await archived(archive, since=NOON + 1, until=NOON + 3) == [event(2), event(1)]
    assert await archived(archive, since=NOON + 4) == [event(4)]
    assert await archived(archive, until=NOON + 1) == [event(0)]
    assert await archived(archive, since=NOON + 3, until=NOON + 3) == []
    # A cursor above the range does not widen it.
    assert await archived(archive, until=NOON + 1, before=(NOON + 4, position(1, 4))) == [event(0)]


async def test_no_page_reads_the_whole_archive(kept: Kept) -> None:
    if kept.mongo is not None:
        with MongoClient[dict[str, object]](kept.mongo.url) as client:
            await kept.raw_events()
            indexes = client[kept.mongo.database]["events"].index_information().values()
            assert {index["key"][0][0] for index in indexes} == {"_id", "time", "type", "space_id"}
        return
    await kept.raw_events()
    with sqlite3.connect(kept.file) as connection:
        for condition, index in (
            ("time >= 1 AND time < 9", "events_time"),
            ("(time, position) < (5, 6)", "events_time"),
            ("type = 'a' AND (time, position) < (5, 6)", "events_type"),
        ):
            statement = f"SELECT * FROM events WHERE {condition} ORDER BY time DESC, position DESC LIMIT 5"  # noqa: S608
            plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert len(plan) == 1, plan  # no step that sorts
            assert index in plan[0]
    connection.close()


@pytest.mark.servers
async def test_documents_have_the_fields_and_types_that_others_rely_on(on_mongo: Kept) -> None:
    assert on_mongo.mongo is not None
    archive = await until_answered(on_mongo.raw_events)
    await archive.insert([event(1, time=7, at=position(0, 1)), event(2, original=b"\xff", space_id=None)])
    with MongoClient[dict[str, object]](on_mongo.mongo.url) as client:
        text, binary = client[on_mongo.mongo.database]["events"].find().sort("position")
    assert text == {
        "_id": f"p:{position(0, 1)}",
        "position": position(0, 1),
        "time": 7,
        "received": NOON + 10_000,
        "type": "storage.file_uploaded",
        "space_id": "58d1a2b3c4d5e6f708192a3b",
        "event": {"type": "storage.file_uploaded", "bytes": 1},
        "original": '{"msgType":"file added"}',
    }
    assert binary["original"] == b"\xff"
    assert binary["space_id"] is None
    if isinstance(text["received"], Int64):  # the stand-in forgets the width of small numbers
        assert all(isinstance(binary[field], Int64) for field in ("position", "time", "received"))


@pytest.mark.servers
async def test_an_event_that_no_document_can_hold_is_refused(on_mongo: Kept) -> None:
    archive = await until_answered(on_mongo.raw_events)
    too_great = event(2, canonical=b'{"type":"activity.logged_in","n":%d}' % (1 << 63))
    with pytest.raises(Refused):
        await archive.insert([event(0), too_great])
    await archive.insert([event(0)])
    assert await archived(archive) == [event(0)]


@pytest.mark.servers
async def test_away_in_the_middle_of_a_batch_then_back_each_event_is_there_once(on_mongo: Kept) -> None:
    mongo = on_mongo.mongo
    assert mongo is not None
    archive = await until_answered(on_mongo.raw_events)
    batch = [event(number) for number in range(MANY)]
    passed = mongo.passing("insert")
    inserting = asyncio.create_task(archive.insert(batch))
    while not passed.is_set():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    mongo.stop()
    with suppress(Unavailable):  # a fast server has answered already
        await inserting
    with pytest.raises(Unavailable):
        await archive.insert(batch)
    with pytest.raises(Unavailable):
        await archived(archive)
    mongo.start()
    await until_answered(lambda: archive.insert(batch))
    assert await archived(archive) == batch[::-1]


@pytest.mark.servers
async def test_a_batch_whose_answer_is_lost_is_repeated_with_success(on_mongo: Kept) -> None:
    mongo = on_mongo.mongo
    assert mongo is not None
    archive = await until_answered(on_mongo.raw_events)
    batches = [[event(number) for number in range(first, first + 10)] for first in (0, 5, 10)]
    for batch in batches:
        mongo.lose_answer("insert")
        with pytest.raises(Unavailable):
            await archive.insert(batch)
        await until_answered(lambda: archive.insert(batch))  # noqa: B023 - awaited at once
    found = await archived(archive)
    assert len(found) == 20
    assert all(newer.time > older.time for newer, older in pairwise(found))
