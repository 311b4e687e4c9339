"""What every store of rows does beside rows, whatever keeps it: generations, the epoch, requests, facts."""

from __future__ import annotations

import asyncio

import pytest

from tests.topology.keeping import Kept
from tests.topology.rows import LAST_POSITION, request
from topology.errors import Superseded
from topology.position import NOWHERE, position
from topology.state import GroupState

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


# -- requests --


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
