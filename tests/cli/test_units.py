"""Numbers with the unit that their field has."""

from __future__ import annotations

import pytest

from cli.units import duration, in_words, share, size, sparkline
from topology.rollups.combining import DISTINCT, MEANS, Combining, Ratio


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (1_288_490_189, "1.2 GiB"),
        (1024**2 - 1, "1.0 MiB"),  # not 1,024.0 KiB
        (2**63 - 1, "8.0 EiB"),
        (-2048, "-2.0 KiB"),
        (1536.5, "1.5 KiB"),
    ],
)
def test_bytes(value: float, written: str) -> None:
    assert size(value) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 s"),
        (0.0125, "12.5 ms"),
        (0.9996, "1 s"),
        (3, "3 s"),
        (12.345, "12.3 s"),
        (59.96, "1 m"),
        (184, "3 m 4 s"),
        (3599.6, "1 h"),
        (3660, "1 h 1 m"),
        (86_399, "23 h 59 m"),
        (90_000, "1 d 1 h"),
        (-184, "-3 m 4 s"),
    ],
)
def test_durations(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@pytest.mark.parametrize(
    ("ratio", "written"),
    [
        (1.0, "100 %"),
        (0.999999, "> 99.99 %"),
        (0.9995, "99.95 %"),
        (0.5, "50 %"),
        (0.0000001, "< 0.01 %"),
        (0.0, "0 %"),
    ],
)
def test_what_is_not_all_is_not_written_as_all(ratio: float, written: str) -> None:
    assert share(ratio) == written


@pytest.mark.parametrize(
    ("field", "value", "written"),
    [
        ("bytes_removed", 2048, "2.0 KiB"),
        ("up_s", 3540.0, "59 m"),
        ("runtime_s_p95", 184.2, "3 m 4 s"),
        ("runtime_s_count", 1234, "1,234"),
        ("response_ms_mean", 41.98403, "42 ms"),
        ("elapsed_ms_max", 1500.0, "1.5 s"),
        ("uptime_ratio", 0.25, "25 %"),
        ("messages_mean", 1234.5678, "1,234.568"),
        ("events", 7, "7"),
        ("events", None, ""),
    ],
)
def test_the_unit_follows_from_the_field(field: str, value: float | None, written: str) -> None:
    assert in_words(field, value) == written


def test_a_sparkline_is_from_zero_to_the_highest_and_tells_nothing_from_zero() -> None:
    assert sparkline([0, None, 7, 14]) == "▁·▅█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"


@pytest.mark.parametrize(
    ("combining", "written"),
    [
        # 1+3, 4+4, nothing, 0 and nothing: by window 2, 4, nothing, 0.
        ("sum", "▅█·▁"),
        ("max", "▆█·▁"),
        (DISTINCT, "▆█·▁"),
        ("min", "▃█·▁"),
        (Ratio(("up_s",), ("up_s", "down_s")), "▃█·▁"),
    ],
)
def test_values_that_share_a_block_are_taken_together_as_their_field_is(
    combining: Combining, written: str
) -> None:
    assert sparkline([1, 3, 4, 4, None, None, 0, None], width=4, combining=combining) == written


@pytest.mark.parametrize("combining", ["sum", "min", "max", MEANS, Ratio(("up_s",), ("up_s",))])
def test_what_is_constant_is_drawn_even_however_many_values_share_a_block(combining: Combining) -> None:
    # 30 values in 24 blocks: some hold two, some one.
    assert sparkline([1.0] * 30, width=24, combining=combining) == "█" * 24
