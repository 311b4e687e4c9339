"""Time in state, in pictures: one character is five seconds, the ruler is at the minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.services.time_in_state import (
    ALL,
    FOR_EVER_MS,
    MINUTE_MS,
    Result,
    UpDown,
    in_state,
    intervals,
    overlap,
    turns_since,
    within,
)

S = 1000


def result(
    seconds: float, up: bool, *, valid: float = 120, region: str = "eu", kind: str = "ping "
) -> Result:
    return Result(round(seconds * S), region, kind, up, round(valid * S), -1, -1.0)


def spent(
    results: Sequence[Result],
    maintenance: Sequence[tuple[int, int]] = (),
    *,
    region: str = "eu",
    since: int = 0,
    until: int = 60,
) -> list[tuple[float, float]]:
    """Seconds (up, down) of each minute of [since, until)."""
    found = in_state(results, [(a * S, b * S) for a, b in maintenance], since * S, until * S)
    nothing = UpDown(0, 0)
    minutes = [found.get(at * S, {}).get(region, nothing) for at in range(since, until, 60)]
    return [(up / S, down / S) for up, down in minutes]


# -- how long a result holds --


def test_a_result_holds_until_the_next_one_of_its_kind() -> None:
    # 0 s       30          60
    # |--up-----|--down-----|
    assert spent([result(0, True), result(30, False)]) == [(30, 30)]


def test_a_result_holds_at_most_as_long_as_it_says() -> None:
    # 0    10        30     40    60
    # |    |--up-----|......|.....|       valid for 20 s, then nothing is known
    assert spent([result(10, True, valid=20)]) == [(20, 0)]


def test_a_result_that_is_replaced_does_not_come_back() -> None:
    # 0         20   25           60
    # |--up-----|down|............|       the first one would have held until 120
    assert spent([result(0, True), result(20, False, valid=5)]) == [(20, 5)]


def test_a_result_goes_on_into_the_next_minutes() -> None:
    # 0    50   60          120    170 180
    # |....|-up-|-----------|------|...|
    assert spent([result(50, True)], until=180) == [(10, 0), (60, 0), (50, 0)]


def test_what_happened_before_and_after_does_not_count() -> None:
    # 0    50   60          120    150       180
    # |....|-up-|===========|------|down-----|      only the second minute is asked for
    results = [result(50, True), result(150, False)]
    assert spent(results, since=60, until=120) == [(60, 0)]


# -- results of several kinds --


def test_down_is_whatever_any_kind_calls_down() -> None:
    #            0       20       35      60
    # ping       |--up-------------------|
    # port       |       |--down--|--up--|
    # together   |  up   |  down  |  up  |
    results = [result(0, True), result(20, False, kind="page"), result(35, True, kind="page")]
    assert spent(results) == [(20 + 25, 15)]


def test_a_kind_replaces_only_itself() -> None:
    #            0    10        30       60
    # ping       |--down--------|........|    until its 30 s are over
    # page       |    |--up--------------|
    results = [result(0, False, valid=30), result(10, True, kind="page")]
    assert spent(results) == [(30, 30)]


@pytest.mark.parametrize("backwards", [False, True])
def test_of_equal_times_up_wins_and_then_what_holds_longer(backwards: bool) -> None:
    # 0          40         60
    # |--down----|..........|   gives way
    # |--up--|   :              gives way
    # |--up------|..........|
    results = [result(0, False, valid=40), result(0, True, valid=9), result(0, True, valid=40)]
    assert spent(results[::-1] if backwards else results) == [(40, 0)]


def test_kinds_and_regions_do_not_share_times() -> None:
    # eu   |--up-------------------|
    # us   |--down-----|...........|
    results = [result(0, True), result(0, False, valid=30, region="us")]
    assert [spent(results, region=region) for region in ("eu", "us")] == [[(60, 0)], [(0, 30)]]


# -- maintenance --


def test_maintenance_is_neither_up_nor_down() -> None:
    #               0    10    20    30       60
    # result        |--up------|--down--------|
    # maintenance   |    [===========)        |
    assert spent([result(0, True), result(20, False)], [(10, 30)]) == [(10, 30)]


def test_maintenance_that_no_result_meets_costs_nothing() -> None:
    #               0     20      40    60
    # result        |--up-|       |     |
    # maintenance   |     [=======)     |
    assert spent([result(0, True, valid=20)], [(20, 40)]) == [(20, 0)]
    assert spent([], [(20, 40)]) == [(0, 0)]


TURNS = [
    # a start, its end
    ([(10, False), (30, True)], [(10, 30)]),
    # a start within it begins nothing:    [   [   )
    ([(10, False), (20, False), (30, True)], [(10, 30)]),
    # an end without a start ends nothing:    )   [   )
    ([(5, True), (10, False), (30, True)], [(10, 30)]),
    # the first end counts:    [   )   )
    ([(10, False), (30, True), (40, True)], [(10, 30)]),
    # one that nobody ends lasts
    ([(10, False), (30, True), (50, False)], [(10, 30), (50, FOR_EVER_MS)]),
    # one starts and ends at the same time: there was none
    ([(10, True), (10, False)], []),
    # one follows directly on another:    [   )[   )
    ([(10, False), (20, True), (20, False), (30, True)], [(10, 30)]),
    ([], []),
]


@pytest.mark.parametrize(("turns", "expected"), TURNS)
def test_intervals_of_maintenance(turns: list[tuple[int, bool]], expected: list[tuple[int, int]]) -> None:
    assert intervals(tuple(turns)) == intervals(tuple(turns[::-1])) == tuple(expected)


def test_an_interval_holds_its_start_and_not_its_end() -> None:
    # 0      10        20      40        50
    # |      [=========)       [=========)
    spans = [(10, 20), (40, 50)]
    inside = [at for at in (9, 10, 19, 20, 39, 40, 49, 50) if within(at, spans)]
    assert inside == [10, 19, 40, 49]
    assert overlap(spans, 15, 45) == 5 + 5
    assert overlap(spans, 20, 40) == 0


# -- all regions --


def test_of_all_regions_more_than_half_of_the_known_must_be_up() -> None:
    #       0         20         40        60
    # eu    |--up--------------------------|
    # us    |         |--down--------------|
    # ap    |                    |--up-----|
    # all   |   up    |   down   |   up    |     1 of 1, 1 of 2: a tie is down, 2 of 3
    results = [result(0, True), result(20, False, region="us"), result(40, True, region="ap")]
    assert spent(results, region=ALL) == [(20 + 20, 20)]


def test_a_region_of_which_nothing_is_known_has_no_vote() -> None:
    #       0       15            45        60
    # eu    |--up---------------------------|
    # us    |--down-|.......................|
    # all   | down  |    up                 |
    results = [result(0, True), result(0, False, region="us", valid=15)]
    assert spent(results, region=ALL) == [(45, 15)]
    # Of nobody nothing is known.
    assert spent([result(0, True, valid=1)], region=ALL) == [(1, 0)]


def test_minutes_in_which_nothing_is_known_are_left_out() -> None:
    found = in_state([result(61, True, valid=2)], [], 0, 10 * MINUTE_MS)
    assert found == {MINUTE_MS: {"eu": UpDown(2 * S, 0), ALL: UpDown(2 * S, 0)}}


# -- whatever the question --

RESULTS = st.lists(
    st.builds(
        result,
        st.integers(0, 400),
        st.booleans(),
        valid=st.sampled_from([1, 2.5, 60, 120, 300]),
        region=st.sampled_from(["eu", "us"]),
        kind=st.sampled_from(["ping ", "page"]),
    ),
    max_size=12,
)
MAINTENANCE = st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=6).map(
    lambda turns: intervals(tuple((at * S, ended) for at, ended in turns))
)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=12), st.integers(0, 20))
def test_from_a_cut_on_fewer_turns_say_the_same(turns: list[tuple[int, bool]], cut: int) -> None:
    whole = tuple(sorted(set(turns)))
    fewer = turns_since(whole, cut)
    assert sum(at < cut for at, _ in fewer) <= 1
    for at in range(cut, 25):
        assert within(at, intervals(fewer)) == within(at, intervals(whole))


def flat(found: Mapping[int, Mapping[str, UpDown]]) -> dict[tuple[int, str], UpDown]:
    return {(at, region): each for at, minute in found.items() for region, each in minute.items()}


@given(RESULTS, MAINTENANCE, st.integers(0, 12))
def test_minutes_do_not_depend_on_what_is_asked_with_them_nor_on_order(
    results: list[Result], maintenance: list[tuple[int, int]], cut: int
) -> None:
    end, middle = 12 * MINUTE_MS, cut * MINUTE_MS
    whole = flat(in_state(results, maintenance, 0, end))
    parts = flat(in_state(results[::-1], maintenance, 0, middle)) | flat(
        in_state(sorted(results), maintenance, middle, end)
    )
    assert parts == whole
    for up_ms, down_ms in whole.values():
        assert 0 < up_ms + down_ms <= MINUTE_MS
