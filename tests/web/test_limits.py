"""Token buckets: what they let through, and what they cost."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.limits import KEY_RATE, Rate, TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_is_let_through_and_then_the_rate(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(per_s=4, burst=8), monotonic=clock)
    assert [buckets.take("a") for _ in range(8)] == [0.0] * 8
    assert buckets.take("a") == pytest.approx(0.25)
    clock.now += 0.25
    assert [buckets.take("a"), buckets.take("a")] == [0.0, pytest.approx(0.25)]
    clock.now += 3600
    assert [buckets.take("a") for _ in range(9)] == [*[0.0] * 8, pytest.approx(0.25)]


def test_the_wait_that_is_told_is_enough(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(per_s=3, burst=1), monotonic=clock)
    buckets.take("a")
    wait = buckets.take("a")
    clock.now += wait * 0.99
    assert buckets.take("a") > 0
    clock.now += wait * 0.011
    assert buckets.take("a") == 0


def test_a_refused_request_takes_nothing(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(per_s=1, burst=1), monotonic=clock)
    buckets.take("a")
    for _ in range(1000):
        assert buckets.take("a") == pytest.approx(1.0)
    clock.now += 1
    assert buckets.take("a") == 0


def test_each_has_a_bucket_of_its_own(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(per_s=1, burst=1), monotonic=clock)
    assert [buckets.take(who) for who in "abab"] == [0, 0, 1, 1]


def test_memory_is_bounded_and_the_least_recently_used_is_forgotten(clock: Clock) -> None:
    buckets = TokenBuckets(Rate(per_s=1, burst=1), monotonic=clock, at_most=3)
    for who in ("a", "b", "c", "a", "d"):
        buckets.take(who)
    assert len(buckets) == 3
    assert [buckets.take(who) > 0 for who in ("a", "c", "d")] == [True, True, True]
    assert buckets.take("b") == 0
    for number in range(10_000):
        buckets.take(str(number))
    assert len(buckets) == 3


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 20),
    steps=st.lists(st.floats(0, 2), max_size=60),
)
def test_no_span_lets_more_through_than_its_rate_and_a_burst(
    rate: float, burst: int, steps: list[float]
) -> None:
    clock = Clock()
    buckets = TokenBuckets(Rate(per_s=rate, burst=burst), monotonic=clock)
    let_through = []
    for step in steps:
        clock.now += step
        if buckets.take("a") == 0:
            let_through.append(clock.now)
    for first, since in enumerate(let_through):
        for last in range(first, len(let_through)):
            assert last - first + 1 <= burst + rate * (let_through[last] - since) + 1e-6


@pytest.mark.parametrize(("per_s", "burst"), [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 0)])
def test_a_rate_that_cannot_be_is_refused(per_s: float, burst: int) -> None:
    with pytest.raises(ValueError):
        Rate(per_s=per_s, burst=burst)


def test_a_look_costs_less_than_5_microseconds() -> None:
    """With as many buckets as are kept, each in turn; the fastest of five rounds, as others share the machine."""
    buckets = TokenBuckets(KEY_RATE)
    names = [f"10.0.{number // 250}.{number % 250}" for number in range(10_000)]

    def round_us() -> float:
        began = time.perf_counter()
        for name in names:
            buckets.take(name)
        return (time.perf_counter() - began) / len(names) * 1e6

    assert min(round_us() for _ in range(5)) < 5
