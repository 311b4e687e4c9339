"""Who waits for how long, by a clock that only moves when somebody sleeps."""

from __future__ import annotations

import asyncio

import pytest

from schemas.events import LoggedIn
from topology.batch import LogEvent
from topology.forwarding.batching import Holding
from topology.forwarding.breaker import Breaker, Pace
from topology.forwarding.consignments import Consignment, Item
from topology.forwarding.vendor import Parcel
from topology.position import Position


class Clock:
    """Jumps to the end of each sleep."""

    def __init__(self) -> None:
        self.now = 1000.0

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)

    @property
    def pace(self) -> Pace:
        return Pace(lambda: self.now, self.sleep)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def item(number: int, *ids: str) -> Item:
    event = LogEvent(Position(number), 0, 0, LoggedIn(), b"")
    return Item(event, Parcel(b"{}", ids), Consignment(0))


async def test_a_wish_of_the_vendor_holds_although_another_request_succeeds(clock: Clock) -> None:
    # two requests under way: 503, Retry-After: 40 --- 200
    breaker = Breaker(clock.pace)
    breaker.failed(retry_after_s=40)
    breaker.succeeded()
    await breaker.admitted()
    assert clock.now == 1040


async def test_a_backoff_is_over_when_the_vendor_answers(clock: Clock) -> None:
    breaker = Breaker(clock.pace)
    breaker.failed()
    breaker.succeeded()
    await breaker.admitted()
    assert clock.now == 1000


async def test_pauses_double_and_are_bounded(clock: Clock) -> None:
    breaker = Breaker(clock.pace)
    pauses = []
    for _ in range(12):
        breaker.failed()
        before = clock.now
        await breaker.admitted()
        pauses.append(clock.now - before)
    for number, pause in enumerate(pauses):
        longest = min(0.25 * 2**number, 30.0)
        assert longest / 2 <= pause <= longest
    assert breaker.is_open


async def test_half_open_one_request_goes_and_its_answer_decides(clock: Clock) -> None:
    breaker = Breaker(clock.pace)
    breaker.failed()
    await breaker.admitted()
    second = asyncio.ensure_future(breaker.admitted())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not second.done()
    breaker.succeeded()
    await second


async def test_whoever_rests_for_less_is_due_first(clock: Clock) -> None:
    # a rests for 300 s because the vendor asked for it, b, which comes later, for 30
    holding = Holding(Pace(lambda: clock.now, asyncio.sleep))
    a, b = item(1, "a"), item(2, "b")
    holding.hold([a], ["a"], 300.0)
    rested = asyncio.ensure_future(holding.rested())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    holding.hold([b], ["b"], -1.0)
    async with asyncio.timeout(5):
        assert await rested == [b]


async def test_new_events_of_an_id_that_rests_rest_too(clock: Clock) -> None:
    holding = Holding(clock.pace)
    holding.hold([], ["a"], 30.0)
    of_a, of_b = item(1, "a", "device"), item(2, "b")
    assert holding.kept([of_a, of_b]) == [of_b]
    assert await holding.rested() == [of_a]
    assert clock.now == 1030
    assert holding.kept([of_a]) == [of_a]
