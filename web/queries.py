"""``GET /v1/rollups``, ``GET /v1/rollups/{name}``, ``GET /v1/events``: what was counted, and what came in."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import overload

from aiohttp import web

from schemas.selecting import NoSuchType, types_of
from schemas.times import EPOCH, from_rfc3339, parse_when, rfc3339
from topology.log import JSON
from topology.position import Position
from topology.sinks import RawEvent, RawEvents, RollupSink
from web.access import Access
from web.documents import Described, events_document, rollups_document
from web.formats import FORMATS, Format, NotInstalled
from web.problems import RETRY_AFTER_S, Problem, encoded
from web.rows import MAX_ROWS, Fill, Found, Order, Unanswerable, Wanted, find

DEFAULT_WINDOW = "1m"
#: Beside the key tags of the rollup.
PARAMETERS = (
    "window",
    "since",
    "until",
    "group_by",
    "total",
    "fields",
    "fill",
    "order",
    "limit",
    "cursor",
    "format",
)
FILLS: Mapping[str, Fill] = {"null": "null", "zero": "zero"}

DEFAULT_EVENTS = 100
MAX_EVENTS = 1000

#: Of many rows each takes a hundred megabytes until it is written as JSON.
ANSWERS_AT_ONCE = 4
#: Who waits longer for a turn is told to come again.
TURN_WITHIN_S = 5.0

#: May be given more than once. Key tags may, too.
_SEVERAL = frozenset({"group_by", "fields", "type"})

_MILLISECOND = timedelta(milliseconds=1)
_INT64 = range(-(2**63), 2**63)


class Queries:
    """The handlers. Reading needs ``access``; ``clock`` is what ``now`` in a time means."""

    def __init__(
        self,
        rollups: Mapping[str, Described],
        rollup_sink: RollupSink,
        raw_events: RawEvents,
        access: Access,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._rollups = rollups
        self._rollup_sink = rollup_sink
        self._raw_events = raw_events
        self._access = access
        self._clock = clock
        self._turns = asyncio.Semaphore(ANSWERS_AT_ONCE)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """While a query is answered that may bring much. Raises a 503 ``Problem`` where too many wait for it."""
        try:
            async with asyncio.timeout(TURN_WITHIN_S):
                await self._turns.acquire()
        except TimeoutError:
            raise Problem(
                503,
                "too many queries are being answered: ask again a little later, or for less at once",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            ) from None
        try:
            yield
        finally:
            self._turns.release()

    async def list_rollups(self, request: web.Request) -> web.StreamResponse:
        """Which rollups there are, with their windows, key tags and fields."""
        self._access.reading(request)
        _parameters(request, ())
        return _json(rollups_document(self._rollups.values()))

    async def rollup(self, request: web.Request) -> web.StreamResponse:
        """Rows of one rollup whose window starts in [since, until)."""
        self._access.reading(request)
        name = request.match_info["name"]
        rollup = self._rollups.get(name)
        if rollup is None:
            raise Problem(404, f"there is no rollup {name!r}: choose of {', '.join(self._rollups)}")
        given = _parameters(request, (*PARAMETERS, *rollup.key), several=_SEVERAL.union(rollup.key))
        form = FORMATS.get(_one(given, "format", "json"))
        if form is None:
            raise Problem(400, f"format={_one(given, 'format')!r} is none of {', '.join(FORMATS)}")
        try:
            wanted = self._wanted(rollup, given)
            async with self._turn():
                found = await find(self._rollup_sink, rollup, wanted, now_s=self._clock() // 1000)
                # Writing many rows takes a while, in which others are to be answered.
                body, tag = await asyncio.to_thread(_written, form, found)
        except Unanswerable as error:
            raise Problem(400, str(error)) from None
        except NotInstalled as error:
            raise Problem(501, str(error)) from None
        headers = {}
        if found.cursor is not None:
            headers["Link"] = f'<{request.rel_url.update_query(cursor=found.cursor)}>; rel="next"'
        if form.download is not None:
            file = f"{rollup.name}-{wanted.window}.{form.download}"
            headers["Content-Disposition"] = f'attachment; filename="{file}"'
        return _conditional(request, body, tag, form.content_type, headers)

    def _wanted(self, rollup: Described, given: Mapping[str, Sequence[str]]) -> Wanted:
        fill = _one(given, "fill")
        if fill is not None and fill not in FILLS:
            raise Problem(400, f"fill={fill!r} is neither null nor zero")
        order = _one(given, "order", "time")
        since, until = self._range(given)
        return Wanted(
            window=_one(given, "window", DEFAULT_WINDOW),
            since=_seconds(since),
            until=_seconds(until),
            where={tag: given[tag] for tag in rollup.key if tag in given},
            group_by=_names(given, "group_by"),
            total=_flag(given, "total"),
            fields=_names(given, "fields"),
            fill=None if fill is None else FILLS[fill],
            order=Order(by=order.removeprefix("-"), descending=order.startswith("-")),
            limit=_limit(given, MAX_ROWS),
            cursor=_one(given, "cursor"),
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Raw events with time in [since, until), the newest first, a page at a time."""
        self._access.reading(request)
        given = _parameters(request, ("type", "since", "until", "limit", "cursor"), several=_SEVERAL)
        limit = _limit(given, MAX_EVENTS) or DEFAULT_EVENTS
        cursor = _one(given, "cursor")
        try:
            types = types_of(given["type"]) if "type" in given else None
        except NoSuchType as error:
            raise Problem(400, f"type: {error}") from None
        since, until = self._range(given)
        before = None if cursor is None else _before(cursor)
        async with self._turn():
            found = await self._raw_events.query(
                since=since, until=until, type=types, limit=limit + 1, before=before
            )
            page = found[:limit]
            after = _cursor(page) if len(found) > limit else None
            return _json_bytes(await asyncio.to_thread(lambda: encoded(events_document(page, after))))

    def _range(self, given: Mapping[str, Sequence[str]]) -> tuple[int | None, int | None]:
        """``since`` and ``until``. Raises a 400 ``Problem`` where nothing could lie between them."""
        now = EPOCH + self._clock() * _MILLISECOND
        since, until = _time(given, "since", now), _time(given, "until", now)
        if since is not None and until is not None and until < since:
            raise Problem(
                400, f"until: {rfc3339(until)} lies before since, {rfc3339(since)}: exchange the two"
            )
        return since, until


def _parameters(
    request: web.Request, known: Collection[str], *, several: Collection[str] = ()
) -> Mapping[str, Sequence[str]]:
    """The values of each parameter that is given."""
    given: dict[str, list[str]] = {}
    for name, value in request.query.items():
        if name not in known:
            choice = f"choose of {', '.join(known)}" if known else "there are none here"
            raise Problem(400, f"unknown parameter {name!r}: {choice}")
        if name in given and name not in several:
            raise Problem(400, f"the parameter {name!r} is there twice: give one value")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Problem(400, f"the value of {name!r} is not UTF-8") from None
        given.setdefault(name, []).append(value)
    return given


@overload
def _one(given: Mapping[str, Sequence[str]], name: str, default: str) -> str: ...
@overload
def _one(given: Mapping[str, Sequence[str]], name: str) -> str | None: ...
def _one(given: Mapping[str, Sequence[str]], name: str, default: str | None = None) -> str | None:
    return given[name][0] if name in given else default


def _time(given: Mapping[str, Sequence[str]], name: str, now: datetime) -> int | None:
    """Epoch milliseconds of a time parameter, None where it is not given."""
    text = _one(given, name)
    if text is None:
        return None
    try:
        when = parse_when(text, now)
    except ValueError as error:
        # A plus sign in a query that is not escaped arrives as a blank.
        hint = ", with + written as %2B" if from_rfc3339(text.replace(" ", "+")) is not None else ""
        raise Problem(400, f"{name}: {error}{hint}") from None
    return (when - EPOCH) // _MILLISECOND


def _names(given: Mapping[str, Sequence[str]], name: str) -> Sequence[str] | None:
    """Names, with commas or one at a time; an empty text is no name."""
    if name not in given:
        return None
    return [each for text in given[name] for each in text.split(",") if each]


def _flag(given: Mapping[str, Sequence[str]], name: str) -> bool:
    text = _one(given, name, "false")
    if text not in {"true", "false"}:
        raise Problem(400, f"{name}={text!r} is neither true nor false")
    return text == "true"


def _seconds(ms: int | None) -> int | None:
    """The first second that is not before ``ms``: windows start on seconds."""
    return None if ms is None else -(-ms // 1000)


def _limit(given: Mapping[str, Sequence[str]], most: int) -> int | None:
    text = _one(given, "limit")
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most:
        return int(text)
    raise Problem(400, f"limit={text!r} is no whole number from 1 to {most}")


def _cursor(page: Sequence[RawEvent]) -> str:
    last = page[-1]
    return base64.urlsafe_b64encode(f"{last.time}.{last.position}".encode()).decode().rstrip("=")


def _before(cursor: str) -> tuple[int, Position]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        time, _, position = base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition(".")
        found = int(time), int(position)
    except (binascii.Error, ValueError):
        found = None
    if found is None or not all(number in _INT64 for number in found):
        raise Problem(400, "the cursor is none of ours: use the one of the page before, as it is")
    return found[0], Position(found[1])


def _json(document: object) -> web.Response:
    return _json_bytes(encoded(document))


def _json_bytes(body: bytes) -> web.Response:
    return web.Response(body=body, content_type=JSON)


def _written(form: Format, found: Found) -> tuple[bytes, str]:
    """The body, and a digest of it."""
    body = form.write(found)
    # Of what processors do by themselves: half the time of BLAKE2, of megabytes.
    return body, hashlib.sha256(body).hexdigest()[:32]


def _conditional(
    request: web.Request, body: bytes, tag: str, content_type: str, headers: Mapping[str, str]
) -> web.StreamResponse:
    """The answer; 304 without a body where the client says that it has this one already.

    Any row may still be corrected by a late event: a copy may be kept by who asked, and is to be asked after each time.
    """
    caching = {"Cache-Control": "private, no-cache", "ETag": f'"{tag}"', **headers}
    known = request.if_none_match
    if known is not None and any(each.value in ("*", tag) for each in known):
        return web.Response(status=304, headers=caching)
    return web.Response(body=body, content_type=content_type, headers=caching)
