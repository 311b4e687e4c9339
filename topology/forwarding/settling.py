"""Settling: what became of each event that was taken, and how many are still on their way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from schemas.reading import Refusal
from topology.batch import LogEvent
from topology.forwarding.consignments import Consignment, Consignments, Item
from topology.forwarding.selection import Reason
from topology.group.intake import dead_letter
from topology.metrics import Metrics
from topology.outages import Outages
from topology.position import written
from topology.sinks import DeadLetters
from topology.telling import Telling

log = logging.getLogger(__name__)

#: Events that are on their way: about 20 MB. Those of users that a vendor holds back are among them.
MOST_ON_THE_WAY = 20_000
#: To a vendor that cannot tell repeats: so many are never sent, or in doubt, where the process is killed.
MOST_RESERVED = 1_000
#: Where they are large.
MOST_BYTES_ON_THE_WAY = 64 << 20
#: Batches behind one that is not settled, of nothing that is sent too: about 10 MB.
MOST_BATCHES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a forwarder needs of its group. ``clock_ms``: the wall clock; ``fail``: the process cannot go on."""

    dead_letters: DeadLetters
    outages: Outages
    metrics: Metrics
    clock_ms: Callable[[], int]
    fail: Callable[[BaseException], None]


class Settling:
    """Of the agent ``agent``, to the vendor at ``where``; ``most``: events on their way."""

    def __init__(self, agent: str, where: str, around: Surroundings, most: int) -> None:
        self._agent = agent
        self._where = where
        self._around = around
        self._most = most
        self._metrics = around.metrics
        self.consignments = Consignments(self._look_for_room)
        self._on_the_way = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._closed = False
        self._burials = Telling(around.clock_ms)
        self._doubts = Telling(around.clock_ms)

    async def room(self) -> None:
        """Return when more may be on its way; never once ``close`` was called."""
        while not self._is_room():
            self._room.clear()
            await self._room.wait()

    @property
    def closed(self) -> bool:
        """Whether the vendor takes nothing."""
        return self._closed

    def close(self) -> None:
        """The vendor takes nothing: nothing more comes on its way."""
        self._closed = True

    def deliver(self, items: Sequence[Item]) -> None:
        for item in items:
            item.consignment.counts.folded += 1
        self.settle(items)

    async def put_aside(self, reasons: Mapping[Item, str]) -> None:
        if not reasons:
            return
        await self.bury({item.event: reason for item, reason in reasons.items()})
        for item in reasons:
            item.consignment.counts.dead += 1
        self.settle(reasons)

    async def bury(self, reasons: Mapping[LogEvent, str]) -> None:
        letters = [
            dead_letter(
                event.position,
                event.original,
                received_ms=event.received_ms,
                agent=self._agent,
                refusal=Refusal("", f"{self._where}: {reason}"),
            )
            for event, reason in reasons.items()
        ]
        last, reason = list(reasons.items())[-1]
        if told := self._burials.due(len(letters)):
            log.error(
                "%s never takes %d event(s), they are dead letters now; the last one: %s",
                self._agent,
                told,
                reason,
                extra={"position": written(last.position)},
            )
        around = self._around
        await around.outages.ridden_out("dead letters", lambda: around.dead_letters.put(letters))

    def ignore(self, consignment: Consignment, reason: Reason) -> None:
        consignment.counts.ignored += 1
        self._metrics.forward_ignored_events(agent=self._agent, reason=reason).inc()

    def doubt(self, events: int, reason: str) -> None:
        self._metrics.forwarded_events(agent=self._agent, result="doubtful").inc(events)
        if told := self._doubts.due(events):
            log.warning(
                "%d event(s) may or may not have reached %s, and are not sent again: %s",
                told,
                self._agent,
                reason,
            )

    def settle(self, items: Collection[Item]) -> None:
        for item in items:
            item.consignment.open -= 1
        self.drop(items)
        self.consignments.advance()

    def add(self, items: Collection[Item]) -> None:
        """These are on their way."""
        self._on_the_way += len(items)
        self._bytes += sum(item.bytes for item in items)
        self._metrics.forward_pending_events(agent=self._agent).set(self._on_the_way)

    def drop(self, items: Collection[Item]) -> None:
        """These are not any more."""
        self._on_the_way -= len(items)
        self._bytes -= sum(item.bytes for item in items)
        self._metrics.forward_pending_events(agent=self._agent).set(self._on_the_way)
        self._look_for_room()

    def _look_for_room(self) -> None:
        if self._is_room():
            self._room.set()

    def _is_room(self) -> bool:
        return (
            not self._closed
            and self._on_the_way < self._most
            and self._bytes < MOST_BYTES_ON_THE_WAY
            and len(self.consignments) < MOST_BATCHES
        )
