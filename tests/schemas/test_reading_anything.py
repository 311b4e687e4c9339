"""Bytes and values as nobody should send them: each is an event or a refusal, and nothing raises."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.events import Event
from schemas.reading import Refusal, read, read_value, split
from tests.schemas.test_reading import PINGED, TYPES, UPLOADED, dumped


@pytest.mark.parametrize(
    "value",
    [
        {1: 2},
        {"type": "activity.logged_in", 1: 2},
        {"type": "activity.logged_in", "user_id": "\ud800"},
        {"\udfff": 1, "type": "activity.logged_in"},
        {"type": "\ud800.x"},
        {"category": "\ud800"},
        {"type": "\ud800"},
        {**PINGED, "loss": float("nan")},
        {**PINGED, "response_ms": {"max": float("inf")}},
        {**UPLOADED, "file_id": b"f"},
        {**UPLOADED, "bytes": 10**5000},
        {"type": "activity.logged_in", "user_id": object()},
        object(),
        b'{"type":"activity.logged_in"}',
        "text",
    ],
)
def test_a_value_that_json_could_not_hold_is_refused(value: object) -> None:
    assert isinstance(read_value(value), Refusal)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
#: Members as senders have them, with values as nobody should.
odd_members = st.dictionaries(
    st.sampled_from(
        [
            *("type", "time", "id", "user_id", "category", "created", "size", "bytes", "file_id", "service"),
            *("region", "up", "loss", "response_ms", "valid_for_s", "service_name", "healthy", "resource_id"),
            *("response_time_avg", "response_time_loss", "extractor_name", "uploader_id", "downloader_id"),
            *("viewer_id", "submitter_id", "dataset_id", "length", "files_length"),
            *("extractor_id", "job_id", "status", "start", "message_type", "message", "clock_ms"),
        ]
    ),
    json_values
    | st.sampled_from([*TYPES, "file", "dataset", "space", "login", "up"])
    | st.sampled_from(
        ["upload", "download", "view_resource", "extraction", "service_status", "user_activity"]
    )
    | st.sampled_from(["StatusMessage.skip", "StatusMessage.done: x", "STARTED", "SUBMITTED", "Done", "a.b"])
    | st.sampled_from(["5 ms", "0%", "2026-11-23T21:00:03Z", "", "x", 1, 0.5, True]),
    max_size=3,
)
whole_events = st.sampled_from(
    [
        *({"type": name, **required, **optional} for name, (required, optional) in TYPES.items()),
        *({"category": name, "size": 1, "created": 5} for name in ("upload", "download", "archive")),
        {"category": "service_status", "type": "up", "service_name": "s", "response_time_avg": "5 ms"},
        {"category": "extraction", "type": "file", "extractor_name": "e", "resource_id": "r"},
        {"file_id": "f", "extractor_id": "e", "job_id": "j", "status": "x", "message_type": "STARTED"},
        {"file_id": "f", "extractor_id": "e", "status": "StatusMessage.done: x", "start": "x"},
        {"file_id": "f", "extractor_id": "e", "message_type": "ERROR"},
        {"type": "file", "downloader_id": "u", "length": 1},
        {"type": "file", "viewer_id": "u", "resource_id": "r"},
    ]
)
almost_events = st.builds(lambda whole, odd: {**whole, **odd}, whole_events, odd_members)


@given(st.binary())
@example(b"\xc3(")
@example(b'{"category":')
def test_no_bytes_raise(body: bytes) -> None:
    assert isinstance(read(body), Event | Refusal)
    for line in split(body):
        assert isinstance(read(line), Event | Refusal)


@given(st.binary(max_size=20), st.integers(0, 200), st.integers(0, 20))
def test_no_damaged_event_raises(junk: bytes, at: int, gone: int) -> None:
    for value in (UPLOADED, PINGED, {"category": "upload", "size": 1, "created": 1_795_467_603_855}):
        body = dumped(value)
        at %= len(body)
        assert isinstance(read(body[:at] + junk + body[at + gone :]), Event | Refusal)


@given(json_values | almost_events)
def test_no_value_raises_and_both_ways_of_reading_agree(value: object) -> None:
    result = read_value(value)
    assert isinstance(result, Event | Refusal)
    if isinstance(result, Event):
        assert result.time is None or isinstance(result.time, int)
    try:
        body = msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError):
        return  # not JSON
    again = read(body)
    if "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value):
        assert again == result


@given(st.lists(st.sampled_from([b"", b" ", b"\r", b"{}", b' {"a": 1}\r', b"\t"])))
def test_ndjson_is_one_event_a_line_and_blank_lines_are_none(lines: list[bytes]) -> None:
    assert split(b"\n".join(lines)) == [line.strip() for line in lines if line.strip()]


def test_only_a_line_feed_ends_a_line() -> None:
    assert split(b'{"a":\r1}\r\n\r\n{"b":"\xe2\x80\xa8"}') == [b'{"a":\r1}', b'{"b":"\xe2\x80\xa8"}']
