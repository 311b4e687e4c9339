"""What a contestant measures of itself: from its first message to its last, on the clock that all processes of a
machine share, and the CPU that it used in between. What a start costs is in neither.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

#: Begins the line with the result. A contestant may print others.
RESULT = "measured"


class Span:
    """``begin`` at the first message, ``end`` at the last."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None

    @property
    def begun(self) -> bool:
        return self._began is not None

    def begin(self) -> None:
        """The first call counts."""
        if self._began is None:
            self._began = time.monotonic(), time.process_time()

    def end(self, *more: Sequence[float]) -> None:
        """Print the result, and after it one line of each list that goes with it."""
        if self._began is None:
            raise RuntimeError("ended before it began")
        ended, cpu = time.monotonic(), time.process_time()
        print(RESULT, self._began[0], ended, cpu - self._began[1])
        for numbers in more:
            print(*numbers)
        sys.stdout.flush()


def until_told() -> None:
    """Wait for the end of the input: the memory of a process can be looked at while it is there."""
    sys.stdin.read()
