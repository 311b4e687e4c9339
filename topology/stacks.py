"""Where a task waits, in one line: for the log of somebody who was not there."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from types import FrameType
from typing import Any

#: Tasks that wait for tasks, and coroutines inside one another, at most.
MOST_FRAMES = 60
_OPAQUE = frozenset({"coroutine_wrapper", "async_generator_asend", "async_generator_athrow"})


def stack_of(task: asyncio.Task[object]) -> str:
    """The frames of a task that waits, the innermost last, and those of the task that it waits for, if it does."""
    parts = [f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}" for frame, line in _frames(task)]
    if task.done():
        parts.append("the task has ended")
    return " > ".join(parts) or "nothing is known of where it waits"


def _frames(task: asyncio.Task[object]) -> Iterator[tuple[FrameType, int]]:
    # asyncio's own Task.get_stack() shows the outermost coroutine alone.
    waiting: Any = task.get_coro()
    count = 0
    while waiting is not None and count < MOST_FRAMES:
        count += 1
        frame = _of(waiting, "frame")
        if frame is not None:
            yield frame, frame.f_lineno
        waiting = _of(waiting, "await", "yieldfrom") or _inside(waiting)
    # A detail of CPython's tasks, in C and in Python; without it the line is shorter.
    awaited = getattr(task, "_fut_waiter", None)
    if isinstance(awaited, asyncio.Task) and not awaited.done():
        yield from _frames(awaited)


def _inside(waiting: Any) -> Any:
    """What ``__await__`` of a coroutine and ``asend`` of a generator hold, and do not show."""
    if type(waiting).__name__ not in _OPAQUE:
        return None
    return next((each for each in gc.get_referents(waiting) if _of(each, "frame") is not None), None)


def _of(waiting: Any, *names: str) -> Any:
    """Of a coroutine, a generator or an asynchronous generator."""
    for prefix in ("cr", "gi", "ag"):
        for name in names:
            found = getattr(waiting, f"{prefix}_{name}", None)
            if found is not None:
                return found
    return None
