"""Bodies within bounds. Pitfall 33: gzip bombs; limits checked before inflating only."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web import bodies
from web.bodies import MAX_BODY_BYTES, MAX_ITEMS, inflated, is_json, items
from web.cloudevents import BATCH, STRUCTURED
from web.problems import Problem

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def status_of(call: Any, *args: Any) -> int:
    with pytest.raises(Problem) as caught:
        call(*args)
    return caught.value.status


@given(st.binary(max_size=2000))
def test_what_was_compressed_comes_out(content: bytes) -> None:
    assert inflated(gzip.compress(content)) == content


def test_members_one_after_the_other_are_one_stream() -> None:
    assert inflated(gzip.compress(b"[1,") + gzip.compress(b"2]")) == b"[1,2]"


def test_exactly_one_mebibyte_comes_out() -> None:
    content = bytes(MAX_BODY_BYTES)
    assert inflated(gzip.compress(content)) == content


def test_one_byte_more_is_refused() -> None:
    assert status_of(inflated, gzip.compress(bytes(MAX_BODY_BYTES + 1))) == 413


def test_a_bomb_is_refused_before_it_has_gone_off() -> None:
    deflater = zlib.compressobj(9, wbits=31)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(300)) + deflater.flush()
    assert len(bomb) < MAX_BODY_BYTES
    assert status_of(inflated, bomb) == 413


def test_a_bomb_of_many_members_is_refused() -> None:
    assert status_of(inflated, gzip.compress(bytes(600_000)) * 2) == 413
    assert status_of(inflated, gzip.compress(b"") * 40_000) == 400


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=300))
def test_a_stream_that_was_cut_anywhere_is_refused(cut: int, content: bytes) -> None:
    whole = gzip.compress(content)
    assert status_of(inflated, whole[: cut % len(whole)]) == 400


@given(st.binary(max_size=200))
def test_bytes_that_are_no_gzip_are_refused(garbage: bytes) -> None:
    if garbage[:2] != b"\x1f\x8b":
        assert status_of(inflated, garbage) == 400
    assert status_of(inflated, gzip.compress(b"{}") + b"x" + garbage) == 400


def test_a_wrong_checksum_is_refused() -> None:
    whole = bytearray(gzip.compress(b'{"type":"activity.logged_in"}'))
    whole[-8] ^= 1
    assert status_of(inflated, bytes(whole)) == 400


@given(st.lists(JSON_VALUES, max_size=5), st.sampled_from([None, 1]))
def test_items_of_an_array_mean_what_they_meant_and_take_one_line(
    values: list[Any], indent: int | None
) -> None:
    found = items(json.dumps(values, indent=indent).encode(), "application/json")
    assert [json.loads(item) for item in found] == values
    assert not any(b"\n" in item or b"\r" in item for item in found)


def test_numbers_of_an_item_keep_their_digits() -> None:
    body = b'[ {"a" : 1.10, "b": 12345678901234567890123, "c": 1e5}, "\\u00e9" ]'
    assert items(body, "application/json") == [
        b'{"a":1.10,"b":12345678901234567890123,"c":1e5}',
        b'"\\u00e9"',
    ]


def test_an_item_that_no_decoder_takes_does_not_spoil_the_others() -> None:
    body = b'[\n{"a":1} , {"b":"\\ud800"},NaN, {"c":\r\n2}\n]\n'
    assert items(body, "application/json") == [b'{"a":1}', b'{"b":"\\ud800"}', b"NaN", b'{"c":  2}']


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"[1",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1]x",
        b"[1]]",
        b'["\n"]',
        b"[tru]",
        b"[" * 100_000,
        b"[NaN,]",
        b"[NaN]1",
    ],
)
def test_an_array_that_is_no_json_is_refused_as_a_whole(body: bytes) -> None:
    assert status_of(items, body, "application/json") == 400


def test_items_in_latin_1_keep_their_bytes() -> None:
    assert items(b'[{"a":"\xe9"}]', "application/json") == [b'{"a":"\xe9"}']
    assert items(b'[{"a":"\xe9"},NaN]', "application/json") == [b'{"a":"\xe9"}', b"NaN"]


def test_blank_lines_are_no_items() -> None:
    assert items(b'\n{"a":1}\r\n  \n\n{"b":2}', "application/x-ndjson") == [b'{"a":1}', b'{"b":2}']


def test_one_object_keeps_its_bytes() -> None:
    body = b' {\n "a": 1\n}\n'
    assert items(body, "application/json") == [body]


def test_a_byte_order_mark_is_no_part_of_an_item() -> None:
    assert items(b"\xef\xbb\xbf[1]", "application/json") == [b"1"]
    assert items(b"\xef\xbb\xbf1\n2", "application/x-ndjson") == [b"1", b"2"]


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_a_thousand_items_are_enough(kind: str) -> None:
    def body(count: int, odd: bytes = b"1") -> bytes:
        values = [b"1"] * (count - 1) + [odd]
        return b"[" + b",".join(values) + b"]" if kind == "application/json" else b"\n".join(values)

    assert len(items(body(MAX_ITEMS), kind)) == MAX_ITEMS
    assert status_of(items, body(MAX_ITEMS + 1), kind) == 413
    assert status_of(items, body(MAX_ITEMS + 1, odd=b"NaN"), kind) == 413
    assert status_of(items, body(500_000), kind) == 413


def test_a_structured_cloud_event_is_one_item_and_a_batch_an_array_of_them() -> None:
    assert items(b"[1,2]", STRUCTURED) == [b"[1,2]"]
    assert items(b"[1,2]", BATCH) == [b"1", b"2"]
    assert status_of(items, b"{}", BATCH) == 400
    assert status_of(items, b"[" + b"1," * MAX_ITEMS + b"1]", BATCH) == 413


def test_a_body_has_ten_seconds() -> None:
    assert bodies.BODY_WITHIN_S == 10


@given(JSON_VALUES)
def test_json_is_told(value: Any) -> None:
    assert is_json(json.dumps(value).encode())


@pytest.mark.parametrize("body", [b"", b" ", b"{", b"nonsense", b"NaN", b"{'a':1}", b"\xff\xfe", b"{}{}"])
def test_what_is_no_json_is_told(body: bytes) -> None:
    assert not is_json(body)


def test_json_beyond_what_can_be_read_is_json() -> None:
    assert is_json(b'{"a":"\\ud800"}')
    assert is_json(b"9" * 10_000)
    assert is_json(b'{"a":"\xe9"}')
    assert is_json(b"[" * 50_000 + b"]" * 50_000)
