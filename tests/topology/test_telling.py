"""What happens again and again does not fill the log."""

from __future__ import annotations

from topology.telling import EVERY_MS, Telling


def test_the_first_is_told_at_once_and_then_their_number_once_a_minute() -> None:
    now = 1_000
    telling = Telling(lambda: now)
    assert telling.due() == 1
    assert [telling.due() for _ in range(5)] == [0] * 5
    now += EVERY_MS - 1
    assert telling.due(3) == 0
    now += 1
    assert telling.due() == 9
    assert telling.due() == 0


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    now = 10 * EVERY_MS
    telling = Telling(lambda: now)
    assert telling.due() == 1
    now = 0
    assert telling.due() == 1
