"""Tells of an event loop that does not turn: then nothing of this process answers, ``/readyz`` included, and only
another thread can say where it hangs."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

TICK_EVERY_S = 1.0
LOOK_EVERY_S = 5.0
#: Long work yields every few milliseconds; half a minute is a fault, or a disk that does not answer.
BLOCKED_AFTER_S = 30.0


class Watchdog:
    """``ticked`` by the loop, ``look`` by the thread. ``monotonic``: seconds."""

    def __init__(self, loop_thread: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._loop_thread = loop_thread
        self._monotonic = monotonic
        self._ticked_at = monotonic()
        self._late = False
        self._told = False

    def ticked(self) -> None:
        """The loop turns."""
        self._ticked_at = self._monotonic()
        if self._told:
            self._told = False
            log.warning("the event loop turns again")

    def look(self) -> None:
        """Tell once of a loop that is blocked. Two looks in a row must find it so: after the machine slept, this thread
        may be awake before the loop is."""
        late = self._monotonic() - self._ticked_at >= BLOCKED_AFTER_S
        if late and self._late and not self._told:
            self._told = True
            log.error(
                "the event loop is blocked, nothing of this process goes on: restart it, nothing is lost, and report "
                "this line",
                extra={"stack": self._stack()},
            )
        self._late = late

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return " > ".join(
            f"{each.filename}:{each.lineno} {each.name}" for each in traceback.extract_stack(frame)
        )


@contextmanager
def watched(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Inside, this thread's loop is watched."""
    watchdog = Watchdog(threading.get_ident())
    ending = threading.Event()

    next_tick: asyncio.TimerHandle | None = None

    def tick() -> None:
        nonlocal next_tick
        watchdog.ticked()
        next_tick = loop.call_later(TICK_EVERY_S, tick)

    def watch() -> None:
        while not ending.wait(LOOK_EVERY_S):
            watchdog.look()

    tick()
    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        ending.set()
        if next_tick is not None:
            next_tick.cancel()
