"""``GET /v1/rollups``, ``GET /v1/rollups/{name}``, ``GET /v1/events``: what was counted, and what came in."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta

from aiohttp import web

from schemas.times import EPOCH, parse_when
from topology.log import JSON
from topology.position import Position
from topology.sinks import RawEvent, RawEvents, RollupSink
from web.access import Access
from web.documents import Described, events_document, rollup_csv, rollup_document, rollups_document
from web.problems import Problem, encoded

DEFAULT_WINDOW = "1m"
#: One more is asked for, to tell: rows are never left out in silence. About 20 MB of JSON.
MAX_ROWS = 100_000

DEFAULT_EVENTS = 100
MAX_EVENTS = 1000

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
        given = _parameters(request, ("window", "since", "until", "format", *rollup.key))
        window = given.get("window", DEFAULT_WINDOW)
        if window not in rollup.windows:
            raise Problem(400, f"window={window!r} is none of {', '.join(rollup.windows)}")
        form = given.get("format", "json")
        if form not in {"json", "csv"}:
            raise Problem(400, f"format={form!r} is neither json nor csv")
        points = await self._rollup_sink.query(
            name,
            window,
            since=_seconds(self._time(given, "since")),
            until=_seconds(self._time(given, "until")),
            where={tag: given[tag] for tag in rollup.key if tag in given},
            limit=MAX_ROWS + 1,
        )
        if len(points) > MAX_ROWS:
            raise Problem(
                400, f"there are more than {MAX_ROWS} rows: narrow since and until, or use a coarser window"
            )
        # Writing many rows takes a while, in which others are to be answered.
        if form == "csv":
            text = await asyncio.to_thread(rollup_csv, rollup, points)
            return web.Response(text=text, content_type="text/csv")
        return _json_bytes(await asyncio.to_thread(lambda: encoded(rollup_document(rollup, window, points))))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Raw events with time in [since, until), the newest first, a page at a time."""
        self._access.reading(request)
        given = _parameters(request, ("limit", "cursor", "since", "until", "type"))
        limit = _limit(given.get("limit"))
        found = await self._raw_events.query(
            since=self._time(given, "since"),
            until=self._time(given, "until"),
            type=given.get("type"),
            limit=limit + 1,
            before=_before(given["cursor"]) if "cursor" in given else None,
        )
        page = found[:limit]
        cursor = _cursor(page) if len(found) > limit else None
        return _json_bytes(await asyncio.to_thread(lambda: encoded(events_document(page, cursor))))

    def _time(self, given: Mapping[str, str], name: str) -> int | None:
        """Epoch milliseconds of a time parameter, None where it is not given."""
        if name not in given:
            return None
        try:
            when = parse_when(given[name], EPOCH + self._clock() * _MILLISECOND)
        except ValueError as error:
            raise Problem(400, f"{name}: {error}") from None
        return (when - EPOCH) // _MILLISECOND


def _parameters(request: web.Request, known: Collection[str]) -> Mapping[str, str]:
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            choice = f"choose of {', '.join(known)}" if known else "there are none here"
            raise Problem(400, f"unknown parameter {name!r}: {choice}")
        if name in given:
            raise Problem(400, f"the parameter {name!r} is there twice: give one value")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Problem(400, f"the value of {name!r} is not UTF-8") from None
        given[name] = value
    return given


def _seconds(ms: int | None) -> int | None:
    """The first second that is not before ``ms``: windows start on seconds."""
    return None if ms is None else -(-ms // 1000)


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_EVENTS
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_EVENTS:
        return int(text)
    raise Problem(400, f"limit={text!r} is no whole number from 1 to {MAX_EVENTS}")


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
