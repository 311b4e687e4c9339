"""Lines of an access log are told from what is none, and clients are told apart."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitors.access_log import COMBINED, Counted, Escape, LogFormat
from topology.errors import SettingsError

LINE = b'192.0.2.7 - - [24/Nov/2026:23:20:01 +0000] "GET / HTTP/1.1" 200 3 "-" "curl/7.88.1"'
JSON = r"""
log_format logger-json escape=json '{"time": "$time_iso8601", "client":"$remote_addr",'
    '"agent":"$http_user_agent", "status":$status, "took": $request_time}';
"""
FORWARDED = (
    'log_format main "$http_x_forwarded_for - $scheme://$host$request_uri [$time_local] \\"$request\\"";'
)
#: With `log_format own $request_uri`, in which everything is any text.
ANYTHING = "$http_cookie $remote_addr $request_uri$is_args"
FORMATS = [
    LogFormat.of("combined"),
    LogFormat.of(JSON),
    LogFormat.of(FORWARDED, client="http_x_forwarded_for"),
    LogFormat.of(ANYTHING),
    LogFormat('"$request" $remote_addr', escape="none"),
]


@pytest.mark.parametrize(
    ("log_format", "line", "client"),
    [
        ("combined", LINE, b"192.0.2.7"),
        ("combined", LINE.replace(b"192.0.2.7", b"2001:db8::7"), b"2001:db8::7"),
        # A user's name may look like what stands behind it.
        ("combined", LINE.replace(b" - - [", b" - a [b] [ - ["), b"192.0.2.7"),
        ("combined", LINE.replace(b"GET / HTTP/1.1", rb"\x16\x03\x01 \x22"), b"192.0.2.7"),
        ("combined", LINE.replace(b'"GET / HTTP/1.1" 200', b'"" 400'), b"192.0.2.7"),
        (COMBINED, LINE, b"192.0.2.7"),
        ("combined", b"", None),
        ("combined", LINE[:-1], None),
        ("combined", LINE[1:-30], None),
        ("combined", LINE + b" more", None),
        ("combined", LINE.replace(b"192.0.2.7", b"client.example"), None),
        ("combined", LINE.replace(b" 200 ", b" 2000 "), None),
        ("combined", LINE + b"\0", None),
        # Two lines that were written into one another.
        ("combined", LINE[:60] + LINE, None),
        (
            JSON,
            b'{"time": "2026-11-24T23:20:01+00:00", "client":"::1","agent":"\\", \\"", "status":404, "took": 0.002}',
            b"::1",
        ),
        (
            JSON,
            b'{"time": "2026-11-24T23:20:01+00:00", "client":"::1","agent":"a\\\\", "status":404, "took": 0.002}',
            b"::1",
        ),
        (
            JSON,
            b'{"time": "2026-11-24T23:20:01+00:00", "client":"::1","agent":"a\\", "status":404, "took": 0.002}',
            None,
        ),
    ],
)
def test_a_line_of_the_format_tells_its_client_and_another_is_none(
    log_format: str, line: bytes, client: bytes | None
) -> None:
    assert LogFormat.of(log_format).client(line) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [(b"203.0.113.5, 10.0.0.1", b"203.0.113.5"), (b"203.0.113.5", b"203.0.113.5"), (b"-", b""), (b"", b"")],
)
def test_behind_a_proxy_the_client_is_the_first_of_the_forwarded(forwarded: bytes, client: bytes) -> None:
    line = (
        forwarded
        + b' - http://clowder.example/files?a=1 [24/Nov/2026:23:20:01 +0000] "GET /files?a=1 HTTP/1.1"'
    )
    assert LogFormat.of(FORWARDED, client="http_x_forwarded_for").client(line) == client


@pytest.mark.parametrize(
    ("text", "client", "says"),
    [
        ("$status $request", "remote_addr", "has no $remote_addr"),
        ("combined", "http_x_forwarded_for", "has no $http_x_forwarded_for"),
        ("$http_x_forwarded_for$request $status", "http_x_forwarded_for", "nothing separates"),
        ("log_format main;", "remote_addr", "not of the form"),
        ("log_format main '$remote_addr", "remote_addr", "not of the form"),
        ("log_format main escape=html '$remote_addr';", "remote_addr", "no escape=html"),
    ],
)
def test_a_format_that_cannot_be_read_says_what_is_wrong(text: str, client: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says.replace("$", r"\$")):
        LogFormat.of(text, client=client)


@given(line=st.binary(max_size=300), number=st.integers(0, len(FORMATS) - 1))
@example(line=LINE, number=0)
@example(line=b"192.0.2.7 - \xff\x00 [", number=0)
def test_any_bytes_are_a_line_or_none(line: bytes, number: int) -> None:
    client = FORMATS[number].client(line)
    assert client is None or client in line


_VALUES = st.text(
    st.characters(codec="ascii", exclude_characters='"\\\n', exclude_categories=["Cc"]), max_size=40
)


@given(user=_VALUES, request=_VALUES, referer=_VALUES, agent=_VALUES, status=st.integers(100, 999))
def test_whatever_a_client_sends_its_line_is_read(
    user: str, request: str, referer: str, agent: str, status: int
) -> None:
    line = f'192.0.2.7 - {user} [24/Nov/2026:23:20:01 +0000] "{request}" {status} 0 "{referer}" "{agent}"'.encode()
    assert FORMATS[0].client(line) == b"192.0.2.7"


@pytest.mark.parametrize("escape", ["default", "json", "none"])
def test_no_line_costs_more_than_its_length(escape: Escape) -> None:
    log_format = LogFormat(COMBINED, escape=escape)
    half = b"192.0.2.7 - - [24/Nov/2026:23:20:01 +0000] "
    began = time.process_time()
    for part in (b" [", b'"', b'\\"', b"\\", half, half + b'"', LINE[:-1], b"1 " * 20):
        line = b"192.0.2.7 - " + part * (200_000 // len(part))
        assert log_format.client(line) is None
    # Of 1.6 MB; were the time the square of the length, it would be hours.
    assert time.process_time() - began < 5


def test_clients_are_exact_to_1000_and_within_3_percent_beyond() -> None:
    counted, few = Counted(), Counted()
    log_format = LogFormat.of("$remote_addr")
    for thousand in range(20):
        lines = [f"10.0.{thousand}.{n % 250}.{n // 250}".encode() for n in range(1000)]
        for half in (lines[:500], lines[500:], lines[:100]):
            counted.add(log_format, half)
        if thousand == 0:
            few.merge(counted)
            assert few.clients == 1000
    assert counted.requests == 20 * 1100
    assert counted.clients == pytest.approx(20_000, rel=0.03)
    counted.merge(few)
    assert counted.clients == pytest.approx(20_000, rel=0.03)


def test_a_request_without_a_client_counts_and_a_line_that_is_none_is_counted_apart() -> None:
    counted = Counted()
    counted.add(LogFormat.of('$http_x_forwarded_for "$request"', client="http_x_forwarded_for"), [
        b'- "GET / HTTP/1.1"',
        b'192.0.2.7 "GET / HTTP/1.1"',
        b"garbage",
        b"",
    ])  # fmt: skip
    assert (counted.requests, counted.clients, counted.unreadable) == (2, 1, 2)
