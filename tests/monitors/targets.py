"""What probes look at in tests: real servers on loopback, well and otherwise."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from monitors.probe import Measured, Outcome, Read, Unknown
from tests.ports import unused_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(
    handler: Handler, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[int]:
    """An aiohttp server that answers every path with ``handler``; its port."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def saying(text: str, *, status: int = 200) -> Handler:
    """Answers with this."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    return handler


Spoken = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(spoken: Spoken) -> AsyncIterator[int]:
    """A TCP server whose every connection is ``spoken`` to; its port."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await spoken(reader, writer)
        except ConnectionError:
            pass  # the client had enough
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes what comes and never answers."""
    while await reader.read(1024):
        pass


def saying_bytes(data: bytes) -> Spoken:
    """Answers a request with these bytes and closes."""

    async def spoken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return spoken


def port_without_listener() -> int:
    """A port that was free a moment ago."""
    return unused_port()


class Keeping:
    """Keeps the progress of probes, as the outbox does."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def progress(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def keep(self, outcome: Outcome) -> Measured | Unknown:
        """The result, once its progress is kept."""
        if not isinstance(outcome, Read):
            return outcome
        assert self.kept.get(outcome.progress.name) == outcome.progress.before
        self.kept[outcome.progress.name] = outcome.progress.now
        return outcome.result
