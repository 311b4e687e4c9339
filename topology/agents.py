"""How an agent is declared: its group, the rollups that it folds, and a body that reads batches.

    @agent(group="rollups", rollups=[space_storage])
    async def storage(batches: Batches) -> None:
        async for batch in batches:
            await batch.fold(space_storage)

The body is a Faust agent's: the composition root makes it one (``flow.py``). Nothing is connected here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from topology.rollups.operators import AnyRollup


class AgentBatch(Protocol):
    """A batch as one agent sees it. Each method may be called once for a batch; all wait while what
    they need is away, and leave it to the engine that no event is lost or counted twice."""

    async def fold(self, rollup: AnyRollup) -> None:
        """Fold the events into the rows of a rollup of this agent."""

    async def archive(self) -> None:
        """Keep every event, canonical and as it came."""

    async def forward(self) -> None:
        """Send the events to the vendor of this agent. Returns when they are on their way: the position passes
        them once all are settled."""


Batches: TypeAlias = AsyncIterator[AgentBatch]
Body: TypeAlias = Callable[[Batches], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A declaration. ``name`` appears in logs, metrics and saved positions: it never changes."""

    name: str
    group: str
    rollups: tuple[AnyRollup, ...]
    body: Body

    @property
    def types(self) -> frozenset[type] | None:
        """The events that it looks at; None where it takes all."""
        return frozenset().union(*(rollup.types for rollup in self.rollups)) if self.rollups else None


def agent(*, group: str, rollups: Sequence[AnyRollup] = ()) -> Callable[[Body], Agent]:
    """Declare the decorated function as an agent of ``group``."""

    def declare(body: Body) -> Agent:
        return Agent(name=body.__name__, group=group, rollups=tuple(rollups), body=body)

    return declare
