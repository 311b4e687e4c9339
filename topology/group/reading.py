"""A reading: one continuous pass of a group over the log, from its saved positions on.

All that a group holds in memory hangs on its reading, so dropping it and making the next one is what a crash
and a restart would do, without either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from topology.group.ids import Ids
from topology.group.intake import Intake
from topology.group.rows import RowCache
from topology.position import NOWHERE, Position, place
from topology.rollups.operators import AnyRollup, Operator, Scope, operator
from topology.services.operator import ServiceOperator
from topology.state import GroupState

#: Events may be this much out of order before the watermark has passed them.
ALLOWED_DISORDER_MS = 10_000


class Reading:
    """``positions``: what each agent has folded. ``handed_up_to``: what this reading gave to the agents.
    ``read_up_to``: the furthest message that the group is known to have read, by this reading or before, and
    ``read_digest`` its digest.

    ``number`` tells readings of one process apart; a batch carries it.
    """

    def __init__(
        self,
        number: int,
        saved: GroupState,
        agents: Iterable[str],
        rows: RowCache,
        ids: Ids,
        intake: Intake,
    ) -> None:
        self.number = number
        self.rows = rows
        self.ids = ids
        self.intake = intake
        self.positions = {name: saved.positions.get(name, NOWHERE) for name in agents}
        self.read_up_to = saved.read_up_to
        self.read_digest = saved.digest
        self.horizon = saved.horizon
        self.begins_at_first = saved.begins_at_first
        #: The first offset that was left when a cut was told of.
        self.told: int | None = None
        self.handed_up_to = min(self.positions.values())
        #: What this reading gave to the agents, and what each is done with.
        self.messages_handed = 0
        self.events_handed = 0
        self._events_done = dict.fromkeys(self.positions, 0)
        #: By agent, the newest event time of what it folded last.
        self._newest: dict[str, int] = {}
        #: An agent that was added later begins anew, and turns time around for nobody.
        self._reached = saved.watermark
        # A checkpoint saves the watermark that it began with, and what the sink was told until it ended.
        self._told_ms = (
            None if saved.told_ms is None or saved.watermark is None else min(saved.told_ms, saved.watermark)
        )
        self.operators: Mapping[str, Operator] = {}
        self._watermarks: dict[str, int | None] = {
            name: saved.watermark if position != NOWHERE else None
            for name, position in self.positions.items()
        }

    def operate(self, rollups: Iterable[AnyRollup], scope: Scope) -> None:
        """Make the operators."""
        self.operators = {rollup.name: operator(rollup, scope) for rollup in rollups}

    @property
    def timed(self) -> Iterable[ServiceOperator]:
        """Those whose values depend on the passing of time."""
        return [each for each in self.operators.values() if isinstance(each, ServiceOperator)]

    @property
    def told_ms(self) -> int | None:
        """The watermark up to which the sink was told of the passing of time."""
        told = [each.told_ms for each in self.timed]
        if not told:
            return self._told_ms
        return None if None in told else min(at for at in told if at is not None)

    @property
    def lowest(self) -> Position:
        """Where reading must begin: what every agent has folded."""
        return min(self.positions.values())

    @property
    def watermark(self) -> int | None:
        """Event time (epoch milliseconds) that every agent's own watermark has reached; None at first. It never moves
        back, not even over restarts."""
        reached = [at for at in self._watermarks.values() if at is not None]
        if len(reached) == len(self._watermarks):
            self._reached = max(min(reached), self._reached or 0)
        return self._reached

    def begin_after(self, last: Position, digest: bytes) -> None:
        """Everything up to ``last`` is left out. Only where nothing was read."""
        self.positions = dict.fromkeys(self.positions, last)
        self.handed(last, digest)

    def handed(self, last: Position, digest: bytes, *, messages: int = 0, events: int = 0) -> None:
        """A batch that ends here goes to the agents."""
        self.handed_up_to = last
        self.messages_handed += messages
        self.events_handed += events
        if last > self.read_up_to:
            self.read_up_to = last
            self.read_digest = digest

    def done(self, agent: str, last: Position, *, events: int) -> None:
        """The agent has folded everything up to ``last``: ``events`` more."""
        self.positions[agent] = max(last, self.positions[agent])
        self._events_done[agent] += events

    def lag(self, agent: str, end: int) -> int:
        """Events that the agent is not done with, in a log whose next message gets the offset ``end``. Exact for what
        was handed out; how many events are in a message that was not read, nobody knows: it counts as the mean of
        those that this reading read."""
        # An agent that was ahead when this reading began is handed what it knows already.
        reached = max(self.handed_up_to, self.positions[agent])
        unread = end if reached == NOWHERE else max(0, end - place(reached).offset - 1)
        mean = self.events_handed / self.messages_handed if self.messages_handed else 1.0
        in_hand = self.events_handed - self._events_done[agent] if self.positions[agent] < reached else 0
        return in_hand + round(unread * mean)

    def newest(self, agent: str) -> int | None:
        """Event time (epoch milliseconds) of the newest event in what the agent folded last. Unlike a watermark it
        moves back, in a backlog of old events. Before this reading's first one, what its saved watermark says; None
        where nothing does."""
        saved = self._watermarks[agent]
        return self._newest.get(agent, None if saved is None else saved + ALLOWED_DISORDER_MS)

    def seen(self, agent: str, time_ms: int) -> None:
        """The agent has folded an event of this time. Its watermark follows and never goes back: late events
        do not turn time around. One agent that is ahead moves nothing for the others."""
        self._newest[agent] = time_ms
        at = self._watermarks[agent]
        reached = time_ms - ALLOWED_DISORDER_MS
        self._watermarks[agent] = reached if at is None else max(at, reached)
