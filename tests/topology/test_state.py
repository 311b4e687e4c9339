"""What every store of rows does, whatever keeps it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
from pymongo import MongoClient

from tests.topology.keeping import Kept, until_answered
from topology.errors import Conflict, ForeignSchema, Superseded, Unavailable
from topology.mongo.connection import MARKER, META
from topology.position import MAX_EPOCH, MAX_INDEX, MAX_OFFSET, NOWHERE, Position, position
from topology.sqlite.file import APPLICATION_ID
from topology.state import GroupState, Request, RowKey, RowWrite, StateStore, StoredRow

TABLE = "space_storage/1m"
OTHER_TABLE = "user_activity/1h"
#: Its rows are of no window.
JOBS = "extractor_runtime/jobs"
UPTO = position(0, 1)
LAST_POSITION = position(MAX_EPOCH, MAX_OFFSET, MAX_INDEX)

#: More than any implementation handles at a time.
MANY = 2_500


def key(number: int, table: str = TABLE) -> RowKey:
    return RowKey(table, 60 * number, f"space {number}")


def row(
    at: RowKey,
    version: int,
    upto: Position = UPTO,
    *,
    owed: bool = True,
    data: bytes = b"",
    until: int | None = None,
) -> StoredRow:
    data = data or f"data of version {version}".encode()
    return StoredRow(at, version, upto, owed, data, at.at if until is None else until)


def job(number: int, until: int, upto: Position = UPTO, *, owed: bool = False) -> StoredRow:
    return row(RowKey(JOBS, 0, f"job {number}"), number, upto, owed=owed, until=until)


async def stored(store: StateStore, at: RowKey) -> StoredRow | None:
    return (await store.load_rows([at])).get(at)


async def save(store: StateStore, *writes: tuple[StoredRow, int]) -> None:
    await store.save_rows([RowWrite(row, over) for row, over in writes])


# -- who works --


async def test_a_group_that_never_ran_has_no_state(kept: Kept) -> None:
    store = await kept.state()
    assert await store.read_group("rollups") is None
    assert await store.generation("rollups") == 0
    assert await store.epoch() == 0


async def test_each_start_of_a_group_takes_its_next_generation(kept: Kept) -> None:
    store = await kept.state()
    assert [(await store.begin("rollups")).generation for _ in range(3)] == [1, 2, 3]
    assert await store.begin("archive") == GroupState(generation=1)
    assert await store.generation("rollups") == 3


async def test_no_generation_is_given_twice_by_two_connections_at_once(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    begun = await asyncio.gather(*(store.begin("rollups") for store in [one, other] * 5))
    assert sorted(state.generation for state in begun) == list(range(1, 11))


async def test_a_new_start_finds_the_saved_state_under_its_own_generation(kept: Kept) -> None:
    store = await kept.state()
    begun = await store.begin("rollups")
    state = GroupState(
        generation=begun.generation,
        positions={"storage": LAST_POSITION, "traffic": NOWHERE},
        read_up_to=LAST_POSITION,
        digest=b"\x00\xff digest",
        watermark=1_700_000_000_123,
        horizon=-5,
    )
    await store.save_group("rollups", state)
    assert await store.read_group("rollups") == state

    again = await (await kept.state()).begin("rollups")
    assert again.generation == 2
    assert again.positions == state.positions
    assert (again.read_up_to, again.digest) == (state.read_up_to, state.digest)
    assert (again.watermark, again.horizon) == (state.watermark, state.horizon)


async def test_a_worker_of_an_earlier_generation_saves_no_more(kept: Kept) -> None:
    older, newer = await kept.state(), await kept.state()
    before = await older.begin("rollups")
    after = await newer.begin("rollups")
    await newer.save_group("rollups", GroupState(generation=after.generation, watermark=7))
    with pytest.raises(Superseded):
        await older.save_group("rollups", GroupState(generation=before.generation, watermark=3))
    found = await older.read_group("rollups")
    assert found is not None
    assert found.watermark == 7


# -- which log --


async def test_the_epoch_rises_once_however_often_it_is_asked_to(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    raised = await asyncio.gather(*(store.raise_epoch(0) for store in [one, other] * 3))
    assert set(raised) == {1}
    assert await other.raise_epoch(1) == 2
    assert await one.raise_epoch(0) == 2, "it never falls"
    assert await one.epoch() == 2


# -- rows --


async def test_rows_come_back_as_they_were_saved(kept: Kept) -> None:
    store = await kept.state()
    rows = [
        row(key(1), 1 << 40 | 1, NOWHERE, owed=False, data=bytes(range(256))),
        row(key(2), (1 << 62) + 1, LAST_POSITION, data=b"\x00", until=1 << 40),
        row(RowKey(TABLE, -60, ""), 1),
    ]
    await save(store, *((each, 0) for each in rows))
    found = await (await kept.state()).load_rows([key(3), *(each.key for each in rows)])
    assert found == {each.key: each for each in rows}


NASTY = [
    RowKey("a", 1, "b:c"),
    RowKey("a:b", 1, "c"),
    RowKey("a", 1, "b\x1fc"),
    RowKey("a", 1, "b\x00c"),
    RowKey("a", 1, "b"),
    RowKey("a", 11, "b"),
    RowKey("a", 1, "B"),
    RowKey("a", 1, "b", partition=1),
    RowKey("a", 1, ""),
    RowKey("a", 1, "ü – 東京 🚒"),
    RowKey("a", 1, "$where"),
    RowKey("a", 1, "x" * 2000),
]


async def test_no_two_keys_are_the_same_row(kept: Kept) -> None:
    store = await kept.state()
    rows = [row(at, version) for version, at in enumerate(NASTY, 1)]
    await save(store, *((each, 0) for each in rows))
    assert await store.load_rows(NASTY) == {each.key: each for each in rows}


async def test_many_rows_are_saved_loaded_and_settled_in_one_call(kept: Kept) -> None:
    store = await kept.state()
    rows = [row(key(number), number + 1) for number in range(MANY)]
    await save(store, *((each, 0) for each in rows))
    assert await store.load_rows([each.key for each in rows]) == {each.key: each for each in rows}
    await store.settle_rows([(each.key, each.version) for each in rows])
    assert not await store.owed_rows([TABLE], MANY)


async def test_nothing_is_done_for_nothing(kept: Kept) -> None:
    store = await kept.state()
    await store.save_rows([])
    await store.settle_rows([])
    await store.owe_rows([])
    assert await store.load_rows([]) == {}
    assert list(await store.owed_rows([], 10)) == []
    assert await store.record_arrivals({}) == {}


async def test_a_row_is_written_only_over_the_version_it_was_read_at(kept: Kept) -> None:
    store = await kept.state()
    await save(store, (row(key(1), 10), 0), (row(key(2), 11), 0))
    await save(store, (row(key(1), 20), 10))
    with pytest.raises(Conflict) as conflict:
        await save(
            store,
            (row(key(1), 30), 10),  # is at 20
            (row(key(2), 31), 0),  # is there
            (row(key(3), 32), 0),
            (row(key(4), 33), 0),
        )
    assert set(conflict.value.keys) == {key(1), key(2)}
    found = await store.load_rows([key(number) for number in range(1, 5)])
    assert [found[key(number)].version for number in range(1, 5)] == [20, 11, 32, 33], "the rest was written"


async def test_a_write_whose_answer_was_lost_is_repeated_with_success(kept: Kept) -> None:
    store = await kept.state()
    first = [(row(key(number), 10 + number), 0) for number in range(4)]
    await save(store, *first)
    await save(store, *first)
    second = [(row(key(number), 20 + number), 10 + number) for number in range(4)]
    await save(store, *second[:2])
    await save(store, *second)
    found = await store.load_rows([key(number) for number in range(4)])
    assert [found[key(number)].version for number in range(4)] == [20, 21, 22, 23]


async def test_a_write_that_is_carried_out_late_changes_nothing(kept: Kept) -> None:
    # version    10 ──▶ 20 ──▶ 30
    # late        0 ─▶ 10, 10 ─▶ 20: sent, given up, repeated, and now carried out after all
    store, late = await kept.state(), await kept.state()
    steps = [(row(key(1), 10), 0), (row(key(1), 20), 10), (row(key(1), 30, owed=False), 20)]
    for step in steps:
        await save(store, step)
    for step in steps[:2]:
        with pytest.raises(Conflict):
            await save(late, step)
    assert await stored(store, key(1)) == steps[-1][0]


async def test_of_two_workers_on_one_row_one_learns_of_the_other(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    for number in range(10):
        ours, theirs = row(key(number), 1 << 40 | number), row(key(number), 2 << 40 | number)
        outcomes = await asyncio.gather(
            save(one, (ours, 0)), save(other, (theirs, 0)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes].count(Conflict) == 1
        winner = ours if outcomes[0] is None else theirs
        assert await stored(one, key(number)) == winner


async def test_a_row_that_was_purged_meanwhile_is_made_again(kept: Kept) -> None:
    store = await kept.state()
    await save(store, (row(key(1), 10, owed=False), 0))
    assert await store.purge_rows(TABLE, before=3600, upto=LAST_POSITION) == 1
    await save(store, (row(key(1), 20), 10))
    assert await stored(store, key(1)) == row(key(1), 20)


async def test_owed_rows_are_found_by_table_and_up_to_a_limit(kept: Kept) -> None:
    store = await kept.state()
    owing = [row(key(number), number + 1) for number in range(5)]
    foreign = row(key(1, OTHER_TABLE), 6)
    await save(store, *((each, 0) for each in [*owing, foreign, row(key(9), 7, owed=False)]))
    assert sorted(await store.owed_rows([TABLE], 10)) == owing
    assert sorted(await store.owed_rows([TABLE, OTHER_TABLE], 10)) == sorted([*owing, foreign])
    assert len(await store.owed_rows([TABLE], 3)) == 3


async def test_settling_an_old_version_makes_the_newer_one_owed_again(kept: Kept) -> None:
    # The value of version 1 was written after another worker had written and settled that of version 2.
    store = await kept.state()
    await save(store, (row(key(1), 1), 0), (row(key(2), 3), 0))
    await save(store, (row(key(1), 2), 1))
    await store.settle_rows([(key(1), 2), (key(2), 3)])
    assert list(await store.owed_rows([TABLE], 9)) == []
    await store.settle_rows([(key(1), 1), (key(2), 3)])
    assert list(await store.owed_rows([TABLE], 9)) == [row(key(1), 2)]


async def test_the_states_of_all_groups_are_there_to_be_compared(kept: Kept) -> None:
    store = await kept.state()
    assert await store.read_groups() == {}
    one = await store.begin("one")
    await store.begin("other")
    await store.save_group("one", GroupState(generation=one.generation, read_up_to=position(1, 2)))
    groups = await store.read_groups()
    assert set(groups) == {"one", "other"}
    assert groups["one"].read_up_to == position(1, 2)
    assert groups["other"] == GroupState(generation=1)


async def test_a_row_that_moved_on_still_owes(kept: Kept) -> None:
    store = await kept.state()
    await save(store, (row(key(1), 10), 0), (row(key(2), 11), 0))
    await save(store, (row(key(2), 20), 11))
    await store.settle_rows([(key(1), 10), (key(2), 11), (key(3), 12)])
    assert await store.owed_rows([TABLE], 10) == [row(key(2), 20)]
    assert await stored(store, key(1)) == row(key(1), 10, owed=False)
    assert await stored(store, key(3)) is None


async def test_only_old_rows_that_owe_nothing_and_are_below_the_position_are_purged(kept: Kept) -> None:
    store = await kept.state()
    below, above = position(0, 100), position(0, 101)
    kept_rows = [
        row(key(1), 1, below, owed=True),
        row(key(2), 2, above, owed=False),
        row(key(10), 3, below, owed=False),  # not before 600 s
        row(key(3, OTHER_TABLE), 4, below, owed=False),
    ]
    gone = [row(key(4), 5, below, owed=False), row(key(9), 6, NOWHERE, owed=False)]
    await save(store, *((each, 0) for each in [*kept_rows, *gone]))
    assert await store.purge_rows(TABLE, before=600, upto=below) == 2
    found = await store.load_rows([each.key for each in [*kept_rows, *gone]])
    assert found == {each.key: each for each in kept_rows}


async def test_rows_of_no_window_are_purged_by_the_latest_event_in_them(kept: Kept) -> None:
    store = await kept.state()
    below, above = position(0, 100), position(0, 101)
    kept_rows = [
        job(1, 600, below),
        job(2, 599, above),
        job(3, 599, below, owed=True),
        row(RowKey(OTHER_TABLE, 0, "job 4"), 4, below, owed=False, until=599),
    ]
    gone = [job(5, 599, below), job(6, 0, NOWHERE), job(7, -1, below)]
    await save(store, *((each, 0) for each in [*kept_rows, *gone]))
    assert await store.purge_rows(JOBS, before=600, upto=below) == 3
    assert await store.purge_rows(JOBS, before=600, upto=below) == 0, "the answer was lost"
    found = await store.load_rows([each.key for each in [*kept_rows, *gone]])
    assert found == {each.key: each for each in kept_rows}


async def test_a_window_in_which_something_matters_later_is_kept_until_then(kept: Kept) -> None:
    # -120     -60      0       60      120           600
    #   ├───────────────────────────────────────────────▶│
    #            │       │       ├───────────────────────▶│
    #                                    │
    store = await kept.state()
    rows = [
        row(RowKey(TABLE, at, "space"), 5 + at, owed=False, until=until)
        for at, until in [(-60, -60), (0, 0), (60, 600), (120, 120), (-120, 600)]
    ]
    await save(store, *((each, 0) for each in rows))
    for before, gone in [(-60, 0), (-59, 1), (0, 0), (1, 1), (120, 0), (121, 1), (600, 0), (601, 2)]:
        assert await store.purge_rows(TABLE, before=before, upto=UPTO) == gone, before


async def test_a_row_that_was_written_again_is_purged_by_its_newer_time(kept: Kept) -> None:
    store = await kept.state()
    first = job(1, 100)
    await save(store, (first, 0))
    again = first._replace(version=2, until=200)
    await save(store, (again, 1))
    assert await store.purge_rows(JOBS, before=200, upto=UPTO) == 0
    assert await store.load_rows([first.key]) == {first.key: again}
    assert await store.purge_rows(JOBS, before=201, upto=UPTO) == 1


async def test_rows_that_owe_are_purged_only_where_that_is_asked_for(kept: Kept) -> None:
    store = await kept.state()
    owing = [job(1, 100, owed=True), row(RowKey(JOBS, 60, "job 2"), 2)]
    newer = [job(3, 300, owed=True), job(4, 100, LAST_POSITION, owed=True)]
    await save(store, *((each, 0) for each in [*owing, job(5, 100), *newer]))
    assert await store.purge_rows(JOBS, before=200, upto=UPTO) == 1
    assert await store.purge_rows(JOBS, before=200, upto=UPTO, owed=True) == 2
    assert sorted(await store.owed_rows([JOBS], 9)) == sorted(newer)


async def test_what_owes_is_counted_by_table_and_time(kept: Kept) -> None:
    store = await kept.state()
    rows = [job(1, 100, owed=True), job(2, 199, owed=True), job(3, 200, owed=True), job(4, 100)]
    await save(store, *((each, 0) for each in [*rows, row(key(1, OTHER_TABLE), 5)]))
    assert await store.count_owed(JOBS, before=200) == 2
    assert await store.count_owed(JOBS, before=201) == 3
    assert await store.count_owed(TABLE, before=201) == 0
    await store.settle_rows([(rows[0].key, 1)])
    assert await (await kept.state()).count_owed(JOBS, before=200) == 1


async def test_the_keys_of_a_table_are_those_of_all_its_rows(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    assert list(await one.keys_of(TABLE)) == []
    rows = [row(RowKey(TABLE, at, name), 1) for at in (-60, 0, 60) for name in ("", "a:b", "ü")]
    await save(one, *((each, 0) for each in [*rows, row(key(1, OTHER_TABLE), 1)]))
    assert sorted(await other.keys_of(TABLE)) == sorted(each.key for each in rows)
    await one.purge_rows(TABLE, before=60, upto=UPTO, owed=True)
    assert sorted(await other.keys_of(TABLE)) == sorted(each.key for each in rows if each.key.at == 60)


async def test_the_keys_between_two_times_are_those_of_the_windows_that_start_there(kept: Kept) -> None:
    #      -60     0      60     120
    #       [------[======[======)        of the range [0, 120)
    one, other = await kept.state(), await kept.state()
    assert list(await one.keys_between(TABLE, 0, 120)) == []
    rows = [row(RowKey(TABLE, at, name), 1) for at in (-60, 0, 60, 120) for name in ("", "a:b", "ü")]
    settled = row(RowKey(TABLE, 60, "settled"), 1, LAST_POSITION, owed=False)
    others = [row(RowKey(OTHER_TABLE, 60, "a"), 1), row(RowKey(TABLE + "0", 60, "a"), 1)]
    await save(one, *((each, 0) for each in [*rows, settled, *others]))

    async def between(start: int, end: int) -> list[RowKey]:
        found = await other.keys_between(TABLE, start, end)
        assert len(set(found)) == len(found)
        return sorted(found)

    keys = [each.key for each in [*rows, settled]]
    assert await between(0, 120) == sorted(key for key in keys if key.at in (0, 60))
    assert await between(1, 61) == sorted(key for key in keys if key.at == 60)
    assert await between(-(2**40), 2**40) == sorted(keys)
    assert await between(60, 60) == []
    assert await between(120, 0) == []
    await save(one, (row(rows[3].key, 2), 1))
    assert await between(0, 1) == sorted(key for key in keys if key.at == 0), "whatever its version"
    await one.purge_rows(TABLE, before=60, upto=UPTO, owed=True)
    assert await between(-60, 60) == []


async def test_of_many_rows_all_keys_between_are_found(kept: Kept) -> None:
    store = await kept.state()
    rows = [row(key(number), 1) for number in range(MANY)]
    await until_answered(lambda: save(store, *((each, 0) for each in rows)))
    found = await store.keys_between(TABLE, 0, 60 * (MANY - 1))
    assert sorted(found) == sorted(each.key for each in rows[:-1])


async def test_rows_owe_again_whatever_their_version(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    rows = [row(key(number), number, owed=False) for number in range(1, 4)]
    await save(one, *((each, 0) for each in rows))
    for _ in range(2):  # the first answer was lost
        await other.owe_rows([key(1), key(2), key(9)])
    assert sorted(await one.owed_rows([TABLE], 9)) == [row(key(1), 1), row(key(2), 2)]
    assert await one.load_rows([key(3), key(9)]) == {key(3): rows[2]}, "what is not there is not made"
    await one.settle_rows([(key(1), 1)])
    assert await one.owed_rows([TABLE], 9) == [row(key(2), 2)]


async def test_many_rows_owe_again_in_one_call(kept: Kept) -> None:
    store = await kept.state()
    rows = [row(key(number), number + 1, owed=False) for number in range(MANY)]
    await save(store, *((each, 0) for each in rows))
    await store.owe_rows([each.key for each in rows])
    assert await store.count_owed(TABLE, before=1 << 40) == MANY


# -- requests --


def request(
    id: str = "01",
    group: str = "rollups",
    *,
    what: bytes = b'{"rebuild": "\xff\x00"}',
    state: bytes = b"",
    version: int = 1,
) -> Request:
    return Request(id=id, group=group, what=what, state=state, version=version)


async def test_requests_come_back_as_they_were_put_in_the_order_of_their_ids(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    assert list(await one.requests("rollups")) == []
    assert await one.request("01") is None
    put = [request("10"), request("02", state=b"begun", version=7), request("ü"), request("9"), request("A")]
    for each in [*put, request("03", "archive")]:
        await one.put_request(each)
    assert list(await other.requests("rollups")) == [put[1], put[0], put[3], put[4], put[2]]
    assert list(await other.requests("archive")) == [request("03", "archive")]
    assert await other.request("02") == put[1]


async def test_a_request_that_is_there_already_is_left_as_it_is(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    await one.put_request(request())
    await one.put_request(request())
    begun = request(state=b"begun", version=2)
    assert await one.save_request(begun, expected=1)
    await one.put_request(request())  # sent, given up, and carried out after all
    await other.put_request(request(group="archive", what=b"another", version=9))
    assert await one.request("01") == begun
    assert list(await one.requests("archive")) == []


async def test_a_request_is_saved_over_the_version_it_was_read_at(kept: Kept) -> None:
    store = await kept.state()
    await store.put_request(request())
    await store.put_request(request("02"))
    begun, done = request(state=b"begun", version=2), request(state=b"done", version=3)
    for _ in range(2):  # the first answer was lost
        assert await store.save_request(begun, expected=1)
        assert await store.request("01") == begun
    assert await store.save_request(done, expected=2)
    assert not await store.save_request(begun, expected=1), "carried out late"
    assert await store.request("01") == done
    assert await store.request("02") == request("02")


async def test_of_two_owners_of_a_request_one_learns_of_the_other(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    for number in range(10):
        await one.put_request(request(f"{number}"))
        ours = request(f"{number}", state=b"by generation 1", version=2)
        theirs = request(f"{number}", state=b"by generation 2", version=2)
        outcomes = await asyncio.gather(
            one.save_request(ours, expected=1), other.save_request(theirs, expected=1)
        )
        assert sorted(outcomes) == [False, True]
        assert await one.request(f"{number}") == (ours if outcomes[0] else theirs)


async def test_a_request_that_was_deleted_stays_so(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    await one.put_request(request())
    await one.put_request(request("02"))
    for _ in range(2):
        await other.delete_request("01")
    assert not await one.save_request(request(version=2), expected=1)
    assert await one.request("01") is None
    assert list(await one.requests("rollups")) == [request("02")]


# -- facts --


async def test_the_first_arrival_of_a_position_holds(kept: Kept) -> None:
    one, other = await kept.state(), await kept.state()
    first = {position(0, 5, 1): 1_700_000_000_000, position(0, 5, 2): 1_700_000_000_001}
    assert await one.record_arrivals(first) == first
    later = {position(0, 5, 2): 1_800_000_000_000, LAST_POSITION: 1_800_000_000_001}
    holding = {position(0, 5, 2): 1_700_000_000_001, LAST_POSITION: 1_800_000_000_001}
    assert await other.record_arrivals(later) == holding
    assert await other.record_arrivals(later) == holding
    assert await one.arrivals(position(0, 0), LAST_POSITION) == first | holding


async def test_arrivals_are_found_between_two_positions_both_included(kept: Kept) -> None:
    store = await kept.state()
    recorded = {position(epoch, offset): 1000 * epoch + offset for epoch in (0, 1) for offset in range(5)}
    await store.record_arrivals(recorded)
    found = await store.arrivals(position(0, 3), position(1, 1))
    assert found == {position(0, 3): 3, position(0, 4): 4, position(1, 0): 1000, position(1, 1): 1001}


async def test_arrivals_that_are_old_and_read_are_forgotten(kept: Kept) -> None:
    store = await kept.state()
    await store.record_arrivals({position(0, 1): 10, position(0, 2): 20, position(0, 3): 5})
    await store.purge_arrivals(position(0, 2), before_ms=20)
    assert await store.arrivals(position(0, 0), LAST_POSITION) == {position(0, 2): 20, position(0, 3): 5}


# -- what can happen --


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
