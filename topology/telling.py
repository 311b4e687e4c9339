"""What happens again and again is told the first time, and then once a minute with how often it happened."""

from __future__ import annotations

from collections.abc import Callable

EVERY_MS = 60_000


class Telling:
    """Of one kind of mishap. ``clock_ms``: the wall clock."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._untold = 0
        self._told_ms: int | None = None

    def due(self, count: int = 1) -> int:
        """It happened ``count`` times more. How many to tell of now, with those kept back; 0: none yet."""
        self._untold += count
        now = self._clock_ms()
        if self._told_ms is not None and 0 <= now - self._told_ms < EVERY_MS:
            return 0
        self._told_ms = now
        told, self._untold = self._untold, 0
        return told
