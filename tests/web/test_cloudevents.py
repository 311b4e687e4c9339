"""CloudEvents 1.0 in all three modes: what they become, and what is said of those that become nothing."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from schemas.reading import Refusal, read
from tests.web.serving import Served, problem
from tests.web.test_bodies import JSON_VALUES
from web.cloudevents import BATCH, STRUCTURED, read_binary, read_structured
from web.items import MAX_ITEM_BYTES, Item, Taken

PINGED = {"service": "clowder", "region": "eu", "up": True}
ATTRIBUTES = {
    "specversion": "1.0",
    "id": "a-1",
    "source": "/monitors/eu",
    "type": "health.pinged",
    "time": "2026-11-23T21:00:00Z",
}
HEADERS = {f"ce_{name}": value for name, value in ATTRIBUTES.items()}


def cloud_event(**members: Any) -> bytes:
    return json.dumps({**ATTRIBUTES, "data": PINGED, **members}).encode()


def without(*names: str) -> bytes:
    event = json.loads(cloud_event())
    return json.dumps({name: value for name, value in event.items() if name not in names}).encode()


def document(item: Item) -> dict[str, Any]:
    assert isinstance(item, Taken), item
    found: dict[str, Any] = json.loads(item.line)
    return found


def headers(**named: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict({name.replace("_", "-", 1): value for name, value in named.items()}))


# -- what they become --


def test_attributes_become_the_common_fields_and_data_the_others() -> None:
    assert document(read_structured(cloud_event())) == {
        "type": "health.pinged",
        "id": "a-1",
        "source": "/monitors/eu",
        "time": "2026-11-23T21:00:00Z",
        **PINGED,
        "cloudevent": {"specversion": "1.0"},
    }


def test_a_type_of_ours_may_stand_behind_a_prefix() -> None:
    found = document(read_structured(cloud_event(type="org.example.health.pinged")))
    assert found["type"] == "health.pinged"
    assert found["cloudevent"]["type"] == "org.example.health.pinged"


def test_other_attributes_and_extensions_are_kept_where_no_field_can_be_meant() -> None:
    found = document(
        read_structured(
            cloud_event(
                subject="s", dataschema="urn:x", datacontenttype="application/json", region="r", n=1, up=False
            )
        )
    )
    assert (found["region"], found["up"]) == ("eu", True)
    assert found["cloudevent"] == {
        "specversion": "1.0",
        "subject": "s",
        "dataschema": "urn:x",
        "datacontenttype": "application/json",
        "region": "r",
        "n": 1,
        "up": False,
    }


def test_unknown_members_of_data_are_kept_in_their_digits() -> None:
    body = cloud_event()[:-2] + b', "x": 1.10, "n": 12345678901234567890123, "e": "\\u00e9" } }'
    item = read_structured(body)
    assert isinstance(item, Taken)
    assert b'"x":1.10,"n":12345678901234567890123,"e":"\\u00e9"' in item.line


def test_what_the_attributes_say_counts_and_not_what_data_says_too() -> None:
    data = {**PINGED, "id": "other", "source": "other", "time": 5, "type": "other", "cloudevent": 1}
    found = document(read_structured(cloud_event(data=data)))
    for name in ("id", "source", "time", "type"):
        assert found[name] == ATTRIBUTES[name]


def test_data_says_when_where_the_attributes_do_not() -> None:
    found = json.loads(without("time"))
    found["data"]["time"] = 1_795_467_600_000
    assert document(read_structured(json.dumps(found).encode()))["time"] == 1_795_467_600_000


def test_data_may_have_a_type_of_its_own() -> None:
    data = {"type": "activity.logged_in", "user_id": "u", "id": "x"}
    found = document(read_structured(cloud_event(type="com.github.anything", data=data)))
    assert (found["type"], found["user_id"], found["id"]) == ("activity.logged_in", "u", "a-1")
    assert found["cloudevent"]["type"] == "com.github.anything"


def test_data_may_be_in_a_foreign_shape() -> None:
    data = {
        "category": "upload",
        "size": 123,
        "dataset_id": "d",
        "user_name": "A B",
        "created": 1_795_467_600_000,
    }
    item = read_structured(cloud_event(type="clowder.metrics", data=data))
    found = document(item)
    assert (found["type"], found["bytes"], found["dataset_id"]) == ("storage.file_uploaded", 123, "d")
    assert (found["user_name"], found["size"], found["time"]) == ("A B", 123, ATTRIBUTES["time"])


def test_data_in_base64_is_the_same_data() -> None:
    encoded = base64.b64encode(json.dumps(PINGED).encode()).decode()
    body = json.loads(without("data"))
    body["data_base64"] = encoded
    assert document(read_structured(json.dumps(body).encode())) == document(read_structured(cloud_event()))


def test_a_null_is_an_attribute_that_is_not_set() -> None:
    found = document(read_structured(cloud_event(time=None, subject=None, datacontenttype=None)))
    assert "time" not in found
    assert found["cloudevent"] == {"specversion": "1.0"}


def test_an_event_without_data_has_no_other_fields() -> None:
    body = json.loads(without("data"))
    body["type"] = "activity.signed_up"
    assert document(read_structured(json.dumps(body).encode()))["type"] == "activity.signed_up"


# -- what becomes nothing --


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (without("id"), "/id"),
        (without("source"), "/source"),
        (without("type"), "/type"),
        (without("specversion"), "/specversion"),
        (cloud_event(specversion="0.3"), "/specversion"),
        (cloud_event(id=""), "/id"),
        (cloud_event(id=7), "/id"),
        (cloud_event(id="x" * 129), "/id"),
        (cloud_event(time="yesterday"), "/time"),
        (cloud_event(time=5), "/time"),
        (cloud_event(type="no.such"), "/type"),
        (cloud_event(type="xhealth.pinged"), "/type"),
        (cloud_event(type="x", data={"type": "no.such"}), "/data/type"),
        (cloud_event(type="x", data={"category": "upload"}), "/data/size"),
        (cloud_event(data={**PINGED, "up": 3}), "/data/up"),
        (cloud_event(data={**PINGED, "response_ms": {"min": "x"}}), "/data/response_ms/min"),
        (cloud_event(data={}), "/data/service"),
        (cloud_event(data=[PINGED]), "/data"),
        (cloud_event(data="x"), "/data"),
        (cloud_event(datacontenttype="text/xml", data="<x/>"), "/datacontenttype"),
        (cloud_event(data_base64="e30="), "/data_base64"),
        (b"[]", ""),
        (b"3", ""),
        (b"", ""),
        (b"{", ""),
        (b"[" * 5000, ""),
    ],
)
def test_what_is_wrong_is_pointed_at(body: bytes, pointer: str) -> None:
    found = read_structured(body)
    assert isinstance(found, Refusal), found
    assert found.pointer == pointer
    assert found.reason


@pytest.mark.parametrize(
    "data", ["=", "é", 3, base64.b64encode(b"[]").decode(), base64.b64encode(b"\xff").decode()]
)
def test_data_in_base64_that_is_no_event_is_pointed_at(data: object) -> None:
    body = json.loads(without("data"))
    body["data_base64"] = data
    found = read_structured(json.dumps(body).encode())
    assert isinstance(found, Refusal)
    assert found.pointer == "/data_base64"


def test_inside_base64_the_place_is_named() -> None:
    body = json.loads(without("data"))
    body["data_base64"] = base64.b64encode(b'{"service":3}').decode()
    found = read_structured(json.dumps(body).encode())
    assert isinstance(found, Refusal)
    assert "/service" in found.reason


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"ce_id": ""}, "ce-id"),
        ({"ce_specversion": "2.0"}, "ce-specversion"),
        ({"ce_time": "yesterday"}, "ce-time"),
        ({"ce_type": "no.such"}, "ce-type"),
        ({"ce_source": "%ff"}, "ce-source"),
        ({"ce_source": "\udcff"}, "ce-source"),
    ],
)
def test_a_header_that_is_wrong_is_named(changed: dict[str, str], named: str) -> None:
    found = read_binary(headers(**{**HEADERS, **changed}), json.dumps(PINGED).encode())
    assert isinstance(found, Refusal)
    assert (found.pointer, named in found.reason) == ("", True), found


def test_a_header_twice_is_refused() -> None:
    twice = CIMultiDict([*headers(**HEADERS).items(), ("CE-Id", "b")])
    assert isinstance(read_binary(CIMultiDictProxy(twice), b"{}"), Refusal)


def test_texts_of_headers_are_unquoted_and_percent_decoded() -> None:
    named = {**HEADERS, "ce_source": '"a \\"b\\""', "ce_note": "Euro%20%E2%82%AC"}
    found = document(read_binary(headers(**named), json.dumps(PINGED).encode()))
    assert (found["source"], found["cloudevent"]["note"]) == ('a "b"', "Euro €")


# -- laws --


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    read_structured(body)
    read_binary(headers(**HEADERS), body)


@given(
    st.dictionaries(st.text(), JSON_VALUES, max_size=4), st.dictionaries(st.text(), JSON_VALUES, max_size=4)
)
def test_nothing_is_lost_and_the_log_reads_the_line_as_the_same_event(
    fields: dict[str, Any], extensions: dict[str, Any]
) -> None:
    known = {*ATTRIBUTES, "data", "data_base64", "datacontenttype"}
    kept = {name: value for name, value in extensions.items() if name not in known and value is not None}
    data = {**{name: value for name, value in fields.items() if name not in READ}, **PINGED}
    item = read_structured(json.dumps({**kept, **ATTRIBUTES, "data": data}, indent=1).encode())
    found = document(item)
    assert isinstance(item, Taken)
    assert b"\n" not in item.line
    assert read(item.line) == item.event
    own = {name: ATTRIBUTES[name] for name in ("id", "source", "type", "time")}
    assert found == {**data, **own, "cloudevent": {**kept, "specversion": "1.0"}}


#: Names that a field of this event, or of all, has.
READ = {
    "check",
    "response_ms",
    "loss",
    "valid_for_s",
    "user_id",
    "id",
    "source",
    "time",
    "type",
    "cloudevent",
}


@given(st.dictionaries(st.sampled_from(sorted(HEADERS)), st.text(), max_size=5), st.binary(max_size=40))
def test_whatever_headers_hold_is_read_or_refused(changed: dict[str, str], body: bytes) -> None:
    item = read_binary(headers(**{**HEADERS, **changed}), body)
    assert isinstance(item, Refusal) or read(item.line) == item.event


# -- over HTTP --


async def test_one_structured_event_is_accepted(app: Served) -> None:
    response = await app.post(cloud_event(), content_type=f"{STRUCTURED}; charset=UTF-8")
    assert response.status == 202
    assert await response.json() == {"accepted": 1, "rejected": [], "durable": "log"}
    (message,) = await app.published()
    assert message.content_type == "application/json"
    event = read(message.body)
    assert not isinstance(event, Refusal)
    assert (event.id, event.source, event.time) == ("a-1", "/monitors/eu", 1_795_467_600_000)


async def test_a_batch_is_answered_item_by_item(app: Served) -> None:
    body = b"[%b,%b,3,%b]" % (cloud_event(), cloud_event(data={"service": 1}), cloud_event(id="a-2"))
    answer = await (await app.post(body, content_type=BATCH)).json()
    assert answer["accepted"] == 2
    assert [(each["index"], each["pointer"]) for each in answer["rejected"]] == [
        (1, "/data/service"),
        (2, ""),
    ]
    (message,) = await app.published()
    assert [json.loads(line)["id"] for line in message.body.split(b"\n")] == ["a-1", "a-2"]


async def test_an_oversized_item_of_a_batch_is_rejected_by_itself(app: Served) -> None:
    over = cloud_event(data={**PINGED, "x": "x" * MAX_ITEM_BYTES})
    answer = await (await app.post(b"[%b,%b]" % (over, cloud_event()), content_type=BATCH)).json()
    assert [(each["index"], each["pointer"]) for each in answer["rejected"]] == [(0, "")]


async def test_a_binary_event_is_its_headers_and_its_body(app: Served) -> None:
    response = await app.post(json.dumps(PINGED, indent=1).encode(), **HEADERS, ce_region="r")
    assert response.status == 202
    (message,) = await app.published()
    assert json.loads(message.body) == {
        "type": "health.pinged",
        "id": "a-1",
        "source": "/monitors/eu",
        "time": "2026-11-23T21:00:00Z",
        **PINGED,
        "cloudevent": {"specversion": "1.0", "datacontenttype": "application/json", "region": "r"},
    }


async def test_a_binary_event_may_have_no_body(app: Served) -> None:
    named = {**HEADERS, "ce_type": "activity.signed_up"}
    assert (await app.post(b"", **named)).status == 202
    await problem(await app.post(b"", **HEADERS), 422)


async def test_a_binary_event_of_another_json_type_is_json(app: Served) -> None:
    assert (
        await app.post(json.dumps(PINGED).encode(), **HEADERS, content_type="application/x+json")
    ).status == 202
    await problem(await app.post(b"<x/>", **HEADERS, content_type="application/xml"), 415)
    await problem(await app.post(b"{}", content_type="application/x+json"), 415)


@pytest.mark.parametrize(
    ("kind", "body"), [(STRUCTURED, cloud_event()), (BATCH, b"[" + cloud_event() + b"]")]
)
async def test_gzip_is_for_all(app: Served, kind: str, body: bytes) -> None:
    assert (await app.post(gzip.compress(body), content_type=kind, content_encoding="gzip")).status == 202
    binary = gzip.compress(json.dumps(PINGED).encode())
    assert (await app.post(binary, **HEADERS, content_encoding="gzip")).status == 202


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (STRUCTURED, b"nonsense", 400),
        (STRUCTURED, b"[]", 422),
        (STRUCTURED, without("id"), 422),
        (BATCH, b"nonsense", 400),
        (BATCH, cloud_event(), 400),
        (BATCH, b"[]", 422),
        (BATCH, b"[{}]", 422),
        (BATCH, b"[" + b",".join([b"{}"] * 1001) + b"]", 413),
        ("application/cloudevents+avro", cloud_event(), 415),
    ],
)
async def test_what_cannot_be_taken_is_a_problem(app: Served, kind: str, body: bytes, status: int) -> None:
    await problem(await app.post(body, content_type=kind), status)
    assert not await app.published()


async def test_a_health_key_sends_cloud_events_of_health_and_no_others(app: Served) -> None:
    other = cloud_event(type="activity.logged_in", data={})
    assert (await app.post(cloud_event(), key="health", content_type=STRUCTURED)).status == 202
    await problem(await app.post(other, key="health", content_type=STRUCTURED), 403)


async def test_a_batch_that_outgrows_a_message_is_413(app: Served) -> None:
    data = {"category": "user_activity", "type": "login", "note": "x" * 880}
    item = json.dumps(json.loads(cloud_event(type="x", data=data)), separators=(",", ":")).encode()
    body = b"[" + b",".join([item] * 1000) + b"]"
    assert 1_000_000 < len(body) <= 1 << 20
    await problem(await app.post(body, content_type=BATCH), 413)
    assert not await app.published()
