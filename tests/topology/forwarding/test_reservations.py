"""What may have been sent to a vendor that cannot tell repeats, through crashes and restarts."""

from __future__ import annotations

import pytest

from tests.topology.stores import Stores
from topology.errors import Conflict
from topology.forwarding.reservations import Reservations
from topology.position import Position


def positions(*numbers: int) -> list[Position]:
    return [Position(number) for number in numbers]


async def begun(stores: Stores, generation: int) -> Reservations:
    made = Reservations("google", "google", generation, stores.state, stores.outages)
    await made.load()
    return made


async def test_after_a_crash_only_what_was_not_answered_is_in_doubt(stores: Stores) -> None:
    first = await begun(stores, 1)
    await first.reserve(positions(1, 2))
    first.sent(positions(1, 2))
    first.answered(positions(1))
    await first.reserve(positions(3))
    first.sent(positions(3))
    # it is killed
    second = await begun(stores, 2)
    assert second.before == set(positions(1, 2, 3))
    assert [second.doubtful(at) for at in positions(1, 2, 3)] == [False, True, True]


async def test_doubt_is_told_once(stores: Stores) -> None:
    first = await begun(stores, 1)
    await first.reserve(positions(1))
    second = await begun(stores, 2)
    assert second.doubtful(Position(1))
    assert not second.doubtful(Position(1))
    await second.end()
    third = await begun(stores, 3)
    assert not third.doubtful(Position(1))


async def test_an_end_in_good_order_leaves_what_no_answer_came_for_in_doubt_and_frees_the_rest(
    stores: Stores,
) -> None:
    first = await begun(stores, 1)
    await first.reserve(positions(1, 2, 3, 4))
    first.sent(positions(1, 2, 3))
    first.answered(positions(1))
    first.not_sent(positions(3))  # refused, "nothing was taken"
    await first.end()  # 2 was cut off
    second = await begun(stores, 2)
    assert second.before == set(positions(1, 2))
    assert [second.doubtful(at) for at in positions(1, 2)] == [False, True]


async def test_what_an_ending_worker_reserves_meanwhile_is_not_sent_by_the_next_one(stores: Stores) -> None:
    old = await begun(stores, 1)
    await old.reserve(positions(1))
    new = await begun(stores, 2)
    await old.reserve(positions(1, 2))
    await new.reserve(positions(1, 2, 3))
    assert new.before == set(positions(1, 2))
    # From now on the old one gets nothing through.
    with pytest.raises(Conflict):
        await old.reserve(positions(4))
    await new.reserve(positions(4))
    third = await begun(stores, 3)
    assert third.before == set(positions(1, 2, 3, 4))
