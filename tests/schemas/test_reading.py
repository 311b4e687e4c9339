"""Whatever comes in is an event or a refusal that says where and why. Nothing raises."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from schemas.events import (
    EVENT_TYPES,
    ConnectionsCounted,
    Event,
    FileUploaded,
    LoggedIn,
    PageFetched,
    Pinged,
    QueueMeasured,
)
from schemas.reading import MAX_BODY_BYTES, Refusal, read, read_lines, read_value
from schemas.selecting import instead_of

UPLOADED: dict[str, Any] = {"type": "storage.file_uploaded", "file_id": "f", "bytes": 1}
PINGED: dict[str, Any] = {"type": "health.pinged", "service": "s", "region": "r", "up": True}
FETCHED: dict[str, Any] = {"type": "health.page_fetched", "service": "s", "region": "r", "up": False}

#: Required members of each canonical event, and optional ones.
TYPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "storage.file_uploaded": ({"file_id": "f", "bytes": 0}, {"dataset_id": "d", "space_id": "s"}),
    "storage.file_deleted": ({"file_id": "f", "bytes": 2**53 - 1}, {"dataset_id": "d", "space_id": "s"}),
    **{
        name: ({"resource_type": "file", "resource_id": "r"}, {"bytes": 1, "items": 2})
        for name in ("storage.archived", "storage.unarchived")
    },
    **{
        f"extraction.{name}": (
            {"job_id": "j", "extractor": "e"},
            {"resource_type": "file", "resource_id": "r", "message": "m", "clock_ms": 1_795_467_603_000},
        )
        for name in ("submitted", "started", "progressed", "succeeded", "failed", "skipped", "retried")
    },
    "traffic.page_viewed": ({"url": "u"}, {"resource_id": "r"}),
    "traffic.resource_viewed": ({"resource_type": "file", "resource_id": "r"}, {"space_id": "s"}),
    "traffic.resource_downloaded": (
        {"resource_type": "file", "resource_id": "r"},
        {"space_id": "s", "bytes": 1, "items": 2},
    ),
    "activity.signed_up": ({}, {}),
    "activity.logged_in": ({}, {}),
    "activity.resource_created": ({"resource_type": "file", "resource_id": "r"}, {"space_id": "s"}),
    "health.pinged": (
        {"service": "s", "region": "r", "up": True},
        {
            "check": "ping",
            "response_ms": {"min": 0.5, "avg": 1.5, "max": 2.5},
            "loss": 0.5,
            "valid_for_s": 60.0,
        },
    ),
    "health.page_fetched": (
        {"service": "s", "region": "r", "up": False},
        {"status": 503, "bytes": 1, "elapsed_ms": 1.5, "valid_for_s": 60.0},
    ),
    "health.connections_counted": ({"service": "s", "connections": 5}, {"region": "r", "period_s": 60.0}),
    "health.queue_measured": ({"service": "s", "queue": "q", "messages": 5}, {}),
    "health.maintenance_started": ({"service": "s"}, {"reason": "x"}),
    "health.maintenance_ended": ({"service": "s"}, {"reason": "x"}),
    "health.outage_started": ({"service": "s"}, {"region": "r", "reason": "x"}),
    "health.outage_ended": ({"service": "s"}, {"region": "r", "reason": "x"}),
}


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def refused(value: object) -> Refusal:
    result = read(value if isinstance(value, bytes) else dumped(value))
    assert isinstance(result, Refusal)
    assert result.reason
    assert "\n" not in result.reason
    assert len(result.reason) < 200
    return result


def test_the_types_are_those_of_the_contract() -> None:
    assert {kind.__struct_config__.tag for kind in EVENT_TYPES} == set(TYPES)


@pytest.mark.parametrize("type", TYPES)
def test_each_type_is_read_with_all_its_members_and_with_the_required_alone(type: str) -> None:
    required, optional = TYPES[type]
    common = {"time": 1_795_467_603_855, "id": "i", "source": "prod", "user_id": "u"}
    whole = {"type": type, **common, **required, **optional}
    event = read(dumped(whole))
    assert isinstance(event, Event)
    assert event.type == type
    assert msgspec.to_builtins(event) == whole
    least = read(dumped({"type": type, **required}))
    assert isinstance(least, Event)
    assert (least.time, least.id, least.source, least.user_id) == (None, None, None, None)
    assert read(dumped({"type": type, **required, "unheard": {"of": [1]}})) == least
    absent = dict.fromkeys([*common, *optional])
    assert read(dumped({"type": type, **required, **absent})) == least


@pytest.mark.parametrize("type", TYPES)
def test_each_required_member_is_required(type: str) -> None:
    required, _ = TYPES[type]
    for name in required:
        rest = {other: value for other, value in required.items() if other != name}
        assert refused({"type": type, **rest}) == Refusal(f"/{name}", "is required")
        assert refused({"type": type, **required, name: []}).pointer == f"/{name}"


def test_an_event_is_frozen_and_invisible_to_the_garbage_collector() -> None:
    for kind in EVENT_TYPES:
        assert kind.__struct_config__.frozen
        assert not kind.__struct_config__.gc
        assert not hasattr(kind, "__dict__") or "__dict__" not in dir(kind)
    event = read(dumped({"type": "activity.logged_in"}))
    with pytest.raises(AttributeError):
        event.time = 5  # type: ignore[misc, union-attr]  # that is what is tested


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({}, "/type"),
        ({"type": None}, "/type"),
        ({"type": 5}, "/type"),
        ({"type": ""}, "/type"),
        ({"type": "pinged"}, "/type"),
        ({"type": "health.unheard_of"}, "/type"),
        ({**UPLOADED, "bytes": -1}, "/bytes"),
        ({**UPLOADED, "bytes": 2**53}, "/bytes"),
        ({**UPLOADED, "bytes": 2**64}, "/bytes"),
        ({**UPLOADED, "bytes": 1.5}, "/bytes"),
        ({**UPLOADED, "bytes": "1"}, "/bytes"),
        ({**UPLOADED, "bytes": True}, "/bytes"),
        ({**UPLOADED, "bytes": None}, "/bytes"),
        ({**UPLOADED, "file_id": 5}, "/file_id"),
        ({**UPLOADED, "id": "x" * 129}, "/id"),
        ({**UPLOADED, "id": 5}, "/id"),
        ({**UPLOADED, "source": 5}, "/source"),
        ({**UPLOADED, "user_id": {}}, "/user_id"),
        ({**PINGED, "up": 1}, "/up"),
        ({**PINGED, "up": "true"}, "/up"),
        ({**PINGED, "loss": 1.01}, "/loss"),
        ({**PINGED, "loss": -0.01}, "/loss"),
        ({**PINGED, "loss": "0%"}, "/loss"),
        ({**PINGED, "check": "telepathy"}, "/check"),
        ({**PINGED, "valid_for_s": 0}, "/valid_for_s"),
        ({**PINGED, "valid_for_s": 3601}, "/valid_for_s"),
        ({**PINGED, "response_ms": 5}, "/response_ms"),
        ({**PINGED, "response_ms": {"avg": "5"}}, "/response_ms/avg"),
        ({**PINGED, "response_ms": {"avg": -5}}, "/response_ms/avg"),
        ({**FETCHED, "elapsed_ms": -1}, "/elapsed_ms"),
        ({**FETCHED, "bytes": -1}, "/bytes"),
        ({"type": "health.queue_measured", "service": "s", "queue": "q", "messages": -1}, "/messages"),
        ({"type": "extraction.started", "job_id": "j", "extractor": "e", "clock_ms": -1}, "/clock_ms"),
        ({"type": "extraction.started", "job_id": "j", "extractor": "e", "clock_ms": "now"}, "/clock_ms"),
        ({**UPLOADED, "time": 1.5}, "/time"),
        ({**UPLOADED, "time": -1}, "/time"),
        ({**UPLOADED, "time": 253_402_300_800_000}, "/time"),
        ({**UPLOADED, "time": 2**64}, "/time"),
        ({**UPLOADED, "time": True}, "/time"),
        ({**UPLOADED, "time": []}, "/time"),
        ({**UPLOADED, "time": ""}, "/time"),
        ({**UPLOADED, "time": "2026-11-23T21:00:03"}, "/time"),
        ({**UPLOADED, "time": "2026-11-23"}, "/time"),
        ({**UPLOADED, "time": "1969-12-31T23:59:59Z"}, "/time"),
        ({**UPLOADED, "time": "now"}, "/time"),
        ([], ""),
        ([UPLOADED], ""),
        ("x", ""),
        (5, ""),
        (None, ""),
    ],
)
def test_a_wrong_value_is_refused_where_it_is_wrong(value: object, pointer: str) -> None:
    refusal = refused(value)
    assert refusal.pointer == pointer
    assert read_value(value) == refusal


@pytest.mark.parametrize("number", ["7.0", "7e0", "70E-1", "-0.0", "9007199254740991.0"])
def test_a_whole_number_is_an_integer_however_it_is_written_as_json_schema_has_it(number: str) -> None:
    body = (
        b'{"type":"storage.file_uploaded","file_id":"f","bytes":%b,"time":1795467600000.0}' % number.encode()
    )
    event = read(body)
    assert isinstance(event, FileUploaded), event
    assert (type(event.bytes), event.bytes) == (int, float(number))
    assert (type(event.time), event.time) == (int, 1_795_467_600_000)
    assert read_value(json.loads(body)) == event
    assert [each for _, each in read_lines(body + b"\n" + body)] == [event, event]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({**UPLOADED, "bytes": -1}, "must be at least 0"),
        ({**UPLOADED, "bytes": 2**53}, "must be at most 9007199254740991"),
        ({**UPLOADED, "bytes": "1"}, "must be an integer, got a text"),
        ({**UPLOADED, "bytes": 1.5}, "must be an integer, got a number"),
        ({**UPLOADED, "bytes": 1e300}, "must be an integer, got a number"),
        ({**UPLOADED, "bytes": 2.0**53}, "must be at most 9007199254740991"),
        ({**UPLOADED, "source": 5}, "must be a text or null, got an integer"),
        ({**UPLOADED, "id": "x" * 129}, "must have at most 128 characters"),
        (
            {"type": "traffic.page_view"},
            "unknown type 'traffic.page_view': did you mean traffic.page_viewed?",
        ),
        ({"type": "Activity.Login"}, "unknown type 'Activity.Login': did you mean activity.logged_in?"),
        (
            {"type": "activity.danced"},
            "unknown type 'activity.danced': activity.* are signed_up, logged_in, resource_created",
        ),
        (
            {"type": "weather.rained"},
            f"unknown type 'weather.rained': {instead_of('nothing')}",
        ),
        ({"type": f"weather.{'x' * 60}"}, f"unknown type 'weather.{'x' * 51}"),
        ({"type": None}, "must be a text, got null"),
        ({**PINGED, "check": "x"}, "unknown check 'x'"),
        ({**PINGED, "loss": 2}, "must be at most 1"),
        ({"category": "x"}, "unknown category 'x'"),
        ({"category": "download", "type": "file", "resource_id": ""}, "must not be empty"),
    ],
)
def test_a_reason_is_a_sentence_for_the_sender(value: object, reason: str) -> None:
    assert refused(value).reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty"),
        (b" \r\n\t", "the body is empty"),
        (b"\xef\xbb\xbf", "the body is empty"),
        (b"hello", "not JSON: "),
        (b"{", "not JSON: "),
        (b'{"type":"activity.logged_in"', "not JSON: "),
        (b'{"type":"activity.logged_in"} {}', "not JSON: "),
        (b"{'type':'activity.logged_in'}", "not JSON: "),
        (b'{"type":"health.pinged","service":"s","region":"r","up":true,"loss":NaN}', "not JSON: "),
        (b'{"type":"activity.logged_in","user_id":"\\ud800"}', "not JSON: "),
        (b'{"type":"activity.logged_in","user_id":"\x00"}', "not JSON: "),
        (b"\xff\xfe{\x00", "not JSON: "),
        (b'{"category":"\xff', "not JSON: "),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"type":"activity.logged_in","x":' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"category":"upload","size":1,"created":' + b"[" * 100_000, "nested too deeply"),
        (b"x" * (5 << 20), "too_large: the body has 5242880 bytes"),
    ],
)
def test_what_is_no_json_object_is_refused_as_a_whole(body: bytes, reason: str) -> None:
    refusal = refused(body)
    assert refusal.pointer == ""
    assert refusal.reason.startswith(reason)


@pytest.mark.parametrize("number", [b"9" * 5000, b"1e999", b"-1e999", b"1" + b"0" * 400])
def test_a_number_that_fits_nowhere_is_refused_where_it_stands(number: bytes) -> None:
    assert refused(b'{"type":"storage.file_uploaded","file_id":"f","bytes":%b}' % number).pointer == "/bytes"
    assert refused(b'{"category":"upload","size":%b}' % number).pointer == "/size"
    assert refused(b'{"type":"storage.file_uploaded","time":%b}' % number).pointer == "/time"


def test_a_body_of_a_mebibyte_is_read_and_a_byte_more_is_not() -> None:
    body = b'{"type":"activity.logged_in"}'
    assert read(body.ljust(MAX_BODY_BYTES)) == LoggedIn()
    assert refused(body.ljust(MAX_BODY_BYTES + 1)).reason.startswith("too_large")


def test_times_come_as_milliseconds_or_text() -> None:
    for time in (1_795_467_603_855, "2026-11-23T21:00:03.855Z", "2026-11-23T22:00:03.855+01:00"):
        assert read(dumped({"type": "activity.logged_in", "time": time})) == LoggedIn(time=1_795_467_603_855)
    assert read(dumped({"type": "activity.logged_in", "time": 1_795_467_603})) == LoggedIn(time=1_795_467_603)
    assert read(dumped({"type": "activity.logged_in", "time": None})) == LoggedIn()


def test_an_empty_id_is_no_id() -> None:
    # Taken for one, it would make repeats of all events of a millisecond.
    body = {"type": "activity.logged_in", "time": 5, "id": "", "user_id": ""}
    assert read(dumped(body)) == read_value(body) == LoggedIn(time=5)


def test_an_id_has_128_characters_not_bytes() -> None:
    assert read(dumped({"type": "activity.logged_in", "id": "Ü" * 128})) == LoggedIn(id="Ü" * 128)


def test_nothing_is_something() -> None:
    event = read(dumped({**UPLOADED, "bytes": 0, "file_id": ""}))
    assert event == FileUploaded(file_id="", bytes=0)
    fetched = read(dumped({**FETCHED, "bytes": 0, "status": 0, "elapsed_ms": 0}))
    assert fetched == PageFetched(service="s", region="r", up=False, bytes=0, status=0, elapsed_ms=0.0)


def test_an_unknown_id_is_said_by_null() -> None:
    # As in the archive, where an upload by Clowder 1 has no file id.
    assert read(dumped({**UPLOADED, "file_id": None})) == FileUploaded(file_id=None, bytes=1)


def test_null_stands_for_the_default() -> None:
    event = read(dumped({**PINGED, "valid_for_s": None}))
    assert event == Pinged(service="s", region="r", up=True)
    assert isinstance(event, Pinged)
    assert event.valid_for_s == 120


def test_bodies_in_latin_1_and_with_a_byte_order_mark_are_read() -> None:
    body = '{"type":"activity.logged_in","source":"Zürich"}'
    for encoded in (body.encode(), body.encode("latin-1"), body.encode("utf-8-sig")):
        assert read(encoded) == LoggedIn(source="Zürich")


def test_of_a_repeated_member_the_last_counts() -> None:
    assert read(b'{"type":"activity.logged_in","time":1,"time":2}') == LoggedIn(time=2)
    assert isinstance(read(b'{"type":"activity.logged_in","type":"activity.signed_up"}'), Event | Refusal)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (
            {"problem": "refused", "certificate_days_left": -3, "phases_ms": {"connect": 1.5, "tls": 2}},
            ("refused", -3, {"connect": 1.5, "tls": 2}),
        ),
        (
            {"problem": {"code\0": 7}, "certificate_days_left": 2**63, "phases_ms": {"a\0": 1}},
            (None, None, None),
        ),
        ({"problem": 7, "certificate_days_left": True, "phases_ms": [1, "two"]}, (None, None, None)),
        ({"problem": None, "certificate_days_left": "many", "phases_ms": {"tls": -1}}, (None, None, None)),
        ({"phases_ms": {"tls": 1, "connect": "soon", "other": 2}}, (None, None, {"tls": 1})),
    ],
)
def test_what_is_only_shown_to_people_is_left_out_where_it_means_something_else(
    given: dict[str, object], kept: tuple[object, ...]
) -> None:
    page = {"type": "health.page_fetched", "service": "s", "region": "r", "up": False, **given}
    for found in (read(msgspec.json.encode(page)), read_value(page)):
        assert isinstance(found, PageFetched)
        assert (found.problem, found.certificate_days_left, found.phases_ms) == kept


def test_shown_counts_that_are_none_are_left_out() -> None:
    counted = {"type": "health.connections_counted", "service": "s", "connections": 7, "requests": 9}
    measured = {"type": "health.queue_measured", "service": "s", "queue": "q", "messages": 7, "ready": 3}
    odd = {"clients": "many", "active": -1, "unreadable": 2**63, "consumers": [1], "unacknowledged": True}
    found = read(msgspec.json.encode(counted | odd))
    assert isinstance(found, ConnectionsCounted)
    assert (found.requests, found.clients, found.active, found.unreadable) == (9, None, None, None)
    found = read(msgspec.json.encode(measured | odd))
    assert isinstance(found, QueueMeasured)
    assert (found.ready, found.unacknowledged, found.consumers) == (3, None, None)
