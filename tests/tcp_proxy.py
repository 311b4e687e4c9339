"""TCP on the way to a server, for tests of what only a network does: connections that nobody ends and nothing
comes through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"
PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class _Mute:
    """Which ways pass nothing on any more, of some connections."""

    requests: asyncio.Event = field(default_factory=asyncio.Event)
    answers: asyncio.Event = field(default_factory=asyncio.Event)


class TcpProxy:
    """Passes connections to ``behind`` on. ``accepted`` counts them."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        #: Of the connections of now; replaced for those that come after.
        self._mute = _Mute()
        self._loses_at: tuple[bytes, int] = b"", 0
        self.port = 0
        self.accepted = 0

    async def start(self) -> None:
        """Listen on ``port``, a free one."""
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def lose_all_packets(self) -> None:
        """As when a firewall forgets its connections: those of now stay open on both sides, for ever, and nothing
        that either side sends or does reaches the other. New ones work."""
        self._mute.requests.set()
        self.lose_answers()

    def lose_answers(self) -> None:
        """On the connections of now nothing that the server sends or does arrives any more; it still gets
        everything. New ones work."""
        mute, self._mute = self._mute, _Mute()
        mute.answers.set()

    def lose_answers_at(self, words: bytes, times: int) -> None:
        """``lose_answers`` as soon as a client sends these words, in one write; then as often again, on new
        connections."""
        self._loses_at = words, times

    async def end(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, self._behind)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(inner_writer)
        mute = self._mute
        ways = (
            (reader, inner_writer, mute.requests, self._read),
            (inner_reader, writer, mute.answers, lambda data: None),
        )
        for source, target, muted, look in ways:
            task = asyncio.create_task(_pass_on(source, target, muted, look))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    def _read(self, request: bytes) -> None:
        words, times = self._loses_at
        if times and words in request:
            self._loses_at = words, times - 1
            self.lose_answers()


async def _pass_on(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    mute: asyncio.Event,
    look: Callable[[bytes], None],
) -> None:
    try:
        while data := await source.read(PIECE_BYTES):
            look(data)
            if not mute.is_set():
                target.write(data)
                await target.drain()
    except OSError:
        pass  # either side cut the connection: the other is to see the same
    if not mute.is_set():
        target.transport.abort()


@asynccontextmanager
async def proxy_before(port: int) -> AsyncIterator[TcpProxy]:
    """A proxy that runs; ended at the end."""
    proxy = TcpProxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.end()
