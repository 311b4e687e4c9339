"""Positions: one ordered 64-bit integer for epoch, offset and index."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.position import (
    MAX_EPOCH,
    MAX_INDEX,
    MAX_OFFSET,
    NOWHERE,
    Place,
    Position,
    end_of_message,
    place,
    position,
    written,
)

places = st.builds(
    Place,
    st.integers(0, MAX_EPOCH),
    st.integers(0, MAX_OFFSET),
    st.integers(0, MAX_INDEX),
)


def packed(at: Place) -> Position:
    return position(at.epoch, at.offset, at.index)


@given(places)
def test_taking_apart_undoes_packing(at: Place) -> None:
    assert place(packed(at)) == at


@given(places, places)
def test_positions_are_ordered_as_epoch_then_offset_then_index(one: Place, other: Place) -> None:
    assert (packed(one) < packed(other)) == (one < other)


def test_the_highest_position_fits_a_signed_64_bit_integer() -> None:
    assert position(MAX_EPOCH, MAX_OFFSET, MAX_INDEX) == 2**63 - 1


def test_nowhere_is_before_every_position() -> None:
    assert position(0, 0, 0) > NOWHERE
    with pytest.raises(ValueError, match="no place"):
        place(NOWHERE)


@pytest.mark.parametrize("parts", [(256, 0, 0), (0, 1 << 38, 0), (0, 0, 1 << 17), (-1, 0, 0)])
def test_a_part_that_does_not_fit_is_refused(parts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no such position"):
        position(*parts)


@given(places)
def test_the_end_of_a_message_is_above_its_events_and_below_the_next_message(at: Place) -> None:
    end = end_of_message(packed(at))
    assert packed(at) <= end
    assert (place(end).epoch, place(end).offset) == (at.epoch, at.offset)


def test_people_see_epoch_offset_index() -> None:
    assert written(position(1, 20, 3)) == "1/20/3"
