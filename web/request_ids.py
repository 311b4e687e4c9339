"""What a request is called in the log, and in the answer to it: ``X-Request-ID``, the client's own if it sends one."""

from __future__ import annotations

import re
import time

from aiohttp import web

from topology.uuid7 import uuid7

HEADER = "X-Request-ID"

#: What may stand in a line of a log, and is long enough to be told from others.
_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{7,63}")
_ID = web.RequestKey("eventsink.request_id", str)


def request_id(request: web.Request) -> str:
    """The same for every call with this request."""
    known = request.get(_ID)
    if known is None:
        given = request.headers.get(HEADER, "")
        # A key that somebody sends as an id is not repeated.
        fits = _GIVEN.fullmatch(given) is not None and not given.startswith("es_")
        known = request[_ID] = given if fits else uuid7(time.time_ns() // 1_000_000)
    return known
