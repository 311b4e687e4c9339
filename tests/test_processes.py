"""The comparison with the expected numbers: it finds what is wrong, and says where."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.processes import ROLLUPS, Rows, differences, expected

WANT = expected("1h")


def changed(name: str, **fields: Any) -> tuple[Rows, tuple[str, ...]]:
    """The expected rows with these fields of one row changed."""
    rows = copy.deepcopy(WANT[name])
    key = min(rows)
    rows[key].update(fields)
    return rows, key


@pytest.mark.parametrize("name", ROLLUPS)
def test_the_expected_rows_do_not_differ_from_themselves(name: str) -> None:
    assert WANT[name]
    assert differences(name, WANT[name], WANT[name]) == []


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("space_storage", "bytes_added", 40_548_567),
        ("user_activity", "unique_users", 12),
        ("extractor_runtime", "runtime_s_sum", 2.72),
        ("extractor_runtime", "failed", 1.001),
        ("extractor_runtime", "runtime_s_max", None),
        ("service_uptime", "up_s", 3599.998),
        ("service_uptime", "uptime_ratio", "1.0"),
    ],
)
def test_a_field_that_differs_is_named(name: str, field: str, value: Any) -> None:
    rows, key = changed(name, **{field: value})
    (said,) = differences(name, rows, WANT[name])
    assert said.startswith(f"{key}: {field} is {value}, not ")


def test_a_field_that_lacks_is_named() -> None:
    rows, key = changed("extractor_runtime")
    del rows[key]["submitted"]
    assert differences("extractor_runtime", rows, WANT["extractor_runtime"]) == [
        f"{key}: submitted is None, not {WANT['extractor_runtime'][key]['submitted']}"
    ]


def test_floats_agree_to_a_millisecond_and_fields_that_are_not_expected_are_nothing() -> None:
    rows, _ = changed("extractor_runtime", runtime_s_sum=2.7185, runtime_s_p50=2.7)
    assert differences("extractor_runtime", rows, WANT["extractor_runtime"]) == []


def test_a_row_that_is_missing_and_one_too_many_are_named() -> None:
    rows, key = changed("user_activity")
    moved = {**rows, ("0", "logged_in"): rows[key]}
    del moved[key]
    assert differences("user_activity", moved, WANT["user_activity"]) == [
        f"('0', 'logged_in') is too many: {rows[key]}",
        f"{key} is missing",
    ]


def test_a_window_in_which_nothing_is_known_of_a_service_may_be_there_and_no_other() -> None:
    unknown = {"up_s": 0.0, "down_s": 0.0, "maintenance_s": 0.0, "unknown_s": 60.0}
    rows, _ = changed("service_uptime")
    rows["0", "clowder", "all"] = unknown
    assert differences("service_uptime", rows, WANT["service_uptime"]) == []
    rows["0", "clowder", "all"] = {**unknown, "down_s": 60.0}
    (said,) = differences("service_uptime", rows, WANT["service_uptime"])
    assert "is too many" in said
