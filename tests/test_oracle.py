"""The oracle agrees with the sample, whose numbers are not its own, and with what a person works out by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import canonical
from schemas.events import (
    MAX_COUNT,
    ConnectionsCounted,
    Event,
    Extraction,
    ExtractionFailed,
    ExtractionRetried,
    ExtractionSkipped,
    ExtractionStarted,
    ExtractionSubmitted,
    ExtractionSucceeded,
    FileDeleted,
    FileUploaded,
    LoggedIn,
    PageFetched,
    PageViewed,
    QueueMeasured,
    ResourceDownloaded,
    ResourceViewed,
)
from schemas.reading import read, split
from schemas.times import from_rfc3339
from tests.oracle import Fields, Placed, Rows, placed, rollups, same, tag
from tests.streams import starts, streams

#: Making streams takes long, and on a busy machine several times as long.
pytestmark = pytest.mark.timeout(300)

DATA = Path(__file__).parent / "data"
KEYS = {
    "space_storage": ("space_id",),
    "resource_traffic": ("action", "resource_type", "space_id"),
    "user_activity": ("action",),
    "extractor_runtime": ("extractor",),
    "service_uptime": ("service", "region"),
}

#: A midnight, so that the windows 1m, 1h and 1d all begin here.
MIDNIGHT_S = 1_795_478_400
MIDNIGHT = MIDNIGHT_S * 1000
FAR = MIDNIGHT + 10 * 86_400_000


def at(seconds: float) -> int:
    return MIDNIGHT + round(seconds * 1000)


def table(
    rollup: str, events: Iterable[Event], window: str = "1m", *, watermark_ms: int = FAR
) -> dict[tuple[Any, ...], Fields]:
    """Rows by (seconds after midnight, key tags)."""
    rows = rollups(placed(events), watermark_ms=watermark_ms)[rollup, window]
    return {(start_s - MIDNIGHT_S, *tags): fields for (start_s, tags), fields in rows.items()}


# -- the sample --


def sample() -> list[Placed]:
    events = [read(line) for line in split((DATA / "clowder-6h.jsonl").read_bytes())]
    return placed(event for event in events if isinstance(event, Event))


def expected(rollup: str, window: str) -> Rows:
    rows: Rows = {}
    for row in json.loads((DATA / f"clowder-6h.expected-{window}.json").read_bytes())[rollup]:
        start_ms = from_rfc3339(row.pop("time"))
        assert start_ms is not None
        tags = tuple(row.pop(key) for key in KEYS[rollup])
        rows[start_ms // 1000, tags] = row
    return rows


@pytest.mark.parametrize("window", ["1m", "1h"])
@pytest.mark.parametrize("rollup", KEYS)
def test_the_sample_gives_the_numbers_that_it_was_made_with(rollup: str, window: str) -> None:
    end = from_rfc3339("2026-11-24T03:00:00Z")
    assert end is not None
    rows = rollups(sample(), watermark_ms=end)[rollup, window]
    numbers = expected(rollup, window)
    found = {
        key: {field: rows[key][field] for field in fields if field in rows[key]}
        for key, fields in numbers.items()
        if key in rows
    }
    assert same({(rollup, window): found}, {(rollup, window): numbers}) == []
    # What the expected numbers leave out are windows of which nothing is known.
    assert all(row.get("coverage") == 0 for key, row in rows.items() if key not in numbers)


# -- sums, counts, tags --


def upload(seconds: float, bytes: int = 1, **fields: Any) -> FileUploaded:
    return FileUploaded(time=at(seconds), file_id="f", bytes=bytes, **fields)


def test_bytes_and_files_of_a_space_add_up_in_their_window() -> None:
    removed = FileDeleted(time=at(59.999), file_id="f", space_id="s", bytes=7)
    rows = table("space_storage", [upload(0, 5, space_id="s"), removed, upload(60, 0, space_id="s")])
    assert rows == {
        (0, "s"): {"bytes_added": 5, "bytes_removed": 7, "files_added": 1, "files_removed": 1},
        (60, "s"): {"bytes_added": 0, "bytes_removed": 0, "files_added": 1, "files_removed": 0},
    }


def test_a_sum_stops_at_the_largest_integer() -> None:
    # 1024 × (2^53 − 1) = 2^63 − 1024, one more is beyond 2^63 − 1
    uploads = [upload(0, MAX_COUNT) for _ in range(1025)]
    (row,) = table("space_storage", uploads).values()
    (almost,) = table("space_storage", uploads[:1024]).values()
    assert (row["bytes_added"], almost["bytes_added"]) == (2**63 - 1, 2**63 - 1024)


def test_the_same_source_id_and_time_count_once_and_nothing_less_does() -> None:
    events = [
        upload(1, 1, source="a", id="1"),
        upload(1, 10, source="a", id="1"),  # the same event, whatever it says
        upload(1, 100, source="b", id="1"),
        upload(2, 1000, source="a", id="1"),
        upload(1, 10_000, source="a"),
        upload(1, 10_000, source="a"),
    ]
    (row,) = table("space_storage", events).values()
    assert (row["bytes_added"], row["files_added"]) == (1 + 100 + 1000 + 20_000, 5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "unknown"), ("", "unknown"), ("a\\b\x00c\x9f", "a_b_c_"), ("é" * 300, "é" * 256)],
)
def test_a_key_value_becomes_a_tag(value: str | None, expected: str) -> None:
    assert tag(value) == expected


def test_traffic_counts_events_bytes_items_and_people() -> None:
    anonymous = "0" * 24
    events = [
        ResourceDownloaded(time=at(1), resource_type="file", resource_id="r", bytes=5, user_id="u"),
        ResourceDownloaded(time=at(2), resource_type="file", resource_id="r", bytes=0, user_id=anonymous),
        ResourceDownloaded(time=at(3), resource_type="file", resource_id="r", items=3),
        ResourceViewed(time=at(3), resource_type="file", resource_id="r", space_id="s", user_id="u"),
        PageViewed(time=at(4), url="/", user_id="u"),
        PageViewed(time=at(5), url="/", user_id="u"),
    ]
    assert table("resource_traffic", events) == {
        (0, "downloaded", "file", "unknown"): {"events": 3, "bytes": 5, "items": 3, "unique_users": 2},
        (0, "viewed", "file", "s"): {"events": 1, "bytes": 0, "items": 0, "unique_users": 1},
        (0, "page_viewed", "unknown", "unknown"): {"events": 2, "bytes": 0, "items": 0, "unique_users": 1},
    }


def test_a_person_counts_once_a_window() -> None:
    logins = [LoggedIn(time=at(seconds), user_id="u") for seconds in (0, 59, 60)]
    assert table("user_activity", logins) == {
        (0, "logged_in"): {"events": 2, "unique_users": 1},
        (60, "logged_in"): {"events": 1, "unique_users": 1},
    }
    assert table("user_activity", logins, "1h") == {(0, "logged_in"): {"events": 3, "unique_users": 1}}


# -- measurements --


def test_means_of_a_page_are_over_the_fetches_that_say() -> None:
    pages = [
        PageFetched(time=at(1), service="c", region="eu", up=True, bytes=10, elapsed_ms=1.0),
        PageFetched(time=at(2), service="c", region="eu", up=True, bytes=15, elapsed_ms=2.5),
        PageFetched(time=at(3), service="c", region="eu", up=False),
        PageFetched(time=at(60), service="c", region="eu", up=False),
    ]
    assert table("service_page", pages) == {
        (0, "c", "eu"): {
            "fetches": 3,
            "failures": 1,
            "bytes_mean": 12.5,  # (10 + 15) ÷ 2
            "elapsed_ms_mean": 1.75,  # (1 + 2.5) ÷ 2
            "elapsed_ms_max": 2.5,
            "elapsed_ms_p95": 1.0,  # index ⌊0.95 · 1⌋ = 0
        },
        (60, "c", "eu"): {"fetches": 1, "failures": 1},
    }


def test_connections_and_queues_have_a_mean_and_a_maximum() -> None:
    connections = [ConnectionsCounted(time=at(n), service="c", connections=n) for n in (1, 2, 6)]
    queue = [QueueMeasured(time=at(n), service="c", queue="q", messages=n) for n in (0, 1)]
    counted = table("service_connections", connections)
    assert counted == {(0, "c", "unknown"): {"connections_mean": 3.0, "connections_max": 6}}  # 9 ÷ 3
    assert table("queue_length", queue) == {(0, "c", "q"): {"messages_mean": 0.5, "messages_max": 1}}


# -- jobs --

JOB = {"job_id": "j", "extractor": "x"}
LEGACY = {"job_id": None, "extractor": "x", "resource_id": "f"}


def job(kind: type[Extraction], seconds: float, **fields: Any) -> Event:
    return kind(time=at(seconds), **{**JOB, **fields})


def numbers(events: Sequence[Event], window: str = "1h") -> Fields:
    """Of the only row, what is not 0."""
    (row,) = table("extractor_runtime", events, window).values()
    return {field: number for field, number in row.items() if number and "_p" not in field}


def runtime(seconds: float) -> Fields:
    return {"runtime_s_count": 1} | {f"runtime_s_{name}": seconds for name in ("sum", "min", "max")}


def wait(seconds: float) -> Fields:
    return {"wait_s_count": 1, "wait_s_sum": seconds}


def test_a_job_counts_in_the_window_of_its_end() -> None:
    # 0 s               60 s              120 s
    # [submitted  started[retried  started  [succeeded
    # 10          30     70        80       125
    events = [
        job(ExtractionSubmitted, 10),
        job(ExtractionStarted, 30),
        job(ExtractionRetried, 70),
        job(ExtractionStarted, 80),
        job(ExtractionSucceeded, 125.25),
    ]
    rows = table("extractor_runtime", events)
    assert [(key, row["submitted"], row["started"], row["retried"]) for key, row in rows.items()] == [
        ((0, "x"), 1, 1, 0),
        ((60, "x"), 0, 1, 1),
        ((120, "x"), 0, 0, 0),
    ]
    assert rows[120, "x"] == {
        "submitted": 0,
        "started": 0,
        "retried": 0,
        "succeeded": 1,
        "failed": 0,
        "skipped": 0,
        **runtime(45.25),  # 125.25 − 80
        "runtime_s_p50": 45.25,
        "runtime_s_p95": 45.25,
        "runtime_s_p99": 45.25,
        **wait(20.0),  # 30 − 10
        "wait_s_p50": 20.0,
        "wait_s_p95": 20.0,
    }
    assert {"runtime_s_min", "runtime_s_p50", "wait_s_p50"}.isdisjoint(rows[60, "x"])
    assert (rows[60, "x"]["runtime_s_count"], rows[60, "x"]["runtime_s_sum"]) == (0, 0.0)


SKIP_THEN_DONE = [job(ExtractionSkipped, 5), job(ExtractionStarted, 2), job(ExtractionSucceeded, 9)]
ENDED_TWICE = [job(ExtractionStarted, 1), job(ExtractionFailed, 4), job(ExtractionSucceeded, 4)]
STARTED_LATER = [job(ExtractionStarted, 7), job(ExtractionFailed, 4), job(ExtractionSubmitted, 9)]
AT_ITS_END = [job(ExtractionStarted, 1), job(ExtractionStarted, 4), job(ExtractionFailed, 4)]
SKIPPED_TWICE = [job(ExtractionStarted, 1), job(ExtractionSkipped, 3), job(ExtractionSkipped, 8)]
AGAIN = [job(ExtractionSucceeded, 3), job(ExtractionStarted, 1), job(ExtractionFailed, 8)]


@pytest.mark.parametrize(
    ("events", "row"),
    [
        (SKIP_THEN_DONE, {"started": 1, "skipped": 1, **runtime(3.0)}),  # 5 − 2, not 9 − 2
        (ENDED_TWICE, {"started": 1, "succeeded": 1, **runtime(3.0)}),  # 4 − 1; a success outranks
        # No start before the end, no runtime; max(0, 7 − 9) = 0
        (STARTED_LATER, {"submitted": 1, "started": 1, "failed": 1, "wait_s_count": 1}),
        (AT_ITS_END, {"started": 2, "failed": 1, "runtime_s_count": 1}),  # 4 − 4
        (SKIPPED_TWICE, {"started": 1, "skipped": 1, **runtime(2.0)}),  # 3 − 1: the first skip counts
        (AGAIN, {"started": 1, "failed": 1, **runtime(7.0)}),  # 8 − 1: the last end counts
    ],
)
def test_a_job_has_one_end_in_whatever_order_it_is_told(events: list[Event], row: Fields) -> None:
    assert numbers(events) == numbers(events[::-1]) == row


def test_a_job_counts_for_the_extractor_that_its_end_names() -> None:
    events = [job(ExtractionStarted, 1, extractor="y"), job(ExtractionFailed, 2)]
    rows = table("extractor_runtime", events)
    assert [(key[1], row["started"], row["failed"]) for key, row in rows.items()] == [
        ("y", 1, 0),
        ("x", 0, 1),
    ]


class ClockedStart(ExtractionStarted, frozen=True, kw_only=True, tag=ExtractionStarted.__struct_config__.tag):
    clock_ms: int | None = None


class ClockedSuccess(
    ExtractionSucceeded, frozen=True, kw_only=True, tag=ExtractionSucceeded.__struct_config__.tag
):
    clock_ms: int | None = None


def test_durations_are_of_the_extractors_clock_where_both_events_tell_it() -> None:
    start, earlier = job(ClockedStart, 10, clock_ms=3_600_000), job(ClockedStart, 20, clock_ms=3_590_000)
    told = job(ClockedSuccess, 30, clock_ms=3_605_000)
    assert numbers([start, told, earlier]) == {"started": 2, "succeeded": 1, **runtime(5.0)}  # 3605 − 3600
    assert numbers([start, job(ClockedSuccess, 30)]) == {
        "started": 1,
        "succeeded": 1,
        **runtime(20.0),  # 30 − 10
    }


def test_without_an_id_what_follows_an_end_is_another_job() -> None:
    kinds = [ExtractionStarted, ExtractionSucceeded, ExtractionSubmitted, ExtractionStarted, ExtractionFailed]
    events = [job(kind, seconds, **LEGACY) for seconds, kind in enumerate(kinds)]
    assert numbers(events) == {
        "submitted": 1,
        "started": 2,
        "succeeded": 1,
        "failed": 1,
        "runtime_s_count": 2,
        "runtime_s_sum": 2.0,  # (1 − 0) + (4 − 3)
        "runtime_s_min": 1.0,
        "runtime_s_max": 1.0,
        **wait(1.0),  # 3 − 2
    }
    skipped = [job(kind, 5, **LEGACY) for kind in (ExtractionStarted, ExtractionSkipped, ExtractionSucceeded)]
    assert numbers(skipped) == {"started": 1, "skipped": 1, "runtime_s_count": 1}


def test_a_quantile_is_the_value_at_its_index() -> None:
    # 21 runtimes of 1 … 21 s: ⌊0.5 · 20⌋ = 10, ⌊0.95 · 20⌋ = 19, ⌊0.99 · 20⌋ = 19
    events: list[Event] = []
    for seconds in range(1, 22):
        events.append(job(ExtractionStarted, 0, job_id=str(seconds)))
        events.append(job(ExtractionSucceeded, seconds, job_id=str(seconds)))
    (row,) = table("extractor_runtime", events, "1h").values()
    assert [row[f"runtime_s_p{percent}"] for percent in (50, 95, 99)] == [11.0, 20.0, 20.0]


# -- comparing --


def one_row(**fields: float) -> dict[tuple[str, str], Rows]:
    return {("r", "1m"): {(0, ("k",)): dict(fields)}}


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        ({"runtime_s_p95": 100.0}, {"runtime_s_p95": 101.9}, True),
        ({"runtime_s_p95": 100.0}, {"runtime_s_p95": 103.0}, False),
        ({"unique_users": 1000}, {"unique_users": 1001}, False),
        ({"unique_users": 2000}, {"unique_users": 2060}, True),
        ({"unique_users": 2000}, {"unique_users": 2061}, False),
        ({"files_added": 1}, {"files_added": 1.0}, False),
        ({"up_s": 60.0}, {"up_s": 60}, True),
        ({"up_s": 60.0}, {"up_s": 59.999}, False),
        ({"response_ms_mean": 2.0}, {"response_ms_mean": 2.0009}, True),
        ({"up_s": 0.0}, {}, False),
        ({}, {"up_s": 0.0}, False),
    ],
)
def test_numbers_differ_where_the_contract_is_broken(ours: Fields, theirs: Fields, equal: bool) -> None:
    assert (same(one_row(**ours), one_row(**theirs)) == []) is equal


def test_a_row_that_only_one_side_has_is_a_difference() -> None:
    row = one_row(events=1)
    assert same(row, {}) == ["r 1m 0 k: only ours has it: {'events': 1}"]
    assert same({}, row) == ["r 1m 0 k: only theirs has it: {'events': 1}"]
    nothing_left: dict[tuple[str, str], Rows] = {
        ("extractor_runtime", "1m"): {(0, ("x",)): {"succeeded": 0, "runtime_s_sum": 0.0}}
    }
    assert same({}, nothing_left) == []


# -- the streams that the engine is judged on --


@given(st.data())
def test_the_order_of_a_stream_does_not_matter(data: st.DataObject) -> None:
    events = data.draw(starts().flatmap(lambda start_ms: streams(start_ms, jobs_without_id=False)))
    other_order = data.draw(st.permutations(events))
    watermark_ms = max((event.time or 0 for event in events), default=0)
    one, other = (rollups(placed(order), watermark_ms=watermark_ms) for order in (events, other_order))
    assert same(one, other) == []


@given(st.data())
def test_every_event_of_a_stream_is_one_that_is_read(data: st.DataObject) -> None:
    for event in data.draw(starts().flatmap(streams)):
        assert event.time is not None
        assert read(canonical(event, time_ms=event.time)) == event
