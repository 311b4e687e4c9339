"""Lines of a file or pipe, in blocks as they come: what is there is handed on, nothing waits for more."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

BLOCK_BYTES = 1 << 20


class Line(NamedTuple):
    """``number`` counts from 1, blank lines included. ``body`` is without the newline, and None if it
    would be longer than the limit."""

    number: int
    body: bytes | None


class Block(NamedTuple):
    """What one read brought: whole lines, and up to which byte of the source they reach."""

    lines: list[Line]
    end: int


def blocks(stream: BinaryIO, *, longest_bytes: int) -> Iterator[Block]:
    """All lines of the stream in order. Never holds more than one block and one line."""
    read = _reader(stream)
    number = end = 0
    rest = b""
    overlong = False
    while data := read(BLOCK_BYTES):
        end += len(data)
        bodies = (rest + data).split(b"\n")
        rest = bodies.pop()
        lines: list[Line] = []
        for body in bodies:
            number += 1
            lines.append(Line(number, None if overlong or len(body) > longest_bytes else body))
            overlong = False
        if len(rest) > longest_bytes:
            rest, overlong = b"", True
        yield Block(lines, end)
    if rest or overlong:
        yield Block([Line(number + 1, None if overlong else rest)], end)


def _reader(stream: BinaryIO) -> Callable[[int], bytes]:
    # The descriptor itself where there is one: a thread that waits in a buffered reader holds a lock
    # that the interpreter wants when it ends, so Ctrl-C would hang.
    try:
        descriptor = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return stream.read1 if isinstance(stream, io.BufferedReader | io.BytesIO) else stream.read
    return lambda size: os.read(descriptor, size)
