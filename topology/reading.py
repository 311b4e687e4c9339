"""A reading: one continuous pass of a group over the log, from its saved positions on.

All that a group holds in memory hangs on its reading, so dropping it and making the next one is what a crash
and a restart would do, without either.
"""

from __future__ import annotations

from collections.abc import Mapping

from topology.ids import Ids
from topology.intake import Intake
from topology.position import NOWHERE, Position
from topology.rows import RowCache
from topology.state import GroupState

#: Events may be this much out of order before the watermark has passed them.
ALLOWED_DISORDER_MS = 10_000


class Reading:
    """``positions``: what each agent has folded. ``handed_up_to``: what this reading gave to the agents.
    ``read_up_to``: the furthest message that the group is known to have read, by this reading or before.

    ``number`` tells readings of one process apart; a batch carries it.
    """

    def __init__(
        self,
        number: int,
        saved: GroupState,
        agents: Mapping[str, object],
        rows: RowCache,
        ids: Ids,
        intake: Intake,
    ) -> None:
        self.number = number
        self.rows = rows
        self.ids = ids
        self.intake = intake
        self.positions = {name: saved.positions.get(name, NOWHERE) for name in agents}
        self.digests: dict[Position, bytes] = {saved.read_up_to: saved.digest}
        self.read_up_to = saved.read_up_to
        self.read_digest = saved.digest
        self.horizon = saved.horizon
        self.watermark = saved.watermark
        self.handed_up_to = min(self.positions.values())

    @property
    def lowest(self) -> Position:
        """Where reading must begin: what every agent has folded."""
        return min(self.positions.values())

    @property
    def highest(self) -> Position:
        """The furthest that any agent is."""
        return max(self.positions.values())

    def handed(self, last: Position, digest: bytes) -> None:
        """A batch that ends here goes to the agents."""
        self.digests[last] = digest
        self.handed_up_to = last
        if last > self.read_up_to:
            self.read_up_to = last
            self.read_digest = digest

    def done(self, agent: str, last: Position) -> None:
        """The agent has folded everything up to ``last``."""
        if last > self.positions[agent]:
            self.positions[agent] = last
            lowest = self.lowest
            highest = self.highest
            for position in [p for p in self.digests if p < lowest and p != highest]:
                del self.digests[position]

    def seen(self, time_ms: int) -> None:
        """Event time has come this far; the watermark follows it and never goes back, late events do not
        turn time around."""
        self.watermark = max(time_ms - ALLOWED_DISORDER_MS, self.watermark or 0)
