"""A batch in the hands of one agent: what it may do with it, and what became of each event.

Every event gets one outcome of each agent, the first that applies: dead, duplicate, late, folded, ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from schemas.canonical import canonical
from schemas.identity import identity
from schemas.reading import Refusal
from topology.agents import Agent
from topology.batch import Batch, LogEvent, by_type
from topology.errors import EventsinkError, Refused
from topology.forwarding.consignments import Consignment
from topology.forwarding.forwarder import Forwarder
from topology.group.intake import dead_letter
from topology.group.reading import Reading
from topology.metrics import Outcome
from topology.parts import GroupParts
from topology.position import Position, written
from topology.rollups.operators import AnyRollup
from topology.sinks import RawEvent

log = logging.getLogger(__name__)


class View:
    """Implements ``topology.agents.AgentBatch``. What this agent has folded before is counted, not folded."""

    def __init__(
        self, agent: Agent, batch: Batch, reading: Reading, parts: GroupParts, forwarder: Forwarder | None
    ) -> None:
        self._agent = agent
        self._batch = batch
        self._reading = reading
        self._parts = parts
        self._forwarder = forwarder
        self.received = batch.received
        self._after = reading.positions[agent.name]
        #: The batch on its way to a vendor; None where this agent forwards nothing.
        self.consignment: Consignment | None = None
        #: Types of events that were looked at.
        self._taken: set[type] = set()
        self._late: set[Position] = set()
        self._dead: set[Position] = set()

    async def fold(self, rollup: AnyRollup) -> None:
        """Fold the batch; an event that cannot be folded becomes a dead letter of this agent."""
        self._taken |= rollup.types
        try:
            await self._fold(rollup, self._batch.by_type)
        except EventsinkError:
            raise
        except Exception:  # noqa: BLE001 - told of with the events that are to blame
            # Nothing of the batch was folded. One event is to blame: find it, keep the others.
            for event in self._batch.events:
                try:
                    await self._fold(rollup, by_type([event]))
                except EventsinkError:
                    raise
                except Exception as error:  # noqa: BLE001 - it becomes the letter's reason
                    await self._bury(event, error)

    async def _fold(self, rollup: AnyRollup, events: Mapping[type, Sequence[LogEvent]]) -> None:
        self._late |= await self._reading.operators[rollup.name].fold(events, after=self._after)

    async def archive(self) -> None:
        """Keep every event; waits while the archive is away."""
        self._taken.update(self._batch.by_type)
        raw = [_raw(event) for event in self._batch.events if event.position > self._after]
        if not raw:
            return
        try:
            await self._keep(raw)
        except Refused:
            for event in self._batch.events:
                if event.position > self._after:
                    try:
                        await self._keep([_raw(event)])
                    except Refused as error:
                        await self._bury(event, error)

    async def forward(self) -> None:
        """Send the events to the vendor of this agent."""
        if self._forwarder is None:
            raise RuntimeError(f"agent {self._agent.name} forwards, and no vendor is set for it")
        self.consignment = await self._forwarder.take(self._batch)
        # It may wait long for its end, behind others; the events that are on their way are kept there.
        self._batch = self._batch._replace(events=(), by_type={})

    async def _keep(self, raw: Sequence[RawEvent]) -> None:
        archive = self._parts.raw_events
        await self._parts.outages.ridden_out(archive.name, lambda: archive.insert(raw))

    async def _bury(self, event: LogEvent, error: Exception) -> None:
        if not self._dead:  # one line for the batch: its other events are in the letters and in the metrics
            log.error(
                "agent %s cannot process an event, which is a dead letter now (`eventsink dead list`): %r",
                self._agent.name,
                error,
                exc_info=error,
                extra={"position": written(event.position)},
            )
        self._dead.add(event.position)
        letter = dead_letter(
            event.position,
            event.original,
            received_ms=event.received_ms,
            agent=self._agent.name,
            refusal=Refusal("", f"agent {self._agent.name} failed: {error!r}"),
        )
        await self._parts.outages.ridden_out("dead letters", lambda: self._parts.dead_letters.put([letter]))

    def count(self, group: str) -> None:
        """Tell the metrics what became of each event of the batch, and whether that adds up."""
        types = self._agent.types
        late = self._late - self._dead
        taken = ignored = 0
        for kind, events in self._batch.by_type.items():
            if kind in self._taken:
                taken += len(events)
            elif types is not None and kind not in types:
                ignored += len(events)
        dead = len(self._dead)
        if self.consignment is not None:
            sent = self.consignment.counts
            taken, dead, ignored = sent.folded + sent.dead, sent.dead, sent.ignored
        outcomes: dict[Outcome, int] = {
            "dead": len(self._batch.dead) + dead,
            "duplicate": len(self._batch.duplicates),
            "late": len(late),
            "folded": taken - len(late) - dead,
            "ignored": ignored,
        }
        metrics = self._parts.metrics
        for outcome, events_of_it in outcomes.items():
            metrics.events(group=group, agent=self._agent.name, outcome=outcome).inc(events_of_it)
        accounted = sum(outcomes.values())
        metrics.ledger_imbalance_events(agent=self._agent.name).inc(self.received - accounted)
        if accounted != self.received:
            log.warning(
                "the ledger of agent %s does not balance: %d events received, %d accounted for (%s); please report it",
                self._agent.name,
                self.received,
                accounted,
                ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()),
            )


def _raw(event: LogEvent) -> RawEvent:
    occurred = event.event
    return RawEvent(
        id=_raw_id(event),
        position=event.position,
        time=event.time_ms,
        received=event.received_ms,
        type=occurred.type,
        space_id=getattr(occurred, "space_id", None),
        event=canonical(occurred, time_ms=event.time_ms, id=occurred.id),
        original=event.original,
    )


def _raw_id(event: LogEvent) -> str:
    """By what its producer repeats it, else by its place."""
    occurred = event.event
    if occurred.id is None or occurred.time is None:
        return f"p:{event.position}"
    return f"i:{identity(occurred.source, occurred.id, occurred.time).hex()}"
