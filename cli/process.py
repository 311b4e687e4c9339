"""What ``up``, ``worker`` and ``web`` have in common: open the parts, run, and end in the reverse order.

A process starts fully or not at all. SIGTERM and SIGINT end it cleanly within 10 seconds: each step of the end has a
limit of its own, and where several are used up the rest is cut off. An error that it cannot go on with ends it with 1
and one line.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

from aiohttp import web
from prometheus_client import disable_created_metrics

from cli.watchdog import watched
from topology.errors import Unavailable
from topology.metrics import ConnectionMetrics
from web import connections
from web.connections import Acceptor, ConnectionLimits, runner_of
from web.server import REQUESTS_END_WITHIN_S

try:
    import uvloop
except ImportError:  # it is not made for every system; asyncio's own loop does the same, slower
    NEW_LOOP: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    NEW_LOOP = uvloop.new_event_loop

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Allocations between two looks at the youngest objects; the default is 700.
GARBAGE_THRESHOLD = 50_000
#: A server that is still starting is waited for this long.
START_PATIENCE = timedelta(seconds=30)
BETWEEN_TRIES_S = 0.5
#: Open files that are no connections of clients: databases, servers, the log.
OTHER_FILES = 256
#: From the signal on, of the ten seconds that are promised. What is silent by itself is waited for to its limit; these
#: limits together are more, and a disk has none.
ENDS_WITHIN_S = 9.0


def clock_ms() -> int:
    """The one wall clock of a process."""
    return time.time_ns() // 1_000_000


def run(main: Coroutine[None, None, None], *, ends_within_s: float = ENDS_WITHIN_S) -> None:
    """Run a process's main coroutine, on uvloop where it is available. SIGTERM or SIGINT cancels it, once: it
    unwinds what it opened, and that is a clean end. What it raises is raised here. Where unwinding takes longer than
    ``ends_within_s``, the process ends without the rest."""
    # Batches are many small objects without cycles, which the default thresholds make the collector walk over
    # and over (docs/performance.md). What the imports made is never garbage.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)
    # A second series for each counter, which nobody asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library's
    # A thread: the loop may be blocked, and it waits for its threads at its own end.
    deadline = threading.Timer(ends_within_s, _cut_off, [ends_within_s])
    deadline.daemon = True
    try:
        with asyncio.Runner(loop_factory=NEW_LOOP) as runner:
            runner.run(_until_signalled(main, deadline.start))
    finally:
        deadline.cancel()


def _cut_off(after_s: float) -> None:
    """As ``kill -9``, which nothing is lost by."""
    log.warning(
        "ending took longer than %g s, the rest of it is left out: nothing is lost, what was not saved is read again",
        after_s,
    )
    os._exit(0)


async def _until_signalled(main: Coroutine[None, None, None], on_signal: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    work = loop.create_task(main)
    signalled = False

    def stop() -> None:
        nonlocal signalled
        if not signalled:  # a second signal must not cut the unwinding short
            signalled = True
            on_signal()
            work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        with watched(loop):
            await work
    except asyncio.CancelledError:
        if not signalled:
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def patiently(call: Callable[[], Awaitable[T]], patience: timedelta = START_PATIENCE) -> T:
    """The result of ``call``, tried again while it says ``Unavailable``; after ``patience`` that error is
    raised. Everything else, wrong credentials first of all, is raised at once."""
    last_try = time.monotonic() + patience.total_seconds()
    told = False
    while True:
        try:
            return await call()
        except Unavailable as error:
            if time.monotonic() >= last_try:
                raise
            if not told:
                log.warning("waiting up to %.0f s: %s", patience.total_seconds(), error)
                told = True
            await asyncio.sleep(BETWEEN_TRIES_S)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a process listens. Written as an address that can be opened on this machine."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        # 0.0.0.0 and :: stand for all addresses; a browser needs one of them.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - nothing listens here
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def page(self) -> str:
        """What is said of the page."""
        address = ipaddress.ip_address(self.host.partition("%")[0])
        if not address.is_unspecified:
            return f"the page is at {self}/"
        return f"the page is at {self}/, and at port {self.port} of every IPv{address.version} address of this machine"


async def serve(
    stack: AsyncExitStack,
    application: web.Application,
    host: str,
    port: int,
    *,
    limits: ConnectionLimits,
    metrics: ConnectionMetrics,
    tls: ssl.SSLContext | None = None,
    requests_end_within_s: float = REQUESTS_END_WITHIN_S,
) -> Listening:
    """Listen; returns the address. Ends with the stack; open requests have so long to end, and once more as long when
    they are cancelled. Raises ``Unavailable`` where the port is taken."""
    limits = replace(limits, max_connections=_room_for(limits.max_connections))
    runner = runner_of(application, limits, ends_within_s=requests_end_within_s)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    assert runner.server is not None  # noqa: S101 - it was set up
    acceptor = Acceptor(runner.server, limits, tls=tls, metrics=metrics)
    stack.push_async_callback(acceptor.stop)
    try:
        (address, *_) = await acceptor.start(host, port)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    return Listening("http" if tls is None else "https", *address)


def can_listen(host: str, port: int, *, instead: str) -> None:
    """Raise the ``Unavailable`` with which ``serve`` would end, before anything is made. ``instead``: what to do."""
    try:
        connections.can_listen(host, port)
    except OSError as error:
        raise _cannot_listen(host, port, error, instead) from None


def _cannot_listen(
    host: str, port: int, error: OSError, instead: str = "choose another with --host or --port"
) -> Unavailable:
    # The name of a host that is none has a number of its own, and its reason only in words.
    reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return Unavailable(f"cannot listen on {host}:{port} ({reason}): {instead}")


def _room_for(connections: int) -> int:
    """How many of them the system's limit of open files leaves room for, after it was raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    room = max(soft - OTHER_FILES, soft // 2)
    log.warning(
        "at most %d connections at once, not %d: the system allows %d open files (ulimit -n, LimitNOFILE=)",
        room,
        connections,
        soft,
    )
    return room


async def first_failure(*failures: asyncio.Future[None]) -> None:
    """Wait until one of the futures fails, which a process that runs well never sees, and raise its error."""
    await asyncio.wait(
        failures or [asyncio.get_running_loop().create_future()], return_when=asyncio.FIRST_COMPLETED
    )
    for failure in failures:
        if failure.done():
            failure.result()
