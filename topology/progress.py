"""Whether agents get on. One that is alive and makes no progress while there is something to do is stuck: nothing else
would tell of it, since it raises nothing and its process answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from topology.stacks import stack_of

log = logging.getLogger(__name__)

#: With the time between two looks this is well below a minute. A batch takes a second where it takes long.
STUCK_AFTER_S = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far an agent is. ``reached`` is another value whenever it got on; ``behind``: there is something to do;
    ``excused``: what it waits for is known; ``task`` runs its body, None before it began."""

    reached: Hashable
    behind: bool
    excused: bool
    task: asyncio.Task[object] | None


class Progress:
    """What the last looks saw. ``monotonic``: seconds, as durations are never measured by the wall clock."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._last: dict[str, tuple[Hashable, float]] = {}
        self._stuck: dict[str, str] = {}

    @property
    def stuck(self) -> Mapping[str, str]:
        """Agents that make no progress, and what to say of them."""
        return self._stuck

    def saw(self, agent: str, at: Standing) -> bool:
        """Look at an agent; returns whether it is stuck. The stack of its task is logged once, when it becomes so."""
        now = self._monotonic()
        reached, since = self._last.get(agent, (None, now))
        if at.reached != reached or not at.behind or at.excused or agent not in self._last:
            self._last[agent] = (at.reached, now)
            if self._stuck.pop(agent, None) is not None:
                log.warning("agent %s gets on again", agent)
            return False
        if now - since < STUCK_AFTER_S:
            return False
        if agent not in self._stuck:
            self._stuck[agent] = (
                f"makes no progress for {STUCK_AFTER_S:.0f} s and more though there are events: see the line with its "
                "stack in the log, and restart the worker, nothing is lost"
            )
            log.error(
                "agent %s %s",
                agent,
                "makes no progress though there are events: restart the worker, nothing is lost, and report this line",
                extra={"stack": "its body has not begun" if at.task is None else stack_of(at.task)},
            )
        return True
