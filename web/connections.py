"""Connections: how many there may be at once, and for how long one may say nothing.

1. accepted        one too many is told so in one write and closed: no task, no parser, no TLS handshake
2. handshake       where TLS is on
3. first header    kept as bytes until it is whole: a client that dribbles costs those bytes and a timer
4. HTTP            aiohttp's protocol takes over; it closes a connection that is idle between two requests, and
                   bytes that do not make a request do not put that off

aiohttp has neither a limit of connections nor one of time for the first header, so these sockets are accepted here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web

from topology.metrics import ConnectionMetrics
from web import server
from web.problems import PROBLEM_JSON, RETRY_AFTER_S, Problem

log = logging.getLogger(__name__)

#: Connections that the kernel completes while none is accepted; it takes no more than its own somaxconn.
BACKLOG = 1024
#: Bytes of a first header; nginx takes as much (large_client_header_buffers).
MAX_HEADER_BYTES = 32 * 1024
#: Of a later one aiohttp bounds each part: so many characters a line, so many lines.
MAX_LINE_CHARACTERS = 8190
MAX_HEADERS = 64
HANDSHAKE_WITHIN_S = 10.0
#: An answer that a client does not read is given up after this; the kernel watches over it.
UNREAD_FOR_MS = 30_000
#: What a client still sends after it was refused is read and thrown away for so long, so that it sees the answer.
LINGER_S = 2.0
OUT_OF_FILES_PAUSE_S = 1.0
#: Between two warnings that the limit is reached.
WARN_EVERY_S = 60.0
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """``header_within_s``: from the first byte of a first request to the end of its header. ``idle_s``: how long a
    connection may stay open without a request, before the first one and between two."""

    max_connections: int = 10_000
    header_within_s: float = 10.0
    idle_s: float = 75.0


def runner_of(
    application: web.Application,
    limits: ConnectionLimits,
    *,
    ends_within_s: float = server.REQUESTS_END_WITHIN_S,
) -> web.AppRunner:
    """A runner of the application whose ``server`` an ``Acceptor`` gives connections to."""
    return server.runner(
        application,
        shutdown_timeout=ends_within_s,
        keepalive_timeout=limits.idle_s,
        lingering_time=LINGER_S,
        max_line_size=MAX_LINE_CHARACTERS,
        max_field_size=MAX_LINE_CHARACTERS,
        max_headers=MAX_HEADERS,
    )


class Acceptor:
    """Accepts connections for an aiohttp server. ``start`` once, ``stop`` before the server's runner is cleaned up."""

    def __init__(
        self,
        server: web.Server,
        limits: ConnectionLimits,
        *,
        tls: ssl.SSLContext | None,
        metrics: ConnectionMetrics,
    ) -> None:
        self._server = server
        self._limits = limits
        self._tls = tls
        self._metrics = metrics
        self._listening: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: set[_Opening] = set()
        self._handshakes = 0
        #: At least as many as there are; counting is worth it only where this reaches the limit.
        self._at_most = 0
        self._warned_at = -WARN_EVERY_S
        metrics.web_connections().set_function(self._count)

    async def start(self, host: str, port: int) -> Sequence[tuple[str, int]]:
        """Listen; returns the addresses. Raises ``OSError`` where one cannot be had."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        missing: OSError | None = None
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                self._listening.append(_listening(family, address))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    await self.stop()
                    raise
                missing = error  # localhost has an IPv6 address in /etc/hosts also where there is no IPv6
        if not self._listening and missing is not None:
            raise missing
        for listening in self._listening:
            self._run(self._accept(listening))
        return [listening.getsockname()[:2] for listening in self._listening]

    async def stop(self) -> None:
        """Accept no more, and let go of connections on which no request has come. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._listening:
            listening.close()
        self._listening.clear()
        for opening in list(self._opening):
            opening.abort()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _OUT_OF_FILES:
                    log.error(
                        "no connection can be accepted (%s): raise the limit of open files", error.strerror
                    )
                    await asyncio.sleep(OUT_OF_FILES_PAUSE_S)
                continue  # else the client left before it was accepted
            if self._full():
                self._refuse(connection)
            else:
                self._at_most += 1
                self._handshakes += 1
                self._run(self._open(connection))
            # While connections wait, accepting never does: others get their turn here.
            await asyncio.sleep(0)

    async def _open(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        within = None if self._tls is None else HANDSHAKE_WITHIN_S
        try:
            await loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=within
            )
        except (OSError, EOFError) as error:  # ssl.SSLError and TimeoutError are OSErrors
            # The transport closes the socket; closing it here too could hit the next one of its number.
            log.debug("a connection came to nothing: %s", error)
        finally:
            self._handshakes -= 1

    def _protocol(self) -> asyncio.Protocol:
        return _Opening(self._server, self._limits, self._opening)

    def _count(self) -> int:
        return len(self._server.connections) + len(self._opening) + self._handshakes

    def _full(self) -> bool:
        if self._at_most >= self._limits.max_connections:
            self._at_most = self._count()
        return self._at_most >= self._limits.max_connections

    def _refuse(self, connection: socket.socket) -> None:
        self._metrics.web_connections_refused().inc()
        now = time.monotonic()
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            log.warning(
                "connections are refused, there are %d already: raise EVENTSINK_WEB_MAX_CONNECTIONS, or see who "
                "holds them",
                self._limits.max_connections,
            )
        with connection:
            connection.setblocking(False)
            try:
                if self._tls is None:
                    connection.send(_TOO_MANY)
                    connection.shutdown(socket.SHUT_WR)
                connection.recv(
                    MAX_HEADER_BYTES
                )  # closed with bytes unread, it would be reset before the answer is read
            except OSError:
                pass  # nothing was there yet, or the client is gone: it is closed either way


class _Opening(asyncio.Protocol):
    """A connection until the header of its first request is whole. Then aiohttp's protocol gets it, with what came."""

    __slots__ = ("_all", "_limits", "_received", "_server", "_timer", "_transport")

    def __init__(self, server: web.Server, limits: ConnectionLimits, opening: set[_Opening]) -> None:
        self._server = server
        self._limits = limits
        self._all = opening
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one only by its methods
        self._all.add(self)
        self._timer = asyncio.get_running_loop().call_later(self._limits.idle_s, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if not self._received:
            self._wait(self._limits.header_within_s)
        looked_at = max(0, len(self._received) - 3)
        self._received += data
        # A bare line feed ends a line too, for who types a request.
        if self._received.find(b"\n\r\n", looked_at) >= 0 or self._received.find(b"\n\n", looked_at) >= 0:
            self._hand_over(self._transport)
        elif len(self._received) > MAX_HEADER_BYTES:
            self._answer(_TOO_LARGE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()

    def abort(self) -> None:
        """Close at once."""
        transport = self._let_go()
        if transport is not None:
            transport.abort()

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._answer, _TOO_SLOW)

    def _answer(self, answer: bytes) -> None:
        transport = self._let_go()
        if transport is not None:
            transport.write(answer)
            transport.close()

    def _hand_over(self, transport: asyncio.Transport) -> None:
        self._let_go()
        http = self._server()
        transport.set_protocol(http)
        http.connection_made(transport)
        http.data_received(self._received)

    def _let_go(self) -> asyncio.Transport | None:
        transport, self._transport = self._transport, None
        self._all.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return transport


def can_listen(host: str, port: int) -> None:
    """Raise the ``OSError`` with which an ``Acceptor`` would not start there. It may be another's a moment later."""
    for family, _, _, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            _listening(family, address).close()
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise


def _listening(family: int, address: Any) -> socket.socket:
    listening = socket.create_server(address, family=family, backlog=BACKLOG)
    listening.setblocking(False)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; what is accepted inherits it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_FOR_MS)
    return listening


def _raw(problem: Problem) -> bytes:
    """The answer of a connection on which nothing else is written."""
    response = problem.response()
    body = response.body
    assert isinstance(body, bytes)  # noqa: S101 - a problem's is
    response.headers.update(
        {"Content-Type": PROBLEM_JSON, "Content-Length": str(len(body)), "Connection": "close"}
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    return f"HTTP/1.1 {problem.status} {response.reason}\r\n{head}\r\n".encode() + body


_TOO_MANY = _raw(
    Problem(503, "there are too many connections: try again", headers={"Retry-After": str(RETRY_AFTER_S)})
)
_TOO_SLOW = _raw(Problem(408, "the header of the request did not come in time: send it again"))
_TOO_LARGE = _raw(Problem(431, f"the header is over {MAX_HEADER_BYTES // 1024} KiB: send less in it"))
