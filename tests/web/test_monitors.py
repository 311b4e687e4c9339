"""``POST /service``: each body of the existing monitors, as they send it, becomes the event that it means."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reading import Refusal, read
from tests.web.serving import NOW_MS, Served, problem
from tests.web.test_bodies import JSON_VALUES
from web.items import Taken
from web.monitors import read_report

PING_STATUS = (
    b'{"ping_status":{"healthy":true,"response_time":{"min":"0.045 ms","avg":"0.050 ms","max":"0.9 ms",'
    b'"loss":"0%"},"uptime":0.9993}}'
)
HOMEPAGE_STATUS = b'{"homepage_status":{"success":true,"bytes":18234}}'
PING = {"status": 0, "packets": 5, "unit": "ms", "min": 1.5, "avg": 2, "max": 3.5, "loss": 20.0}
UP = {"service": "clowder", "region": "unknown", "up": True}


def measurement(name: str, values: dict[str, Any], **tags: str) -> bytes:
    return json.dumps({"measurement": name, "tags": tags, "values": values}).encode()


def events(body: bytes) -> list[dict[str, Any]]:
    found = read_report(body)
    assert all(isinstance(item, Taken) and read(item.line) == item.event for item in found), found
    return [json.loads(item.line) for item in found if isinstance(item, Taken)]


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (
            PING_STATUS,
            {
                **UP,
                "type": "health.pinged",
                "check": "ping",
                "response_ms": {"min": 0.045, "avg": 0.05, "max": 0.9},
                "loss": 0.0,
            },
        ),
        (
            b'{"ping_status":{"healthy":false,"response_time":{"loss":"100%"},"uptime":0.5}}',
            {**UP, "type": "health.pinged", "up": False, "check": "ping", "loss": 1.0},
        ),
        (b'{"ping_status":{"healthy":false}}', {**UP, "type": "health.pinged", "up": False, "check": "ping"}),
        (HOMEPAGE_STATUS, {**UP, "type": "health.page_fetched", "bytes": 18234}),
        (
            b'{"homepage_status":{"success":false,"bytes":-1}}',
            {**UP, "type": "health.page_fetched", "up": False},
        ),
        (
            measurement("ping", PING, server="clowder.example.org"),
            {
                **UP,
                "type": "health.pinged",
                "service": "clowder.example.org",
                "check": "ping",
                "response_ms": {"min": 1.5, "avg": 2.0, "max": 3.5},
                "loss": 0.2,
            },
        ),
        (
            measurement("ping", {"status": 1, "packets": 5, "loss": 100}),
            {**UP, "type": "health.pinged", "up": False, "check": "ping", "loss": 1.0},
        ),
        # 300 µs are 0.3 ms
        (
            measurement("ping", {"status": 0, "unit": "us", "avg": 300}),
            {**UP, "type": "health.pinged", "check": "ping", "response_ms": {"avg": 0.3}},
        ),
        (measurement("healthz", {"healthy": 1}), {**UP, "type": "health.pinged", "check": "healthz"}),
        (
            measurement("healthz", {"healthy": 0}),
            {**UP, "type": "health.pinged", "up": False, "check": "healthz"},
        ),
        # 0.25 s are 250 ms
        (
            measurement("homepage", {"bytes": 18234, "time": 0.25, "speed": 0.58}),
            {**UP, "type": "health.page_fetched", "bytes": 18234, "elapsed_ms": 250.0},
        ),
        (
            measurement("download", {"bytes": 9, "time": 1.0, "speed": 1.0}, asset="pdf.js"),
            {**UP, "type": "health.page_fetched", "bytes": 9, "elapsed_ms": 1000.0, "asset": "pdf.js"},
        ),
        (
            measurement("download", {"bytes": 0, "time": 10.5, "speed": 0}),
            {**UP, "type": "health.page_fetched", "up": False, "elapsed_ms": 10500.0},
        ),
        (
            measurement("homepage", {"bytes": -1}),
            {**UP, "type": "health.page_fetched", "up": False},
        ),
    ],
)
def test_a_body_becomes_its_event(body: bytes, event: dict[str, Any]) -> None:
    assert events(body) == [event]


def test_linux_pings_that_the_monitor_could_not_parse_are_down_when_they_ended_so() -> None:
    # Pitfall 11: it finds no "round-trip" there and reports no loss.
    assert not events(measurement("ping", {"status": 1, "packets": 5, "loss": 0.0}))[0]["up"]


def test_both_reports_at_once_are_two_events() -> None:
    both = {**json.loads(PING_STATUS), **json.loads(HOMEPAGE_STATUS)}
    assert [each["type"] for each in events(json.dumps(both).encode())] == [
        "health.pinged",
        "health.page_fetched",
    ]


def test_tags_that_are_not_known_are_not_kept() -> None:
    # Pitfall 9: the API key of a probe's request headers written as a tag into the database.
    (event,) = events(measurement("healthz", {"healthy": 1}, **{"X-API-Key": "hidden"}))
    assert "hidden" not in json.dumps(event)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"{}", ""),
        (b"[]", ""),
        (b"3", ""),
        (b'{"ping_status":{}}', "/ping_status/healthy"),
        (b'{"ping_status":{"healthy":"perhaps"}}', "/ping_status/healthy"),
        (b'{"homepage_status":{"success":7}}', "/homepage_status/success"),
        (b'{"measurement":"speed","values":{}}', "/measurement"),
        (b'{"measurement":"ping"}', "/values"),
        (b'{"measurement":"ping","values":{}}', "/values/status"),
        (b'{"measurement":"healthz","values":{}}', "/values/healthy"),
        (b'{"measurement":"homepage","values":{"bytes":"x"}}', "/values/bytes"),
    ],
)
def test_what_is_wrong_is_pointed_at(body: bytes, pointer: str) -> None:
    (found,) = read_report(body)
    assert isinstance(found, Refusal)
    assert found.pointer == pointer


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | JSON_VALUES


@given(
    st.binary(max_size=60)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.builds(
        measurement,
        st.sampled_from(["ping", "healthz", "homepage", "download"]),
        st.dictionaries(
            st.sampled_from(["status", "loss", "unit", "min", "avg", "max", "healthy", "bytes", "time"]),
            SCALARS,
        ),
    )
)
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    for item in read_report(body):
        assert isinstance(item, Refusal) or read(item.line) == item.event


# -- over HTTP --


async def test_a_report_is_answered_202_and_placed_at_its_arrival(app: Served) -> None:
    response = await app.client.post(
        "/service",
        data=PING_STATUS,
        headers={"API-KEY": app.secrets["health"], "Content-Type": "application/json"},
    )
    assert response.status == 202
    assert await response.json() == {"accepted": 1, "rejected": [], "durable": "log"}
    (message,) = await app.published()
    assert message.received_ms == NOW_MS
    assert json.loads(message.body)["type"] == "health.pinged"
    assert app.counted(202) == 1


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
async def test_whatever_a_monitor_calls_its_body_it_is_read(app: Served, kind: str) -> None:
    assert (await app.post(HOMEPAGE_STATUS, key="health", path="/service", content_type=kind)).status == 202


async def test_reports_may_be_compressed(app: Served) -> None:
    body = gzip.compress(HOMEPAGE_STATUS)
    assert (await app.post(body, key="health", path="/service", content_encoding="gzip")).status == 202


async def test_only_a_key_with_the_scope_health_reports(app: Served) -> None:
    for key in ("events", "read"):
        await problem(await app.post(PING_STATUS, key=key, path="/service"), 403)
    await problem(await app.post(PING_STATUS, key=None, path="/service"), 401)
    assert not await app.published()


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"nonsense", 400), (b"", 400), (b"{}", 422), (b"[]", 422), (b" " * (1 << 20) + b"{}", 413)],
)
async def test_what_is_no_report_is_a_problem(app: Served, body: bytes, status: int) -> None:
    await problem(await app.post(body, key="health", path="/service"), status)
