"""Servers go away and come back. Waiting for them is done here, once, and is visible while it lasts."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TypeVar

from topology.errors import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_DELAY_S = 0.1
#: Long enough not to hammer a server that is starting, short enough that a recovery is not waited for.
LONGEST_DELAY_S = 5.0


class Outages:
    """What is away at present, by name, and why. ``sleep`` is injected: tests do not wait. ``whole``: see ``part``."""

    def __init__(
        self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, whole: Outages | None = None
    ) -> None:
        self._sleep = sleep
        self._whole = whole or self
        self._away: dict[str, str] = {}

    def part(self) -> Outages:
        """For one of several that share dependencies: ``away`` of it is what it waits for itself. The whole has all."""
        return Outages(self._sleep, self._whole)

    @property
    def away(self) -> Mapping[str, str]:
        """Name of each dependency that did not answer the last call, and what it said."""
        return self._away

    async def ridden_out(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """The result of ``call``, repeated with backoff and jitter for as long as it says ``Unavailable``.

        ``call`` must be harmless to repeat. Everything else that it raises passes through.
        """
        delay = FIRST_DELAY_S
        whole = self._whole
        while True:
            try:
                result = await call()
            except Unavailable as error:
                if name not in whole._away:
                    log.warning("%s is away, waiting for it, nothing is lost: %s", name, error)
                self._away[name] = whole._away[name] = str(error)
                await self._sleep(pause(delay, error.retry_after))
                delay = min(delay * 2, LONGEST_DELAY_S)
            else:
                known = whole._away.pop(name, None)
                self._away.pop(name, None)
                if known is not None:
                    log.warning("%s is back", name)
                return result


def pause(delay_s: float, retry_after: timedelta | None) -> float:
    """Seconds until the next try: what the server asked for, else half to the whole of ``delay_s``."""
    if retry_after is not None:
        return retry_after.total_seconds()
    return delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
