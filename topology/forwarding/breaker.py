"""A circuit breaker with backoff: when the next request may go.

closed       requests go as they come
pausing      after a failure: nothing goes for a while that doubles with each further one, with jitter
open         after ``OPENS_AFTER`` failures in a row: the pauses are long
half-open    the pause is over: one request goes, and its answer decides
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
OPENS_AFTER = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """The time that waiting is measured in: ``monotonic`` seconds, and a ``sleep`` that agrees with them."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Breaker:
    """``admitted`` before each request; then exactly one of ``succeeded`` and ``failed``, or ``given_back``."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0
        self._until = 0.0
        #: Until when the vendor wishes for no request.
        self._wished_until = 0.0
        self._probing = False
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self._failures >= OPENS_AFTER

    async def admitted(self) -> None:
        """Return when a request may go."""
        while True:
            left = max(self._until, self._wished_until) - self._pace.monotonic()
            if left > 0:
                await self._pace.sleep(left)
            elif self._failures and self._probing:
                self._changed.clear()
                await self._changed.wait()
            else:
                self._probing = self._failures > 0
                return

    def succeeded(self) -> None:
        """It was answered, whatever the answer means for the events. What another answer wished for still holds: this
        request was on its way already."""
        self._failures, self._until = 0, 0.0
        self._probed()

    def given_back(self) -> None:
        """It was not sent after all."""
        self._probed()

    def failed(self, retry_after_s: float | None = None) -> None:
        """The vendor is away or asks for a pause. Requests that were under way together count once."""
        now = self._pace.monotonic()
        if now >= self._until:
            self._failures += 1
            pause = min(FIRST_PAUSE_S * 2 ** (self._failures - 1), LONGEST_PAUSE_S)
            self._until = now + pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        if retry_after_s is not None:
            self._wished_until = max(self._wished_until, now + retry_after_s)
        self._probed()

    def _probed(self) -> None:
        self._probing = False
        self._changed.set()
