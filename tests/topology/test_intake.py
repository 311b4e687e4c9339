"""Intake: bytes into placed events, refusals into dead letters, repetitions told apart."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.topology.stores import Stores, opened
from topology.batch import Batch
from topology.group.ids import Ids, IdTable
from topology.group.intake import FUTURE_MS, Intake
from topology.group.rows import RowCache
from topology.log import NDJSON, Message
from topology.position import position

NOW = 1_795_467_600_000


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


def intake(stores: Stores, now_ms: int = NOW, group: str = "rollups") -> Intake:
    rows = RowCache(
        stores.state,
        {f"ids/{group}": IdTable()},
        owing=[],
        versions=itertools.count(1),
        max_bytes=1 << 20,
        outages=stores.outages,
    )
    return Intake(
        group,
        Ids(rows, f"ids/{group}"),
        stores.state,
        stores.dead_letters,
        outages=stores.outages,
        metrics=stores.metrics,
        clock_ms=lambda: now_ms,
    )


async def admitted(stores: Stores, *messages: Message, now_ms: int = NOW) -> Batch:
    return await intake(stores, now_ms).admit(messages, epoch=0, reading=1)


def login(offset: int = 0, **fields: object) -> Message:
    return Message(offset, json.dumps({"type": "activity.logged_in"} | fields).encode())


async def test_an_event_is_placed_at_its_own_time(stores: Stores) -> None:
    (event,) = (await admitted(stores, login(time=NOW - 5000))).events
    assert (event.time_ms, event.received_ms) == (NOW - 5000, NOW)


async def test_an_event_without_a_time_is_placed_at_its_arrival_in_every_replay_and_group(
    stores: Stores,
) -> None:
    (lived,) = (await admitted(stores, login())).events
    (replayed,) = (await admitted(stores, login(), now_ms=NOW + 3_600_000)).events
    other = intake(stores, NOW + 7_200_000, group="archive")
    (archived,) = (await other.admit([login()], epoch=0, reading=1)).events
    assert lived.time_ms == replayed.time_ms == archived.time_ms == NOW


async def test_arrival_does_not_go_back_when_the_clock_does(stores: Stores) -> None:
    clock = iter([NOW, NOW - 3_600_000])
    taking = intake(stores)
    taking._clock_ms = lambda: next(clock)
    (first,) = (await taking.admit([login(0)], epoch=0, reading=1)).events
    (second,) = (await taking.admit([login(1)], epoch=0, reading=1)).events
    assert second.time_ms == first.time_ms == NOW


async def test_the_arrival_that_a_producer_stamped_wins_over_the_readers_clock(
    stores: Stores,
) -> None:
    message = login()._replace(received_ms=NOW - 77)
    (event,) = (await admitted(stores, message)).events
    assert (event.time_ms, event.received_ms) == (NOW - 77, NOW - 77)


@pytest.mark.parametrize(
    ("ahead_ms", "placed"),
    [(FUTURE_MS, NOW + FUTURE_MS), (FUTURE_MS + 1, NOW)],
    ids=["5 minutes ahead", "more"],
)
async def test_an_event_from_the_future_is_placed_at_its_arrival(
    stores: Stores, ahead_ms: int, placed: int
) -> None:
    (event,) = (await admitted(stores, login(time=NOW + ahead_ms))).events
    assert event.time_ms == placed
    skewed = stores.registry.get_sample_value("eventsink_events_skewed_total", {"group": "rollups"})
    assert (skewed or 0) == (placed == NOW)


async def test_an_event_from_the_future_stays_where_it_was_placed_when_that_time_has_come(
    stores: Stores,
) -> None:
    message = login(time=NOW + 3_600_000)
    await admitted(stores, message)
    (replayed,) = (await admitted(stores, message, now_ms=NOW + 3_600_000)).events
    assert replayed.time_ms == NOW


async def test_what_cannot_be_read_becomes_a_dead_letter_and_the_rest_goes_on(
    stores: Stores,
) -> None:
    bodies = [
        b"\xff\xfe{",
        b"",
        b"[]",
        b'{"type":"nonsense"}',
        b'{"type":"storage.file_uploaded","bytes":-1}',
    ]
    messages = [Message(n, body) for n, body in enumerate(bodies)]
    batch = await admitted(stores, *messages, login(5, time=NOW))
    assert [event.position for event in batch.events] == [position(0, 5)]
    assert batch.dead == [position(0, n) for n in range(5)]
    letters = await stores.dead_letters.list(limit=10)
    assert [letter.body for letter in reversed(letters)] == bodies
    assert letters[0].pointer == "/bytes"
    assert all(letter.reason for letter in letters)


async def test_a_replay_keeps_one_dead_letter(stores: Stores) -> None:
    await admitted(stores, Message(0, b"?"))
    await admitted(stores, Message(0, b"?"), now_ms=NOW + 1)
    assert await stores.dead_letters.count() == 1


async def test_of_a_body_over_1_MiB_the_first_64_KiB_are_kept_with_length_and_hash(  # noqa: N802
    stores: Stores,
) -> None:
    body = b'{"type":"activity.logged_in","x":"' + b"y" * 5_000_000 + b'"}'
    batch = await admitted(stores, Message(0, body), login(1, time=NOW))
    assert len(batch.events) == 1
    (letter,) = await stores.dead_letters.list(limit=10)
    assert letter.reason.startswith("too_large")
    assert letter.body == body[: 64 << 10]
    assert letter.length == len(body)


async def test_a_line_of_ndjson_is_an_event_at_its_index(stores: Stores) -> None:
    lines = [login(time=NOW).body, b"rubbish", login(time=NOW + 1).body]
    batch = await admitted(stores, Message(7, b"\n".join(lines) + b"\n", NDJSON))
    assert [event.position for event in batch.events] == [position(0, 7, 0), position(0, 7, 2)]
    assert batch.dead == [position(0, 7, 1)]
    assert batch.received == 3


async def test_a_message_that_our_own_producer_sends_again_is_recognised(stores: Stores) -> None:
    lines = b"\n".join([login().body, login(time=NOW).body])
    stamped = Message(0, lines, NDJSON, "0190-id", NOW - 1)
    taking = intake(stores)
    first = await taking.admit([stamped], epoch=0, reading=1)
    again = await taking.admit([stamped._replace(offset=9)], epoch=0, reading=1)
    assert len(first.events) == 2
    assert again.events == []
    assert again.duplicates == [position(0, 9, 0), position(0, 9, 1)]


async def test_an_event_of_a_stamped_message_goes_by_its_own_id_where_it_brings_one(stores: Stores) -> None:
    own = login(id="own", time=NOW).body
    taking = intake(stores)
    await taking.admit([Message(0, own)], epoch=0, reading=1)
    for lines in ([own, login().body, login().body], [login().body, own, login().body]):
        stamped = Message(lines.index(own) + 5, b"\n".join(lines), NDJSON, f"id-{lines.index(own)}", NOW - 1)
        batch = await taking.admit([stamped], epoch=0, reading=1)
        assert batch.duplicates == [position(0, stamped.offset, lines.index(own))]
        assert len(batch.events) == 2


async def test_a_stamped_message_finds_itself_in_a_replay_and_another_one_is_no_repetition(
    stores: Stores,
) -> None:
    stamped = Message(3, b"\n".join([login().body] * 3), NDJSON, "one", NOW - 1)
    taking = intake(stores)
    for _ in range(2):
        assert len((await taking.admit([stamped], epoch=0, reading=1)).events) == 3
    for change in ({"event_id": "other"}, {"received_ms": NOW}, {"event_id": None}, {"received_ms": None}):
        other = stamped._replace(offset=20 + len(str(change)), **change)
        assert (await taking.admit([other], epoch=0, reading=1)).duplicates == []


async def test_source_id_and_time_together_tell_a_repetition(stores: Stores) -> None:
    same: dict[str, object] = {"source": "s", "id": "1", "time": NOW}
    others: list[dict[str, object]] = [{"source": "t"}, {"id": "2"}, {"time": NOW + 1}]
    messages = [login(n, **(same | change)) for n, change in enumerate([{}, *others, {}])]
    batch = await admitted(stores, *messages)
    assert batch.duplicates == [position(0, 4)]


async def test_events_without_id_are_never_merged_and_an_id_without_time_recognises_nothing(
    stores: Stores,
) -> None:
    messages = [login(0, time=NOW), login(1, time=NOW), login(2, id="1"), login(3, id="1")]
    batch = await admitted(stores, *messages)
    assert len(batch.events) == 4
