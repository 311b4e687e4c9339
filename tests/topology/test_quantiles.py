"""Quantiles: near the value at their rank, whatever the order, the grouping and the size of the values."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.rollups.quantiles import EMPTY, RELATIVE_ACCURACY, merged, quantile, sketch

#: From a tenth of a microsecond to the largest count, as milliseconds or seconds.
VALUES = st.lists(
    st.one_of(
        st.just(0.0),
        st.integers(0, 5),
        st.floats(1e-7, 1e4),
        st.integers(0, 2**53 - 1),
    ),
    max_size=60,
)
PER_CENTS = [50, 95, 99]


@given(VALUES.filter(bool), st.sampled_from([0, *PER_CENTS, 100]))
def test_a_quantile_is_within_1_per_cent_of_the_value_at_its_rank(values: list[float], per_cent: int) -> None:
    exact = sorted(values)[per_cent * (len(values) - 1) // 100]
    # The bounds of a bucket are floats too: a value on one may be told as of its neighbour.
    assert quantile(sketch(values), per_cent) == pytest.approx(exact, rel=RELATIVE_ACCURACY * 1.0001, abs=0)


def test_the_rank_is_that_of_the_contract() -> None:
    # n = 4, q = 0.5: index ⌊0.5 · 3⌋ = 1         n = 21, q = 0.95: index ⌊0.95 · 20⌋ = 19
    #   10  20  30  40                                1 … 20  21
    #       ^^                                            ^^
    assert quantile(sketch([10, 20, 30, 40]), 50) == pytest.approx(20, rel=0.01)
    assert quantile(sketch(range(1, 22)), 95) == pytest.approx(20, rel=0.01)
    # n = 101, q = 0.99: index 99, by integers: 0.99 · 100 as floats is 99 only with luck
    assert quantile(sketch([*[1] * 99, 1000, 2000]), 99) == pytest.approx(1000, rel=0.01)


@given(VALUES, st.integers(1, 7), st.randoms(use_true_random=False))
def test_merging_parts_in_any_order_gives_the_sketch_of_the_whole(
    values: list[float], size: int, shuffle: random.Random
) -> None:
    whole = sketch(values)
    shuffled = list(values)
    shuffle.shuffle(shuffled)
    parts = [sketch(shuffled[at : at + size]) for at in range(0, len(shuffled), size)]
    assert merged(parts) == whole
    assert merged([merged(parts[:2]), EMPTY, *parts[2:]]) == whole


def test_merging_edits_no_part() -> None:
    one, other = sketch([1, 2]), sketch([2, 3])
    before = dict(one), dict(other)
    merged([one, other])
    assert (one, other) == before


def test_zero_is_a_value_and_nothing_is_none() -> None:
    assert quantile(sketch([0, 0, 5]), 50) == 0.0
    assert quantile(sketch([0, 5, 5]), 50) == pytest.approx(5, rel=0.01)
    assert quantile(sketch([1e-320, 1e-320]), 95) == 0.0  # has no logarithm
    assert quantile(EMPTY, 95) is None
    assert merged([]) == merged([EMPTY, EMPTY]) == EMPTY
