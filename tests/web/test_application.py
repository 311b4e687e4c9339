"""What holds for every answer: problems for errors, headers, the probes, and a log without secrets."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import string
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli import logs
from tests.web.serving import PING, UPLOAD, Served, problem, served
from web import probes
from web.problems import PROBLEM_JSON

EVERYWHERE = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/rollups",
    "/v1/events",
    "/no/such",
    "/v1/rollups/x",
]


async def test_an_unknown_address_is_404(app: Served) -> None:
    await problem(await app.get("/no/such"), 404)
    await problem(await app.get("/v1/events/"), 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method_is_405_that_names_the_right_ones(app: Served, method: str) -> None:
    response = await app.client.request(method, "/v1/events")
    await problem(response, 405)
    assert response.headers["Allow"] == "GET, HEAD, POST"


async def test_a_fault_of_ours_is_500_without_its_particulars(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path, clock=lambda: 1 // 0) as app:
        answer = await problem(await app.post(UPLOAD), 500)
        assert "division" not in json.dumps(answer)
        assert app.counted(500) == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert app.secrets["events"] not in caplog.text


@pytest.mark.parametrize("path", EVERYWHERE)
async def test_every_answer_has_the_security_headers(app: Served, path: str) -> None:
    headers = (await app.get(path)).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "eventsink"
    assert "Access-Control-Allow-Origin" not in headers


async def test_head_is_answered_like_get(app: Served) -> None:
    for path in ("/", "/healthz", "/v1/rollups", "/v1/events"):
        response = await app.client.head(path)
        assert response.status == 200
        assert await response.read() == b""


# -- probes --


async def test_alive_and_ready_need_no_key(tmp_path: Path) -> None:
    async with served(tmp_path, loopback=False) as app:
        assert await (await app.get("/healthz")).text() == "healthy\n"
        assert await (await app.get("/readyz")).json() == {
            "ready": True,
            "dependencies": {"log": "ok"},
            "spooling": None,
        }
        assert (await app.get("/metrics")).status == 200


async def test_who_asks_while_it_is_being_asked_waits_for_that_answer(tmp_path: Path) -> None:
    # Anybody may ask, and each look costs the disk a sync and the broker a channel.
    asked, answer = 0, asyncio.Event()

    async def ready() -> dict[str, str | None]:
        nonlocal asked
        asked += 1
        await answer.wait()
        return {"log": None}

    async with served(tmp_path, ready=ready) as app:
        asking = [asyncio.create_task(app.get("/readyz")) for _ in range(20)]
        while asked == 0:
            await asyncio.sleep(0)
        assert (await app.get("/healthz")).status == 200
        answer.set()
        assert {(await each).status for each in asking} == {200}
        assert asked < len(asking)
        assert (await app.get("/readyz")).status == 200
        assert asked >= 2  # anew, when nobody asks


async def test_not_ready_is_503_that_names_the_dependency(app: Served) -> None:
    app.wrong = {"log": "the broker does not answer", "archive": None}
    response = await app.get("/readyz")
    answer = await problem(response, 503)
    assert answer["dependencies"] == {"log": "the broker does not answer", "archive": "ok"}
    assert "log: the broker does not answer" in answer["detail"]
    assert (await app.get("/healthz")).status == 200


async def test_an_agent_that_was_stopped_is_told_of_and_keeps_no_event_out(tmp_path: Path) -> None:
    async with served(tmp_path, spared=lambda: {"amplitude"}) as app:
        app.wrong = {"log": None, "amplitude": "wrong key"}
        response = await app.get("/readyz")
        assert response.status == 200
        assert (await response.json())["dependencies"] == {"log": "ok", "amplitude": "wrong key"}
        shown = (await (await app.get("/v1/overview")).json())["ready"]
        assert shown == {"accepting": True, "wrong": {"amplitude": "wrong key"}}
        app.wrong = {"log": "away", "amplitude": "wrong key"}
        answer = await problem(await app.get("/readyz"), 503)
        assert "amplitude" not in answer["detail"]
        assert answer["dependencies"] == {"log": "away", "amplitude": "wrong key"}


async def test_metrics_are_prometheus_text(app: Served) -> None:
    await app.post(PING)
    response = await app.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'eventsink_ingest_requests_total{code="202"} 1.0' in await response.text()


async def test_a_worker_serves_the_probes_alone(app: Served) -> None:
    async def ready() -> dict[str, str | None]:
        return {"rollups": "behind"}

    worker = web.Application()
    worker.add_routes(probes.routes(ready, app.registry))
    async with TestClient(TestServer(worker)) as client:
        assert (await client.get("/healthz")).status == 200
        await problem(await client.get("/readyz"), 503)
        assert (await client.get("/metrics")).status == 200


# -- the log of requests --


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "web.access"]


async def test_of_routine_requests_only_the_turns_are_logged(
    app: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for key in ("events", "none", "none", "none", "events", "events"):
        await app.post(UPLOAD, key=key)
    assert lines(caplog) == ["POST /v1/events 401", "POST /v1/events 202"]


async def test_a_terminal_is_told_of_refusals_and_a_file_of_all_answers(app: Served) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    said: dict[str, list[str]] = {}
    try:
        for stream in (Terminal(), io.StringIO()):
            logs.configure("text", stream)
            for path in ("/openapi.json", "/nothing-here"):
                await app.get(path)
            said[type(stream).__name__] = [
                re.sub(r"^\S+ ", "", line).partition(" remote")[0] for line in stream.getvalue().splitlines()
            ]
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
    assert said == {
        "Terminal": ["INFO    web.access: GET /nothing-here 404"],
        "StringIO": [
            "INFO    web.access.answered: GET /openapi.json 200",
            "INFO    web.access: GET /nothing-here 404",
        ],
    }


async def test_a_request_has_one_name_in_the_log_and_in_the_answer(
    app: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [await app.get("/readyz"), await app.get("/nothing-here"), await app.post(UPLOAD)]
    named = [answer.headers["X-Request-ID"] for answer in answers]
    logged = [record.__dict__["request"] for record in caplog.records if record.name.startswith("web.access")]
    assert named == logged
    assert len(set(named)) == 3


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("4bf92f35-77b3-4da6", True),
        ("short", False),
        ("has spaces in it", False),
        ("x" * 65, False),
        ("es_looks-like-a-key", False),
    ],
)
async def test_a_clients_own_name_is_kept_where_it_fits_into_a_log(
    app: Served, given: str, kept: bool
) -> None:
    answer = await app.client.get("/readyz", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) is kept


async def test_a_fault_of_ours_is_logged_with_the_name_of_its_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path, clock=lambda: 1 // 0) as app:
        answer = await app.post(UPLOAD)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.__dict__["request"] == answer.headers["X-Request-ID"]


async def test_the_log_of_requests_holds_no_secret(app: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = app.secrets["events"]
    await app.post(UPLOAD)
    await app.get(f"/v1/events?key={secret}")
    await app.get(f"/{secret}")
    await app.get("/line%0Abreak")
    ours = [record for record in caplog.records if record.name.startswith("web")]
    lines = [record.getMessage() for record in ours]
    assert lines == [
        "POST /v1/events 202",
        "GET /v1/events 400",
        "GET /es_*** 404",
        "GET /line%0Abreak 404",
    ]
    assert [record.levelname for record in ours] == ["DEBUG", "INFO", "INFO", "INFO"]
    assert secret not in "".join(lines)


# -- whatever comes in --

TOKEN = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=20)
VALUE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_characters="\x7f"), max_size=60
).map(str.strip)
KNOWN = st.sampled_from(
    [
        "Content-Type",
        "Content-Encoding",
        "Expect",
        "Authorization",
        "API-KEY",
        "Accept",
        "Cookie",
        "Origin",
        "Range",
    ]
)
BODIES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([UPLOAD, PING, b"[]", b"[" + UPLOAD + b"]", b"{}", b"[1,NaN]", b'{"type":"\\ud800"}']),
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["type", "time", "bytes", "category", "created"]) | st.text(max_size=9), inner
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)
KINDS = st.sampled_from(["application/json", "application/x-ndjson", "text/plain", ""])


async def exchange(app: Served, request: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer to a request written by hand."""
    reader, writer = await asyncio.open_connection(app.client.host, app.client.port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), head, await reader.readexactly(size)
    finally:
        writer.close()
        await writer.wait_closed()


def check_answer(status: int, head: bytes, body: bytes) -> None:
    assert status < 500, body
    if status >= 400:
        assert PROBLEM_JSON.encode() in head, (head, body)
        document = json.loads(body)
        assert document["status"] == status
        assert document["detail"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=BODIES,
    kind=KINDS,
    headers=st.dictionaries(KNOWN | TOKEN, VALUE, max_size=4),
)
async def test_no_body_and_no_header_makes_us_fail(
    app: Served, body: bytes, kind: str, headers: dict[str, str]
) -> None:
    framing = {"content-length", "transfer-encoding", "connection", "host", "upgrade", "content-type"}
    lines = [f"{name}: {value}" for name, value in headers.items() if name.lower() not in framing]
    request = "\r\n".join(
        [
            "POST /v1/events HTTP/1.1",
            "Host: localhost",
            f"X-API-Key: {app.secrets['events']}",
            f"Content-Length: {len(body)}",
            *([f"Content-Type: {kind}"] if kind else []),
            *lines,
            "",
            "",
        ]
    ).encode("latin-1")
    check_answer(*await exchange(app, request + body))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(
        ["/", "/v1/rollups/", "/v1/rollups/space_storage", "/v1/events", "/v1/rollups", "/x"]
    ),
    name=st.sampled_from(["since", "until", "type", "cursor", "limit", "space_id", "window", "format"]),
    value=st.binary(max_size=30),
)
async def test_no_address_makes_us_fail(app: Served, path: str, name: str, value: bytes) -> None:
    written = "".join(f"%{byte:02x}" for byte in value)
    for target in (f"{path}?{name}={written}", f"{path}{written}"):
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        check_answer(*await exchange(app, request))


@pytest.mark.parametrize(
    "line", [b"GET /v1/events?type=\xff HTTP/1.1", b"NONSENSE / HTTP/1.1", b"\x16\x03\x01", b"GET / HTTP/9.9"]
)
async def test_what_is_no_http_is_a_problem_like_any_other_and_fills_no_log(
    app: Served, caplog: pytest.LogCaptureFixture, line: bytes
) -> None:
    status, head, body = await exchange(app, line + b"\r\nHost: localhost\r\n\r\n")
    assert status in {400, 405}
    check_answer(status, head, body)
    assert b"Server: eventsink" in head
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("expectation", [b"a-miracle", b"\x80", b"100-continue, more"])
@pytest.mark.parametrize("line", [b"GET /healthz", b"GET /no/such", b"POST /v1/events", b"PUT /"])
async def test_an_expectation_that_nobody_knows_is_417_everywhere(
    app: Served, line: bytes, expectation: bytes
) -> None:
    request = line + b" HTTP/1.1\r\nHost: localhost\r\nExpect: " + expectation + b"\r\n\r\n"
    status, head, body = await exchange(app, request)
    assert status == 417
    check_answer(status, head, body)


async def test_a_body_that_is_not_framed_as_http_says_is_refused(app: Served) -> None:
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAPI-KEY: {app.secrets['events']}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    reader, writer = await asyncio.open_connection(app.client.host, app.client.port)
    writer.write(head.encode())
    assert b" 400 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert not await app.published()


async def test_a_client_that_leaves_in_the_middle_costs_nothing(
    app: Served, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection(app.client.host, app.client.port)
    writer.write(
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAPI-KEY: {app.secrets['events']}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await app.post(UPLOAD)).status == 202
    assert len(await app.published()) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    del reader
