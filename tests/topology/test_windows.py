"""Tumbling windows."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.windows import DAY, HOUR, MINUTE, WINDOWS, Tumbling


def test_an_event_on_the_boundary_opens_the_next_window() -> None:
    # 0         60        120 s
    # [a--------)
    #           [b--------)
    #           ^ event
    assert MINUTE.start(60) == 60
    assert MINUTE.start(59) == 0
    assert MINUTE.end(60) == 120


@given(st.integers(0, 253402300799), st.sampled_from(WINDOWS))
def test_an_instant_is_in_exactly_one_window(at_s: int, window: Tumbling) -> None:
    start = window.start(at_s)
    assert start <= at_s < window.end(start)
    assert start % window.seconds == 0


@given(st.integers(0, 253402300799))
def test_a_minute_lies_in_one_hour_and_an_hour_in_one_day(at_s: int) -> None:
    assert HOUR.start(MINUTE.start(at_s)) == HOUR.start(at_s)
    assert DAY.start(HOUR.start(at_s)) == DAY.start(at_s)


def test_days_begin_at_midnight_utc() -> None:
    at = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # a night with a DST change in Europe
    assert datetime.fromtimestamp(DAY.start(int(at.timestamp())), UTC) == datetime(2026, 3, 29, tzinfo=UTC)


def test_a_window_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Tumbling("none", 0)
