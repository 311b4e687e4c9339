"""The route: the document once, as JSON; or live, as server-sent events, where ``Accept`` asks for them.

https://html.spec.whatwg.org/multipage/server-sent-events.html. The first event has every member of the document, a
later one those that changed. Each stream ends after a while, so that a key that was revoked does not read for ever;
browsers connect again by themselves.
"""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from topology.log import JSON
from web.access import Access
from web.overview import spans
from web.overview.snapshots import Snapshot, Snapshots, changes, document
from web.problems import RETRY_AFTER_S, Problem, secured

log = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"

#: Streams at once. Each costs a look at the shared document a second, and a connection.
MAX_STREAMS = 100
LOOK_EVERY_S = 1.0
#: What says to proxies, and to us, that somebody is still there.
KEEP_ALIVE_EVERY_S = 15.0
LONGEST_STREAM_S = 600.0
#: A browser that lost the stream waits for so long.
RECONNECT_AFTER_MS = 2000


class OverviewRoute:
    """The handler. ``close`` ends the streams, which would else hold up the end of the process."""

    def __init__(self, snapshots: Snapshots, access: Access) -> None:
        self._snapshots = snapshots
        self._access = access
        self._streams = 0
        self._ending = asyncio.Event()

    async def show(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/overview?range=``."""
        self._access.reading(request)
        name = _range(request)
        if request.method == "GET" and EVENT_STREAM in request.headers.get("Accept", ""):
            return await self._stream(request, name)
        snapshot = await self._snapshots.fresh(name)
        return web.Response(body=document(snapshot), content_type=JSON)

    async def close(self, application: web.Application) -> None:
        """End every stream."""
        self._ending.set()

    async def _stream(self, request: web.Request, name: str) -> web.StreamResponse:
        if self._streams >= MAX_STREAMS:
            raise Problem(
                503,
                f"there are {MAX_STREAMS} live pages already: close some, or ask for JSON",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self._streams += 1
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "X-Accel-Buffering": "no"})
        try:
            await secured(response).prepare(request)
            await response.write(b"retry: %d\n\n" % RECONNECT_AFTER_MS)
            await self._tell(request, response, name)
        except ConnectionError:
            pass  # the client has left
        except Exception:
            if not response.prepared:
                raise
            # There can be no other answer any more: the browser asks again.
            log.exception("a live page of the range %s came to an end", name)
        finally:
            self._streams -= 1
        return response

    async def _tell(self, request: web.Request, response: web.StreamResponse, name: str) -> None:
        """Until the stream has lasted long enough, the client has left, or the process ends."""
        loop, ending = asyncio.get_running_loop(), self._ending
        until = loop.time() + LONGEST_STREAM_S
        spoken, known = loop.time(), dict[str, bytes]()
        while not ending.is_set() and loop.time() < until and _is_there(request):
            snapshot = await self._snapshots.fresh(name)
            news: Snapshot = changes(snapshot, known)
            if news:
                known.update(news)
                await response.write(b"data: %s\n\n" % document(news))
                spoken = loop.time()
            elif loop.time() - spoken >= KEEP_ALIVE_EVERY_S:
                await response.write(b": still here\n\n")
                spoken = loop.time()
            try:
                await asyncio.wait_for(ending.wait(), LOOK_EVERY_S)
            except TimeoutError:
                pass  # time to look again


def _range(request: web.Request) -> str:
    given = dict[str, str]()
    for name, value in request.query.items():
        if name != "range":
            raise Problem(400, f"unknown parameter {name!r}: choose of range")
        if name in given:
            raise Problem(400, "the parameter 'range' is there twice: give one value")
        given[name] = value
    chosen = given.get("range", spans.DEFAULT_RANGE)
    if chosen not in spans.RANGES:
        raise Problem(400, f"range={chosen!r} is none of {', '.join(spans.RANGES)}")
    return chosen


def _is_there(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()
