"""Bytes over a raw socket: whatever comes in, every answer is what the OpenAPI document says, and nothing fails inside.

Requests are made from pieces that are right, pieces that are nearly right, and noise: content types, encodings, gzip
that is whole, cut or a bomb, chunks, lengths that lie, headers that repeat.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import select
import socket
import string
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import ROLLUPS
from tests.web.in_a_thread import Target, served_in_a_thread
from tests.web.serving import PING, UPLOAD
from web.openapi import document

#: Several times what a property test has: a case costs a millisecond or two. `make fuzz` runs over 20 000 of them.
EXAMPLES = settings().max_examples * 4
ANSWERS_WITHIN_S = 60.0
ANSWERS_SOON_S = 0.02

DOCUMENT = document(ROLLUPS, loopback=True)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with served_in_a_thread(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_fails_inside(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- answers --


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


def asked(target: Target, request: bytes) -> Answer:
    """The answer to the bytes. Interim answers are read over."""
    with socket.create_connection((target.host, target.port), timeout=ANSWERS_WITHIN_S) as connection:
        try:
            connection.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before all was sent: the answer is there
        received = b""
        while True:
            try:
                chunk = connection.recv(1 << 16)
            except ConnectionResetError:
                break
            received += chunk
            if not chunk or (answer := _whole(received)) is not None:
                break
    answer = _whole(received)
    assert answer is not None, received
    return answer


def _whole(received: bytes) -> Answer | None:
    """The first answer in it that is no interim one, None while it is not all there."""
    while received.startswith(b"HTTP/1.1 100"):
        received = received.partition(b"\r\n\r\n")[2]
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return None
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    size = int(headers["content-length"])
    return Answer(int(line.split()[1]), headers, body[:size]) if len(body) >= size else None


def _validators() -> dict[tuple[str, str, str, str], Any]:
    """By path, method, status and content type."""
    return {
        (path, method, status, kind): jsonschema_rs.validator_for(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **_inlined(content["schema"])}
        )
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
        for status, answer in operation["responses"].items()
        for kind, content in answer.get("content", {}).items()
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": DOCUMENT["components"]}


VALIDATORS = _validators()
ANY_PROBLEM = jsonschema_rs.validator_for(_inlined({"$ref": "#/components/schemas/Problem"}))


def check(answer: Answer, path: str | None, method: str) -> None:
    """Hold an answer against the document: that of its route, or where there is none, a problem."""
    assert answer.status < 500, answer
    assert answer.headers["server"] == "eventsink"
    assert answer.headers["x-content-type-options"] == "nosniff"
    kind = answer.headers["content-type"].partition(";")[0]
    described = VALIDATORS.get((path or "", method, str(answer.status), kind))
    if described is not None:
        content = json.loads(answer.body) if kind.endswith("json") else answer.body.decode()
        assert described.is_valid(content), (answer, list(described.iter_errors(content)))
        return
    # What is no route, no method of it, or no HTTP.
    assert answer.status in {400, 404, 405, 417, 431}, answer
    assert kind == "application/problem+json", answer
    assert ANY_PROBLEM.is_valid(json.loads(answer.body)), answer


# -- requests --

JUNK = st.binary(max_size=200)
JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["storage.file_uploaded", "health.pinged", "upload", "1.0"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "time",
                    "id",
                    "source",
                    "bytes",
                    "file_id",
                    "category",
                    "created",
                    "extractor_id",
                    "status",
                    "data",
                    "data_base64",
                    "specversion",
                    "measurement",
                    "values",
                    "ping_status",
                ]
            )
            | st.text(max_size=9),
            inner,
            max_size=6,
        )
    ),
    max_leaves=15,
).map(lambda value: json.dumps(value).encode())
EVENT = st.sampled_from([UPLOAD, PING, b'{"type":"activity.logged_in"}'])
CLOUDEVENT = b'{"specversion":"1.0","id":"1","source":"s","type":"activity.logged_in","data":{}}'
MANGLED = st.builds(
    lambda event, at, noise, kept: event[: at % len(event)] + noise + event[at % len(event) + kept :],
    EVENT | st.just(CLOUDEVENT),
    st.integers(0, 200),
    st.binary(max_size=6),
    st.integers(0, 3),
)
ITEM = st.one_of(EVENT, st.just(CLOUDEVENT), JSONS, MANGLED)
BODY = st.one_of(
    ITEM,
    JUNK,
    st.lists(ITEM, max_size=5).map(b"\n".join),
    st.lists(ITEM, max_size=5).map(lambda items: b"[" + b",".join(items) + b"]"),
    st.sampled_from(
        [
            b"",
            b"[" * 5000,
            b'{"a":' * 3000,
            b"[" + b"1," * 2000 + b"1]",
            UPLOAD[:-1] + b',"x":"' + b"y" * 70_000 + b'"}',
            b" " * (1 << 20) + UPLOAD,
            b"\xef\xbb\xbf" + UPLOAD,
            b'{"type":"\\ud800"}',
            b"[1e999999,-0,NaN,Infinity]",
        ]
    ),
)


def _cut(packed: bytes) -> bytes:
    return packed[: len(packed) // 2]


PACKING = st.sampled_from(
    [
        ("", lambda body: body),
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", lambda body: gzip.compress(body) * 3),
        ("gzip", lambda body: _cut(gzip.compress(body))),
        ("gzip", lambda body: gzip.compress(body) + b"tail"),
        ("gzip", lambda body: body),
        ("gzip", lambda body: gzip.compress(b" " * (2 << 20) + body)),
        ("gzip", lambda body: zlib.compress(body)),
        ("gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
        ("identity", lambda body: body),
        ("deflate", lambda body: zlib.compress(body)),
        ("br", lambda body: body),
    ]
)
KINDS = st.sampled_from(
    [
        None,
        "application/json",
        "application/json; charset=latin-1",
        "APPLICATION/JSON",
        "application/x-ndjson",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/cloudevents+xml",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "json",
        ";",
        "application/json, text/html",
    ]
)
TOKEN = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=20)
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
NAMES = TOKEN | st.sampled_from(
    [
        "Expect",
        "Accept",
        "Cookie",
        "Origin",
        "Range",
        "If-None-Match",
        "Idempotency-Key",
        "Accept-Encoding",
        "ce-specversion",
        "ce-id",
        "ce-source",
        "ce-type",
        "ce-time",
        "ce-extra",
        "X-Forwarded-For",
        "Forwarded",
        "Content-MD5",
        "Authorization",
        "API-KEY",
        "Referer",
        "TE",
        "Via",
        "Host",
        "Content-Encoding",
    ]
)
#: Those decide where a request ends; lies about that are a strategy of their own.
FRAMING = {"content-length", "transfer-encoding", "connection", "upgrade", "content-type"}
HEADERS = st.lists(
    st.tuples(NAMES, VALUE | st.sampled_from(["1.0", "100-continue", "gzip", "*/*", "health.pinged"])).filter(
        lambda header: header[0].lower() not in FRAMING
    ),
    max_size=5,
)
ROUTE = st.sampled_from(sorted(path for path, methods in DOCUMENT["paths"].items() if "post" in methods))


def head(target: Target, method: str, address: str, *headers: tuple[str, str]) -> bytes:
    lines = [f"{method} {address} HTTP/1.1", f"Host: {target.host}:{target.port}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


def some() -> settings:
    return settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))


def key(target: Target, path: str) -> tuple[str, str]:
    return "X-API-Key", target.secrets["health" if path == "/service" else "events"]


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@some()
@given(path=ROUTE, body=BODY, kind=KINDS, packing=PACKING, headers=HEADERS, chunk=st.integers(0, 70_000))
def test_no_body_no_encoding_and_no_header_makes_us_fail(
    target: Target,
    path: str,
    body: bytes,
    kind: str | None,
    packing: tuple[str, Any],
    headers: list[tuple[str, str]],
    chunk: int,
) -> None:
    encoding, pack = packing
    packed = pack(body)
    framing = ("Transfer-Encoding", "chunked") if chunk > 60 else ("Content-Length", str(len(packed)))
    request = head(
        target,
        "POST",
        path,
        key(target, path),
        framing,
        *([("Content-Type", kind)] if kind is not None else []),
        *([("Content-Encoding", encoding)] if encoding else []),
        *headers,
    )
    check(asked(target, request + (chunked(packed, chunk) if chunk > 60 else packed)), path, "post")


@some()
@given(
    path=st.sampled_from(sorted(DOCUMENT["paths"])),
    method=st.sampled_from(["get", "get", "get", "post", "put", "delete", "patch", "options"]) | TOKEN,
    name=st.sampled_from(["", *ROLLUPS]) | st.text(max_size=10),
    query=st.lists(
        st.tuples(
            st.sampled_from(["since", "until", "type", "cursor", "limit", "space_id", "window", "format"])
            | TOKEN,
            st.binary(max_size=30)
            | st.sampled_from([b"now", b"now-1h", b"1m", b"csv", b"10", b"-1", b"MC4w"]),
        ),
        max_size=4,
    ),
    headers=HEADERS,
)
def test_no_address_makes_us_fail(
    target: Target,
    path: str,
    method: str,
    name: str,
    query: list[tuple[str, bytes]],
    headers: list[tuple[str, str]],
) -> None:
    written = "&".join(f"{each}=" + "".join(f"%{byte:02x}" for byte in value) for each, value in query)
    address = path.replace("{name}", "".join(f"%{byte:02x}" for byte in name.encode(errors="replace")))
    answer = asked(target, head(target, method.upper(), f"{address}?{written}", *headers))
    check(answer, None if path != "/v1/rollups/{name}" and "{" in path else path, method.lower())


@some()
@given(
    start=st.sampled_from(
        [
            b"POST /v1/events HTTP/1.1",
            b"GET / HTTP/1.1",
            b"GET / HTTP/1.0",
            b"GET /",
            b"get / http/1.1",
            b"GET  / HTTP/1.1",
            b"GET /%zz HTTP/1.1",
            b"GET http://x:y/ HTTP/1.1",
            b"* * HTTP/1.1",
            b"\x16\x03\x01\x02",
        ]
    )
    | st.binary(min_size=1, max_size=60),
    lines=st.lists(
        st.sampled_from(
            [
                b"Host: localhost",
                b"Content-Length: 5",
                b"Content-Length: 7",
                b"Content-Length: -1",
                b"Content-Length: +5",
                b"Content-Length: 99999999999999999999",
                b"Content-Length: 5, 5",
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip, chunked",
                b"Transfer-Encoding: chunked, identity",
                b"Connection: close",
                b"Connection: upgrade",
                b"Upgrade: websocket",
                b"Upgrade: h2c",
                b"Expect: 100-continue",
                b"Content-Type: application/json",
                b"Name : value",
                b" folded",
                b"no colon",
                b"X: " + b"y" * 9000,
            ]
        )
        | st.binary(max_size=40),
        max_size=6,
    ),
    rest=st.sampled_from(
        [b"", b"{}   ", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffffff\r\n", b"\x00" * 9]
    )
    | st.binary(max_size=40),
)
def test_no_framing_makes_us_fail(target: Target, start: bytes, lines: list[bytes], rest: bytes) -> None:
    """A request may be none, and may be two: it is the first answer that is looked at, where there is one at all."""
    with socket.create_connection((target.host, target.port), timeout=ANSWERS_WITHIN_S) as connection:
        connection.sendall(b"\r\n".join([start, *lines, b"", b""]) + rest)
        received = b""
        try:
            # Where more of it would have to come, nobody answers until we say that there is none.
            select.select([connection], [], [], ANSWERS_SOON_S)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(1 << 16):
                received += chunk
        except OSError:
            pass  # closed by the other side while we spoke
    if not received:
        return  # not a whole request, and no more of it came: there is nobody to answer
    assert re.match(rb"HTTP/[0-9]\.[0-9] [1-4][0-9][0-9] ", received), received
    answer = _whole(received)
    if answer is not None and answer.status >= 400:
        assert answer.headers["content-type"] == "application/problem+json", answer
        assert ANY_PROBLEM.is_valid(json.loads(answer.body)), answer


def test_it_still_takes_events_after_all_of_that(target: Target) -> None:
    request = head(
        target,
        "POST",
        "/v1/events",
        key(target, "/v1/events"),
        ("Content-Length", str(len(UPLOAD))),
        ("Content-Type", "application/json"),
    )
    assert asked(target, request + UPLOAD).status == 202
