"""Measures: what each number is, and that order and grouping never matter."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.rollups.measures import (
    MAX_SUM,
    Count,
    Distinct,
    Failures,
    Max,
    Mean,
    Measure,
    Min,
    Quantile,
    Sum,
)


@dataclass(frozen=True)
class Read:
    size: int | None = None
    user: str | None = None
    ms: float | None = None
    up: bool = True


@dataclass(frozen=True)
class Other:
    size: int | None = None
    user: str | None = None


EVENTS = st.lists(
    st.one_of(
        st.builds(
            Read,
            st.none() | st.integers(0, 2**63 - 1) | st.integers(0, 9),
            st.none() | st.sampled_from("abc"),
            st.none() | st.integers(0, 5_000_000).map(lambda us: us / 1000),
            st.booleans(),
        ),
        st.builds(Other, st.integers(0, 9), st.sampled_from("xyz")),
    )
)
MEASURES: list[Measure] = [
    Count(Read),
    Sum(Read, "size"),
    Min(Read, "size"),
    Max(Read, "size"),
    Distinct([Read], "user"),
    Failures(Read),
    Mean(Read, "ms", parts=1000),
    Quantile(Read, "ms", 95),
]


def reads(events: Sequence[object]) -> list[Read]:
    return [event for event in events if isinstance(event, Read)]


def oracle(events: Sequence[object]) -> list[Any]:
    times_ms = sorted(event.ms for event in reads(events) if event.ms is not None)
    mean = quantile = None
    if times_ms:
        mean = pytest.approx(float(sum(map(Fraction, times_ms)) / len(times_ms)))
        quantile = pytest.approx(times_ms[95 * (len(times_ms) - 1) // 100], rel=0.02)
    sizes = [event.size for event in reads(events) if event.size is not None]
    return [
        len(reads(events)),
        min(sum(sizes), MAX_SUM),
        min(sizes, default=None),
        max(sizes, default=None),
        len({event.user for event in reads(events)} - {None}),
        sum(not event.up for event in reads(events)),
        mean,
        quantile,
    ]


@pytest.mark.filterwarnings("ignore")
@given(EVENTS)
def test_every_measure_gives_what_a_naive_recomputation_gives(events: list[object]) -> None:
    assert [m.value(m.of(events)) for m in MEASURES] == oracle(events)


@given(EVENTS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_order_and_grouping_gives_the_same(
    events: list[object], shuffle: random.Random, size: int
) -> None:
    shuffled = list(events)
    shuffle.shuffle(shuffled)
    for measure in MEASURES:
        cell = measure.empty()
        for at in range(0, len(shuffled), size):
            part = measure.unpack(measure.pack(measure.of(shuffled[at : at + size])))
            cell = measure.merge(part, cell)
        assert measure.value(cell) == measure.value(measure.of(events))


def test_zero_bytes_is_a_number() -> None:
    assert Sum(Read, "size").of([Read(size=0)]) == 0
    assert Min(Read, "size").of([Read(size=0), Read(size=5)]) == 0


def test_a_sum_stops_at_the_largest_storable_integer_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    total = Sum(Read, "size")
    assert total.merge(MAX_SUM - 1, 5) == MAX_SUM  # 2^63 - 2 + 5 > 2^63 - 1
    assert total.merge(MAX_SUM, 5) == MAX_SUM
    assert caplog.text.count("2^63 - 1") == 1  # not once for every event that follows


def test_of_nothing_there_is_no_mean_and_no_quantile_and_no_failure() -> None:
    for events in ([], [Read()], [Other(size=1)]):
        assert Mean(Read, "ms").value(Mean(Read, "ms").of(events)) is None
        assert Quantile(Read, "ms", 95).value(Quantile(Read, "ms", 95).of(events)) is None
        assert Failures(Read).of(events) == 0


def test_a_mean_of_integers_is_exact_and_one_of_milliseconds_to_the_microsecond() -> None:
    sizes = Mean(Read, "size")
    # 2^53 - 1 cannot be added to itself as a float
    assert sizes.of([Read(size=2**53 - 1), Read(size=2**53 - 1), Read(size=2)]) == (3, 2**54)
    assert sizes.value((3, 2**54)) == 2**54 / 3
    times = Mean(Read, "ms", parts=1000)
    assert times.of([Read(ms=0.1), Read(ms=0.2), Read(ms=0.0)]) == (3, 300)
    assert times.value((3, 300)) == 0.1


@pytest.mark.parametrize("users", [999, 1000])
def test_distinct_is_exact_to_1000(users: int) -> None:
    measure = Distinct([Read], "user")
    assert measure.value(measure.of([Read(user=str(n)) for n in range(users)] * 2)) == users


@pytest.mark.parametrize("users", [1001, 20_000, 300_000])
def test_beyond_1000_distinct_is_within_3_percent_and_the_same_in_any_order(users: int) -> None:
    measure = Distinct([Read], "user")
    events = [Read(user=str(n)) for n in range(users)]
    estimate = measure.value(measure.of(events))
    assert abs(estimate - users) <= 0.03 * users
    random.Random(1).shuffle(events)
    cell: frozenset[int] | bytes = measure.empty()
    for at in range(0, users, 700):
        cell = measure.merge(cell, measure.of(events[at : at + 700]))
    assert measure.value(measure.unpack(measure.pack(cell))) == estimate


def test_merging_edits_neither_cell() -> None:
    measure = Distinct([Read], "user")
    one: frozenset[int] | bytes = measure.of([Read(user="a")])
    other = measure.of([Read(user=str(n)) for n in range(1001)])
    before = (frozenset(one), bytes(other))
    measure.merge(one, other)
    measure.merge(other, other)
    assert (one, other) == before


def test_what_sketches_need_is_loaded_for_the_first_of_them() -> None:
    program = (
        "import sys, cli.running, cli.rollups\n"
        "from schemas.events import LoggedIn\n"
        "from topology.rollups.measures import Distinct\n"
        "users = Distinct([LoggedIn], 'user_id')\n"
        "cell = users.of([LoggedIn(user_id=str(n)) for n in range(1000)])\n"
        "print(users.value(cell), 'numpy' in sys.modules)\n"
        "cell = users.merge(cell, users.of([LoggedIn(user_id=str(n)) for n in range(3000)]))\n"
        "print(abs(users.value(cell) - 3000) < 90, 'numpy' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["1000 False", "True True"]
