"""Event-time windows. Nothing here reads a clock: time comes in as an argument.

Instants are integers, epoch milliseconds for events and epoch seconds for window edges: they are
compared and divided millions of times, and are what logs and stores hold (docs/decisions/0003).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Fixed windows that cover all time and never overlap, aligned to the Unix epoch in UTC."""

    name: str
    seconds: int

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError(f"window size must be positive, got {self.seconds} s")

    def start(self, at_s: int) -> int:
        """Start of the window that holds this epoch second; an event on an edge opens the next window."""
        return at_s - at_s % self.seconds

    def end(self, start_s: int) -> int:
        """First second after the window that starts here."""
        return start_s + self.seconds


MINUTE = Tumbling("1m", 60)
HOUR = Tumbling("1h", 3600)
DAY = Tumbling("1d", 86400)

#: Every rollup exists in these, the finest first; each divides the next, so parts of a finer window
#: are parts of exactly one coarser window.
WINDOWS = (MINUTE, HOUR, DAY)
