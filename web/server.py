"""How the application is listened for: bytes that are no HTTP are answered like everything else that is wrong.

aiohttp answers them before there is a request that a handler could see: as plain text, with its own name and version,
and with a traceback in the log at each. Whoever sends nonsense must not be able to fill our log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from aiohttp import StreamReader, web

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
    """aiohttp closes at once when a client ends its side of the connection. One that does so behind its last request
    and reads the answer, as netcat does (RFC 9293, 3.6), would never hear that its events are taken."""

    __slots__ = ("_body", "_last")

    #: Of the newest request.
    _body: StreamReader | None
    #: Nothing comes behind it.
    _last: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._body, self._last = None, False
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._body = self._messages[-1][1]

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio's may say so, aiohttp's says nothing
        """True keeps our side open."""
        idle = self._waiter is not None and not self._waiter.done()
        if idle or self.transport is None or self.transport.get_extra_info("sslcontext") is not None:
            return False
        request = self._current_request
        if not self._messages and request is not None and request.writer.output_size:
            return False  # of what is streamed the end is that its reader leaves
        self._last = self._body is not None and self._body.is_eof()
        self._close_behind_the_last()
        return self._last

    async def _handle_request(self, *args: Any) -> tuple[web.StreamResponse, bool]:
        response, reset = await super()._handle_request(*args)
        self._close_behind_the_last()
        return response, reset

    def _close_behind_the_last(self) -> None:
        """Now and not when an answer is made: the end may come when the last one is."""
        if self._last and not self._messages:
            self.close()  # what is in hand is answered

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
