"""Documents: what is absent is left out, and what is stale."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from agents import ROLLUPS
from tests.web.filling import NOW_S, point, raw
from topology.rollups.combining import Combining
from topology.sinks import Point
from web.documents import (
    event_document,
    events_document,
    rollup_csv,
    rollup_document,
    rollups_document,
)

STORAGE = ROLLUPS["space_storage"]
RUNTIME = ROLLUPS["extractor_runtime"]
RUNTIME_OF_SOME = {"runtime_s_min", "runtime_s_max", "runtime_s_p50", "runtime_s_p95", "runtime_s_p99"}
WAIT_OF_SOME = {"wait_s_p50", "wait_s_p95"}


@dataclass
class Uptime:
    """As much of ``service_uptime`` as its stale ratio needs."""

    name: str = "service_uptime"
    key: tuple[str, ...] = ("service", "region")
    fields: tuple[str, ...] = ("uptime_ratio", "up_s", "down_s", "unknown_s")
    retracts: bool = False
    combining: Mapping[str, Combining] = field(default_factory=dict)
    together: Mapping[str, str] = field(default_factory=dict)
    windows: Mapping[str, object] = field(default_factory=lambda: {"1m": 60})


def uptime(**fields: float) -> Point:
    return Point("service_uptime", "1m", NOW_S, (("service", "clowder"), ("region", "eu")), fields)


def runtime(**fields: float) -> Point:
    return Point("extractor_runtime", "1m", NOW_S, (("extractor", "ncsa.wordcount"),), fields)


def test_a_row_is_time_then_tags_then_fields_without_the_absent() -> None:
    document = rollup_document(STORAGE, "1m", [point(0, bytes_added=7, files_added=0)])
    assert document == {
        "rollup": "space_storage",
        "window": "1m",
        "rows": [{"time": "2026-11-23T21:00:00Z", "space_id": "s1", "bytes_added": 7, "files_added": 0}],
    }
    assert list(document["rows"][0]) == ["time", "space_id", "bytes_added", "files_added"]


def test_csv_has_all_columns_and_leaves_the_absent_empty() -> None:
    text = rollup_csv(STORAGE, [point(0, bytes_added=7), point(1, 'a,"b"\n', files_removed=0)])
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"time": "2026-11-23T21:00:00Z", "space_id": "s1", "bytes_added": "7"}
        | dict.fromkeys(("bytes_removed", "files_added", "files_removed"), ""),
        {"time": "2026-11-23T21:01:00Z", "space_id": 'a,"b"\n', "files_removed": "0"}
        | dict.fromkeys(("bytes_added", "bytes_removed", "files_added"), ""),
    ]


def test_no_rows_are_a_line_of_names() -> None:
    assert rollup_csv(STORAGE, []).strip() == (
        "time,space_id,bytes_added,bytes_removed,files_added,files_removed"
    )


def test_a_ratio_of_no_known_time_is_stale_and_left_out() -> None:
    # up_s + down_s = 0: a correction made the window unknown, and the store still has the old ratio.
    stale = uptime(uptime_ratio=0.5, up_s=0.0, down_s=0.0, unknown_s=60.0)
    down = uptime(uptime_ratio=0.0, up_s=0.0, down_s=60.0, unknown_s=0.0)
    first, second = rollup_document(Uptime(), "1m", [stale, down])["rows"]
    assert "uptime_ratio" not in first
    assert first["unknown_s"] == 60.0
    assert second["uptime_ratio"] == 0.0
    assert rollup_csv(Uptime(), [stale]).splitlines()[1] == "2026-11-23T21:00:00Z,clowder,eu,,0.0,0.0,60.0"


def test_the_least_the_most_and_the_quantiles_of_no_values_are_stale_and_left_out() -> None:
    # The job that ended here is now known to end elsewhere; one that has no times is left.
    quantiles = dict.fromkeys(RUNTIME_OF_SOME | WAIT_OF_SOME, 8.0)
    counts = {"submitted": 0, "failed": 1, "runtime_s_count": 0, "runtime_s_sum": 0.0, "wait_s_count": 0}
    (row,) = rollup_document(RUNTIME, "1m", [runtime(**counts, **quantiles)])["rows"]
    assert row == {"time": "2026-11-23T21:00:00Z", "extractor": "ncsa.wordcount", **counts}
    (line,) = csv.DictReader(io.StringIO(rollup_csv(RUNTIME, [runtime(**counts, **quantiles)])))
    assert {name for name, value in line.items() if value} == set(row)


def test_stale_is_only_what_its_own_count_says() -> None:
    waits = dict.fromkeys(WAIT_OF_SOME, 8.0)
    runs = dict.fromkeys(RUNTIME_OF_SOME, 0.0)  # all took no time at all, and are some
    stored = runtime(failed=1, runtime_s_count=1, wait_s_count=0, **runs, **waits)
    (row,) = rollup_document(RUNTIME, "1m", [stored])["rows"]
    assert set(row) >= RUNTIME_OF_SOME
    assert not set(row) & WAIT_OF_SOME


def test_a_maximum_of_a_rollup_that_has_no_count_is_never_stale() -> None:
    stored = Point("queue_length", "1m", NOW_S, (("service", "clowder"), ("queue", "q")), {"messages_max": 0})
    (row,) = rollup_document(ROLLUPS["queue_length"], "1m", [stored])["rows"]
    assert row["messages_max"] == 0


def test_a_row_all_of_which_was_taken_back_is_no_row() -> None:
    # Had the later end come first, there would never have been a point here: who asks sees no difference.
    zeros = dict.fromkeys(RUNTIME.fields, 0) | dict.fromkeys(RUNTIME_OF_SOME | WAIT_OF_SOME, 8.0)
    taken_back, left = runtime(**zeros), runtime(**{**zeros, "retried": 1})
    assert rollup_document(RUNTIME, "1m", [taken_back])["rows"] == []
    assert rollup_csv(RUNTIME, [taken_back]) == rollup_csv(RUNTIME, [])
    assert len(rollup_document(RUNTIME, "1m", [taken_back, left])["rows"]) == 1
    assert len(rollup_csv(RUNTIME, [taken_back, left]).splitlines()) == 2


@pytest.mark.parametrize("name", sorted(set(ROLLUPS) - {"extractor_runtime"}))
def test_zeros_of_a_rollup_that_takes_nothing_back_are_measurements(name: str) -> None:
    rollup = ROLLUPS[name]
    tags = tuple((tag, "x") for tag in rollup.key)
    zeros = Point(name, "1m", NOW_S, tags, dict.fromkeys(rollup.fields, 0))
    assert len(rollup_document(rollup, "1m", [zeros])["rows"]) == 1
    assert len(rollup_csv(rollup, [zeros]).splitlines()) == 2


def test_the_list_of_rollups_tells_windows_key_and_fields() -> None:
    (document,) = rollups_document([STORAGE])["rollups"]
    assert document == {
        "name": "space_storage",
        "windows": ["1m", "1h", "1d"],
        "key": ("space_id",),
        "fields": ("bytes_added", "bytes_removed", "files_added", "files_removed"),
    }


def test_an_event_has_its_position_and_arrival_before_its_own_fields() -> None:
    document = event_document(raw(3, user_id="u"))
    assert document == {
        "position": "0/3/0",
        "received": "2026-11-23T21:00:00.003Z",
        "type": "traffic.page_viewed",
        "time": "2026-11-23T21:00:00.000Z",
        "url": "https://example.org/3",
        "user_id": "u",
    }
    assert list(document)[:2] == ["position", "received"]


def test_an_event_cannot_pretend_another_position() -> None:
    forged = raw(3)._replace(event=b'{"type":"x","position":"9/9/9","received":"never"}')
    assert event_document(forged)["position"] == "0/3/0"
    assert event_document(forged)["received"] == "2026-11-23T21:00:00.003Z"
    assert events_document([forged], "c")["cursor"] == "c"
