"""What every store of rows does with rows, whatever keeps it."""

from __future__ import annotations

import asyncio

import pytest

from tests.topology.keeping import Kept, until_answered
from tests.topology.rows import (
    JOBS,
    LAST_POSITION,
    MANY,
    OTHER_TABLE,
    TABLE,
    UPTO,
    job,
    key,
    row,
    save,
    stored,
)
from topology.errors import Conflict
from topology.position import NOWHERE, position
from topology.state import GroupState, RowKey


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
