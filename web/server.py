"""How the application is listened for: bytes that are no HTTP are answered like everything else that is wrong.

aiohttp answers them before there is a request that a handler could see: as plain text, with its own name and version,
and with a traceback in the log at each. Whoever sends nonsense must not be able to fill our log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from aiohttp import web

from web.problems import Handler, Problem, answered

log = logging.getLogger(__name__)

#: Open requests get this long to finish when the process ends.
REQUESTS_END_WITHIN_S = 3.0

#: aiohttp's own inflating takes a cut gzip stream for a whole one, so the application inflates; its own log of
#: requests would show queries.
_CONNECTIONS: dict[str, Any] = {"auto_decompress": False, "access_log": None}


def runner(application: web.Application, **options: Any) -> web.AppRunner:
    """What runs the application on sockets: that of every process and of every test. ``options`` are of aiohttp's
    connections, beside those that the application relies on."""
    chosen = {"shutdown_timeout": REQUESTS_END_WITHIN_S, **options, **_CONNECTIONS}
    return _Runner(application, **chosen)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        loop = asyncio.get_running_loop()
        handler = _guarded(cast(Handler, made.request_handler))
        return _Server(cast(Any, handler), request_factory=made.request_factory, loop=loop, **self._kwargs)


def _guarded(handler: Handler) -> Handler:
    """aiohttp looks at ``Expect`` before any middleware and any handler. It refuses in plain text what it does not
    know, and fails over bytes that are no ASCII."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if not request.headers.get("Expect", "").isascii():
            raise Problem(417, "of expectations only 100-continue is known here")
        return await handler(request)

    return answered(handle)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request, and to what went wrong outside of every handler."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun: there can be no other")
        if status < 500:
            # Not what it was: there may be a key in it.
            log.debug("a request that is no HTTP, from %s: %s", request.remote, type(exc).__name__)
            problem = Problem(status, "this is no request as HTTP has them: see RFC 9112")
        else:
            log.error("a request failed outside of its handler", exc_info=exc)
            problem = Problem(500, "eventsink made a mistake, its log says which: please report it")
        response = problem.response()
        response.force_close()
        return response
