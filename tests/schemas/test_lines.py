"""Messages of several events: read at once they are what each line is by itself."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import LoggedIn
from schemas.reading import MAX_BODY_BYTES, Refusal, read, read_lines, split

LOGIN = b'{"type":"activity.logged_in","time":1795467600000,"user_id":"u"}'
CLOWDER = b'{"category":"user_activity","type":"login","user_id":"u","created":1795467600000}'

PYCLOWDER = b'{"file_id":"f","extractor_id":"e","status":"Done"}'

PIECES = [
    LOGIN,
    PYCLOWDER,
    b'{"type":"activity.logged_in","time":"2026-11-23T21:00:00Z","id":"","user_id":""}',
    b'{"type":"activity.logged_in","time":"2026-02-30T21:00:00Z"}',
    b'{"type":"storage.file_uploaded","file_id":null,"dataset_id":null,"bytes":-1}',
    b'{"type":"nothing.known"}',
    CLOWDER,
    b'{"type":"login","user_id":"u"}',
    b'{"type":"activity.logged_in","user_id":"\xe9"}',
    b"\xef\xbb\xbf" + LOGIN,
    b'{"type":',
    b'"activity.logged_in"}',
    b'"x":{}}',
    b'"x":"',
    b'"}',
    b"{}",
    b"[]",
    b"7",
    b"[" * 2000,
    b" ",
    b"\t",
    b"\r",
    b"\x0b",
    b"\x0c",
    b"\x00",
    b"",
]


def one_by_one(body: bytes) -> list[tuple[bytes, object]]:
    return [(line, read(line)) for line in split(body)]


@given(st.lists(st.sampled_from([*PIECES, b"\n", b"\n", b"\n"]), max_size=12).map(b"".join))
def test_lines_read_at_once_are_what_each_is_by_itself(body: bytes) -> None:
    assert read_lines(body) == one_by_one(body)


@given(st.lists(st.sampled_from([LOGIN, *PIECES[:3], b"", b" ", b"\r"]), max_size=12).map(b"\n".join))
def test_canonical_lines_too(body: bytes) -> None:
    assert read_lines(body) == one_by_one(body)


@pytest.mark.parametrize(
    "body",
    [
        LOGIN + LOGIN,  # two on one line
        LOGIN + b" " + LOGIN + b'\n{"type":\n"activity.logged_in"}',  # as many values as lines
        LOGIN.replace(b",", b",\n") + b"\n" + LOGIN + LOGIN,
        LOGIN + b"\r" + LOGIN,
        LOGIN + b" " + LOGIN + b'\n{"type":"activity.logged_in","user_id":"}\n{"}',
        LOGIN + b" " + LOGIN + b'\n{"type":"activity.logged_in","user_id":{}\n}',
        LOGIN + b" " + LOGIN + b'\n{"type":"activity.logged_in","x":\n{}}',
        LOGIN + b" " + LOGIN + b'\n{"type":"activity.logged_in","x":[{}\n,{}]}',
    ],
)
def test_a_value_that_is_not_one_line_is_refused_line_by_line(body: bytes) -> None:
    results = read_lines(body)
    assert results == one_by_one(body)
    assert any(isinstance(result, Refusal) for _, result in results)


def test_a_body_larger_than_an_event_may_be_holds_events_that_are_not() -> None:
    body = b"\n".join([LOGIN] * (MAX_BODY_BYTES // len(LOGIN) + 2))
    assert len(body) > MAX_BODY_BYTES
    assert {type(event) for _, event in read_lines(body)} == {LoggedIn}


def test_one_bad_line_spoils_no_other() -> None:
    results = [result for _, result in read_lines(LOGIN + b"\nnonsense\n" + LOGIN)]
    assert [isinstance(result, Refusal) for result in results] == [False, True, False]
    assert msgspec.json.encode(results[0]) == msgspec.json.encode(results[2])
