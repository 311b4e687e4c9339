"""The running application, for tests that are not asynchronous themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.web.filling import raw
from tests.web.serving import served
from web.limits import Limits, Rate

STARTS_WITHIN_S = 30.0

#: Whoever sends thousands of requests wants to see what they are answered, and not that they are too many.
UNLIMITED = Rate(per_s=1e6, burst=10**6)


class Target(NamedTuple):
    """Where it listens, and a key of each scope."""

    host: str
    port: int
    secrets: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def served_in_a_thread(folder: Path, **changes: Any) -> Iterator[Target]:
    """``served`` on a loop of its own, with a few events in the archive and, unless told, no limit of rates."""
    changes.setdefault("limits", Limits(key_rate=UNLIMITED, failed_attempts_rate=UNLIMITED))
    started: Future[Target] = Future()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        try:
            async with served(folder, **changes) as app:
                await app.stores.raw_events.insert([raw(at) for at in range(5)])
                assert app.client.port is not None
                started.set_result(Target(app.client.host, app.client.port, app.secrets))
                await done.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        yield started.result(STARTS_WITHIN_S)
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()
