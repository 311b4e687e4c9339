from __future__ import annotations

import io
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cli.lines import Line, blocks


def lines(content: bytes, longest_bytes: int = 100) -> list[Line]:
    return [
        line for block in blocks(io.BytesIO(content), longest_bytes=longest_bytes) for line in block.lines
    ]


def test_lines_are_numbered_from_one_blank_ones_included() -> None:
    assert lines(b"a\n\n b\r\nlast") == [Line(1, b"a"), Line(2, b""), Line(3, b" b\r"), Line(4, b"last")]
    assert lines(b"") == []


def test_a_line_over_the_limit_is_named_and_those_around_it_are_kept() -> None:
    content = b"a\n" + b"x" * 3_000_000 + b"\nb\n" + b"y" * 11
    assert lines(content, 10) == [Line(1, b"a"), Line(2, None), Line(3, b"b"), Line(4, None)]
    assert lines(b"z" * 10 + b"\n", 10) == [Line(1, b"z" * 10)]


@given(st.lists(st.binary(max_size=30).map(lambda body: body.replace(b"\n", b"")), max_size=20))
def test_every_byte_of_every_line_is_kept(bodies: list[bytes]) -> None:
    content = b"".join(body + b"\n" for body in bodies)
    assert [line.body for line in lines(content)] == bodies


def test_what_a_pipe_holds_is_handed_on_before_more_comes() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        found = blocks(stream, longest_bytes=100)
        pipe.write(b"one\ntw")
        assert next(found).lines == [Line(1, b"one")]
        pipe.write(b"o\n")
        assert next(found).lines == [Line(2, b"two")]


def test_the_end_of_a_block_is_counted_in_bytes_of_the_source(tmp_path: Path) -> None:
    file = tmp_path / "events"
    file.write_bytes(b"aa\nbb\ncc")
    with file.open("rb", buffering=0) as stream:
        assert [block.end for block in blocks(stream, longest_bytes=10)] == [8, 8]
