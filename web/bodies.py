"""Bodies of requests, within bounds: received, inflated, taken apart into items."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import msgspec
from aiohttp import StreamReader, web

from schemas.reading import split
from topology.log import JSON, NDJSON
from web.cloudevents import BATCH, STRUCTURED, in_headers, is_json_type
from web.problems import RETRY_AFTER_S, Problem

#: Before and after inflating: a larger message would be a dead letter, and bombs end here.
MAX_BODY_BYTES = 1 << 20
MAX_ITEMS = 1000
#: A body that trickles in must not hold a connection for ever.
BODY_WITHIN_S = 10.0

#: Of all bodies together, as they came and inflated. What is made of them takes as much again for a moment, so this is
#: what a small machine can spare.
MAX_HELD_BYTES = 128 << 20

#: Each is a copy of what follows it, so an endless row of empty ones would be expensive.
_MAX_GZIP_MEMBERS = 64
_GZIP_WBITS = zlib.MAX_WBITS | 16

#: ``text/json`` and ``application/jsonl`` are what some clients call them.
_JSON_TYPES = frozenset({JSON, "text/json"})
_NDJSON_TYPES = frozenset({NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"})

_BLANKS = re.compile(r"[ \t\r\n]*")

Item = TypeVar("Item")

_items_of_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def check_headers(request: web.Request) -> None:
    """Raise the 413 or 415 ``Problem`` that the headers alone deserve, before a byte of the body is read."""
    if "Content-Type" in request.headers and not _is_known(request):
        raise Problem(
            415,
            f"the body must be {JSON}, {NDJSON} or a CloudEvent in JSON: say which in Content-Type",
            headers={"Accept": ", ".join((JSON, NDJSON, STRUCTURED, BATCH))},
        )
    check_size(request)


def check_size(request: web.Request) -> None:
    """As ``check_headers``, where it does not matter as what the body is announced."""
    _is_gzipped(request)
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise too_large()


class Room:
    """What the bodies of all requests may take at once, from their first byte until they are answered."""

    def __init__(self, max_bytes: int = MAX_HELD_BYTES) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place of one request; what it took is free when the request is answered."""
        place = Place(self)
        try:
            yield place
        finally:
            self.held_bytes -= place.size


class Place:
    """Of one request."""

    __slots__ = ("_room", "size")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.size = 0

    def take(self, size: int, *, arriving: bool = False) -> None:
        """Count so many bytes more. Raises a 503 ``Problem`` where there is no room: bodies that come slowly may have
        half of it, so that they keep nobody out whose body is there."""
        room = self._room
        self.size += size
        room.held_bytes += size
        if room.held_bytes > (room.max_bytes // 2 if arriving else room.max_bytes):
            raise Problem(
                503,
                "too much is being received at once: send it again a little later",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )


async def received(request: web.Request, place: Place) -> bytes:
    """The body, inflated. Raises a 400, 408, 413, 415 or 503 ``Problem``."""
    body = _there(request.content, place) or await _arriving(request, place)
    if not _is_gzipped(request):
        return body
    body = inflated(body)
    place.take(len(body))
    return body


def _there(content: StreamReader, place: Place) -> bytes | None:
    """The body, if all of it came together with the headers, as small ones do: then nobody waits, and no clock is
    set."""
    if not content.is_eof() or content.exception() is not None:
        return None
    body = content.read_nowait()
    if len(body) > MAX_BODY_BYTES:
        raise too_large()
    place.take(len(body))
    return body


async def _arriving(request: web.Request, place: Place) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise too_large()
                place.take(len(chunk), arriving=True)
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {BODY_WITHIN_S:.0f} s: send it again") from None
    return b"".join(chunks)


def inflated(body: bytes) -> bytes:
    """The content of a gzip stream. Its end is demanded: a stream that was cut would pass for a whole one."""
    parts: list[bytes] = []
    room = MAX_BODY_BYTES
    for _ in range(_MAX_GZIP_MEMBERS):
        inflater = zlib.decompressobj(_GZIP_WBITS)
        try:
            part = inflater.decompress(body, room + 1)
        except zlib.error:
            raise Problem(400, "the body is not the gzip that Content-Encoding announces") from None
        room -= len(part)
        if room < 0:
            raise too_large()
        if not inflater.eof:
            raise Problem(400, "the gzip stream breaks off: send it again")
        parts.append(part)
        body = inflater.unused_data
        if not body:
            return b"".join(parts)
    raise Problem(400, f"the gzip stream has more than {_MAX_GZIP_MEMBERS} members: compress it as one")


def items(body: bytes, content_type: str) -> list[bytes]:
    """What the body brings, each item in its bytes and, unless it is the whole body, in one line.

    Raises a ``Problem``: 400 if the whole is not JSON, 413 if there are too many. Items are not
    looked into: one that is no JSON is refused later, by itself.
    """
    if content_type == STRUCTURED:
        return [body]
    if content_type in _NDJSON_TYPES:
        found = split(body.removeprefix(codecs.BOM_UTF8))
    elif body.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        found = _array(body.removeprefix(codecs.BOM_UTF8))
    elif content_type == BATCH:
        raise Problem(400, "a batch of CloudEvents is a JSON array")
    else:
        found = [body]
    return _few(found)


def is_json(body: bytes) -> bool:
    """Whether a body that could not be read as an event is JSON at all. Nesting beyond measure counts as JSON."""
    try:
        json.loads(
            body.decode("utf-8-sig", "replace"), parse_int=str, parse_float=str, parse_constant=_no_json
        )
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _array(body: bytes) -> list[bytes]:
    try:
        # Not decoded and encoded again: numbers, escapes and repeated members stay what they were.
        return [msgspec.json.format(bytes(item), indent=-1) for item in _few(_items_of_array(body))]
    except (ValueError, RecursionError):
        return _array_leniently(body)


def _array_leniently(body: bytes) -> list[bytes]:
    """Items of an array that msgspec refuses as a whole because of one of them: half a surrogate pair, NaN."""
    text = body.decode("utf-8", "surrogateescape")
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    found: list[bytes] = []
    at = _after_blanks(text, text.index("[") + 1)
    try:
        while not text.startswith("]", at):
            _, end = decoder.raw_decode(text, at)
            # Strings hold no raw line breaks (the decoder is strict), so these are blanks between tokens.
            item = text[at:end].replace("\n", " ").replace("\r", " ")
            found.append(item.encode("utf-8", "surrogateescape"))
            at = _after_blanks(text, end)
            _few(found)
            if text.startswith(",", at):
                at = _after_blanks(text, at + 1)
                if text.startswith("]", at):
                    raise ValueError("a comma before the end")
            elif not text.startswith("]", at):
                raise ValueError("no comma between two items")
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except ValueError:
        raise Problem(400, "the body is not JSON") from None
    if text[at + 1 :].strip(" \t\r\n"):
        raise Problem(400, "the body is not JSON: something follows the array")
    return found


def _few(found: list[Item]) -> list[Item]:
    if len(found) > MAX_ITEMS:
        raise Problem(413, f"there are more than {MAX_ITEMS} items in the body: send it in parts")
    return found


def _after_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    assert found is not None  # noqa: S101 - it matches nothing, too
    return found.end()


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _is_known(request: web.Request) -> bool:
    kind = request.content_type
    if kind in (STRUCTURED, BATCH) or kind in _JSON_TYPES:
        return True
    return is_json_type(kind) if in_headers(request.headers) else kind in _NDJSON_TYPES


def _is_gzipped(request: web.Request) -> bool:
    named = ",".join(request.headers.getall("Content-Encoding", ()))
    encodings = [name.strip().lower() for name in named.split(",")]
    match [name for name in encodings if name not in {"", "identity"}]:
        case []:
            return False
        case ["gzip" | "x-gzip"]:
            return True
        case _:
            raise Problem(
                415,
                "of content encodings only gzip is known here: send the body plain or so",
                headers={"Accept-Encoding": "gzip"},
            )


def too_large() -> Problem:
    """413, to be raised."""
    return Problem(413, "the body is over 1 MiB, as it came or inflated: send it in parts")
