"""Connections: too many, too slow, too much, and TLS. Over the loop that is shipped and over asyncio's own."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
import uvloop
from aiohttp import ClientSession, ClientTimeout, web
from prometheus_client import CollectorRegistry

from topology.metrics import ConnectionMetrics
from web.connections import (
    MAX_HEADER_BYTES,
    Acceptor,
    ConnectionLimits,
    runner_of,
)

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: For what takes less than a second on a quiet machine.
LIMIT_S = 60.0


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test, once over uvloop, which is shipped, and once over asyncio's own loop: their transports differ."""
    signature = inspect.signature(test)

    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(**fixtures))

    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    loop = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), loop])  # type: ignore[attr-defined]
    over = pytest.mark.parametrize(
        "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    decorated: Callable[..., None] = over(run)
    return decorated


class Listening:
    """A server that says hello. ``answered``: requests that reached the application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.port = 0
        self.answered = 0

    async def hello(self, request: web.Request) -> web.Response:
        self.answered += 1
        return web.Response(text=f"hello {len(await request.read())}")

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(name)


@asynccontextmanager
async def listening(
    limits: ConnectionLimits | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Listening]:
    limits = limits or ConnectionLimits()
    server = Listening()
    application = web.Application()
    application.router.add_route("*", "/", server.hello)
    runner = runner_of(application, limits)
    await runner.setup()
    assert runner.server is not None
    acceptor = Acceptor(runner.server, limits, tls=tls, metrics=ConnectionMetrics(server.registry))
    try:
        ((_, server.port),) = await acceptor.start("127.0.0.1", 0)
        async with asyncio.timeout(LIMIT_S):
            yield server
    finally:
        await acceptor.stop()
        await runner.cleanup()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes = GET) -> bytes:
        """The first line of the answer, after all of it was read."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        (length,) = [
            line.split()[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        ]
        await self.reader.readexactly(int(length))
        return head.split(b"\r\n")[0]

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass  # the server was first


@asynccontextmanager
async def client(server: Listening, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    name = None if tls is None else "localhost"
    made = Client(*await asyncio.open_connection("127.0.0.1", server.port, ssl=tls, server_hostname=name))
    try:
        yield made
    finally:
        await made.close()


def problem(answer: bytes, status: int) -> dict[str, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"Content-Type: application/problem+json" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["status"] == status
    lines = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
    return {name.decode(): value.decode() for name, _, value in lines}


async def open_connections(server: Listening, count: int) -> None:
    while server.value("eventsink_web_connections") != count:
        await asyncio.sleep(0.001)


# -- a request comes through, however it is cut --


@pytest.mark.parametrize("size", [1, 7, len(GET)])
@on_both_loops
async def test_a_request_in_pieces_is_answered(size: int) -> None:
    async with listening() as server, client(server) as one:
        for at in range(0, len(GET), size):
            one.writer.write(GET[at : at + size])
            await one.writer.drain()
            await asyncio.sleep(0)
        assert await one.ask(b"") == b"HTTP/1.1 200 OK"
        assert await one.ask() == b"HTTP/1.1 200 OK"


@on_both_loops
async def test_a_body_and_a_second_request_in_the_first_bytes_are_not_lost() -> None:
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    async with listening() as server, client(server) as one:
        one.writer.write(post + GET)
        assert await one.ask(b"") == b"HTTP/1.1 200 OK"
        assert await one.ask(b"") == b"HTTP/1.1 200 OK"
        assert server.answered == 2


@pytest.mark.parametrize("requests", [1, 3])
@on_both_loops
async def test_a_client_that_ends_its_side_behind_its_requests_is_answered(requests: int) -> None:
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    async with listening() as server, client(server) as one:
        for _ in range(requests):
            one.writer.write(post)
        one.writer.write_eof()
        assert (await one.rest()).count(b"hello 100000") == requests


@on_both_loops
async def test_clients_that_leave_as_soon_as_they_are_answered_hold_no_connection() -> None:
    async def ask(server: Listening) -> None:
        async with client(server) as one:
            assert await one.ask() == b"HTTP/1.1 200 OK"

    async with listening() as server:
        for _ in range(10):
            await asyncio.gather(*(ask(server) for _ in range(50)))
        await open_connections(server, 0)


@on_both_loops
async def test_a_client_may_end_its_side_at_any_moment_before_its_answer() -> None:
    async def ask(server: Listening, turns: int) -> None:
        async with client(server) as one:
            one.writer.write(GET)
            for _ in range(turns):
                await asyncio.sleep(0)
            one.writer.write_eof()
            assert (await one.rest()).count(b"hello 0") == 1

    async with listening() as server:
        for turns in range(20):
            await asyncio.gather(*(ask(server, turns) for _ in range(20)))
        await open_connections(server, 0)


@on_both_loops
async def test_a_client_that_ends_its_side_within_a_request_is_let_go() -> None:
    async with listening() as server, client(server) as one:
        one.writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhello")
        one.writer.write_eof()
        assert await one.rest() == b""
        await open_connections(server, 0)


@on_both_loops
async def test_a_client_that_leaves_while_it_is_idle_is_let_go() -> None:
    async with listening() as server, client(server) as one:
        assert await one.ask() == b"HTTP/1.1 200 OK"
        one.writer.write_eof()
        assert await one.rest() == b""
        await open_connections(server, 0)


@on_both_loops
async def test_many_clients_at_once_are_all_answered() -> None:
    async with (
        listening() as server,
        ClientSession(timeout=ClientTimeout(total=LIMIT_S)) as session,
    ):

        async def ask() -> int:
            async with session.get(f"http://127.0.0.1:{server.port}/") as answer:
                return answer.status

        assert await asyncio.gather(*(ask() for _ in range(200))) == [200] * 200


# -- the limit --


@on_both_loops
async def test_one_connection_too_many_is_told_so_and_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening(ConnectionLimits(max_connections=2)) as server:
        async with client(server) as one, client(server):
            assert await one.ask() == b"HTTP/1.1 200 OK"
            await open_connections(server, 2)
            for _ in range(3):
                async with client(server) as third:
                    headers = problem(await third.rest(), 503)
                    assert int(headers["Retry-After"]) > 0
                    assert headers["Connection"] == "close"
            assert server.value("eventsink_web_connections_refused_total") == 3
            assert await one.ask() == b"HTTP/1.1 200 OK"
        # There is room again as soon as one has left.
        await open_connections(server, 0)
        async with client(server) as next_one:
            assert await next_one.ask() == b"HTTP/1.1 200 OK"
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "EVENTSINK_WEB_MAX_CONNECTIONS" in warnings[0].getMessage()


@on_both_loops
async def test_a_request_that_was_sent_at_once_sees_the_refusal_too() -> None:
    async with listening(ConnectionLimits(max_connections=1)) as server, client(server) as one:
        await one.ask()
        # Sent before the server can have accepted it: nothing awaits in between.
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(GET)
            while server.value("eventsink_web_connections_refused_total") != 1:
                await asyncio.sleep(0.001)
            problem(connection.recv(65_536), 503)
            # Closed with bytes unread it would be reset, and some systems then throw away what they have received.
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert connection.recv(1) == b""


@on_both_loops
async def test_connections_come_and_go_by_the_hundred_within_the_limit() -> None:
    async with listening(ConnectionLimits(max_connections=3)) as server:
        for _ in range(100):
            async with client(server) as one:
                assert await one.ask() == b"HTTP/1.1 200 OK"
            await open_connections(server, 0)
        assert server.value("eventsink_web_connections_refused_total") == 0


# -- slow and broken clients --


@on_both_loops
async def test_a_header_that_trickles_in_is_cut_off() -> None:
    """Slowloris: each byte comes in time, the header never ends."""
    async with listening(ConnectionLimits(header_within_s=0.2)) as server, client(server) as one:
        async with client(server) as other:

            async def trickle() -> None:
                for at in range(len(GET)):
                    one.writer.write(GET[at : at + 1])
                    await asyncio.sleep(0.05)

            trickling = asyncio.create_task(trickle())
            problem(await one.rest(), 408)
            assert await other.ask() == b"HTTP/1.1 200 OK"
            trickling.cancel()
            await asyncio.gather(trickling, return_exceptions=True)
        assert server.answered == 1
        await open_connections(server, 0)


@on_both_loops
async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with listening(ConnectionLimits(idle_s=0.1)) as server, client(server) as one:
        assert await one.rest() == b""
        await open_connections(server, 0)


@on_both_loops
async def test_a_connection_that_is_idle_between_requests_is_closed_and_bytes_do_not_put_it_off() -> None:
    async with listening(ConnectionLimits(idle_s=0.5)) as server, client(server) as one:
        await one.ask()

        async def trickle() -> None:
            for at in range(len(GET) - 1):
                one.writer.write(GET[at : at + 1])
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        assert await one.rest() == b""
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
        assert server.answered == 1


@on_both_loops
async def test_a_first_header_without_end_is_refused() -> None:
    async with listening() as server, client(server) as one:
        one.writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * (MAX_HEADER_BYTES + 1))
        problem(await one.rest(), 431)
        assert server.answered == 0


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 100 + b"\r\n",
        b"\x16\x03\x01\x02\r\n\r\n",
        b"\r\n\r\n\r\n\r\nnothing\r\n\r\n",
    ],
    ids=["long line", "long field", "many fields", "TLS", "nonsense"],
)
@on_both_loops
async def test_what_is_no_request_is_refused_and_no_log_repeats_it(
    request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with listening() as server, client(server) as one:
        one.writer.write(request_)
        assert b" 400 " in (await one.rest()).split(b"\r\n")[0]
        assert server.answered == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "xxx" not in caplog.text


@on_both_loops
async def test_a_client_that_leaves_before_its_header_is_whole_is_forgotten() -> None:
    async with listening() as server:
        async with client(server) as one:
            one.writer.write(GET[:10])
            await open_connections(server, 1)
        await open_connections(server, 0)


@on_both_loops
async def test_stopping_lets_go_of_connections_without_a_request() -> None:
    async with listening() as server:
        silent = Client(*await asyncio.open_connection("127.0.0.1", server.port))
        await open_connections(server, 1)
    assert await silent.rest() == b""
    await silent.close()


# -- TLS --


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@on_both_loops
async def test_requests_come_through_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with listening(tls=server_tls) as server, client(server, client_tls) as one:
        assert await one.ask() == b"HTTP/1.1 200 OK"
        assert (
            await one.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc") == b"HTTP/1.1 200 OK"
        )


@on_both_loops
async def test_a_handshake_counts_as_a_connection(server_tls: ssl.SSLContext) -> None:
    async with listening(ConnectionLimits(max_connections=1), server_tls) as server:
        async with client(server):
            await open_connections(server, 1)
            async with client(server) as other:
                assert await other.rest() == b""  # plain text would be no answer to who speaks TLS
            assert server.value("eventsink_web_connections_refused_total") == 1
        await open_connections(server, 0)


@on_both_loops
async def test_plain_http_to_a_tls_port_ends_and_nothing_else_does(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tls=server_tls) as server:
        async with client(server) as plain:
            plain.writer.write(GET)
            assert b"200" not in await plain.rest()
        async with client(server, client_tls) as one:
            assert await one.ask() == b"HTTP/1.1 200 OK"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
