"""What ``up``, ``worker`` and ``web`` have in common: open the parts, run, and end in the reverse order.

A process starts fully or not at all. SIGTERM and SIGINT end it cleanly within 10 seconds; an error that it cannot
go on with ends it with 1 and one line.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TypeVar

from aiohttp import web

from topology.errors import Unavailable
from web import server

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


def clock_ms() -> int:
    """The one wall clock of a process."""
    return time.time_ns() // 1_000_000


def run(main: Coroutine[None, None, None]) -> None:
    """Run a process's main coroutine, on uvloop where it is available. SIGTERM or SIGINT cancels it, once: it
    unwinds what it opened, and that is a clean end. What it raises is raised here."""
    # Batches are many small objects without cycles, which the default thresholds make the collector walk over
    # and over (docs/performance.md). What the imports made is never garbage.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)
    with asyncio.Runner(loop_factory=NEW_LOOP) as runner:
        runner.run(_until_signalled(main))


async def _until_signalled(main: Coroutine[None, None, None]) -> None:
    loop = asyncio.get_running_loop()
    work = loop.create_task(main)
    signalled = False

    def stop() -> None:
        nonlocal signalled
        if not signalled:  # a second signal must not cut the unwinding short
            signalled = True
            work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
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


async def serve(stack: AsyncExitStack, application: web.Application, host: str, port: int) -> str:
    """Listen; returns the address. Ends with the stack. Raises ``Unavailable`` where the port is taken."""
    runner = server.runner(application)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno is not None else error.strerror
        raise Unavailable(
            f"cannot listen on {host}:{port} ({reason}): choose another with --host or --port"
        ) from None
    (address, *_) = runner.addresses
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{shown}:{address[1]}"


async def first_failure(*failures: asyncio.Future[None]) -> None:
    """Wait until one of the futures fails, which a process that runs well never sees, and raise its error."""
    await asyncio.wait(
        failures or [asyncio.get_running_loop().create_future()], return_when=asyncio.FIRST_COMPLETED
    )
    for failure in failures:
        if failure.done():
            failure.result()
