"""A forwarder: the events of one agent to one vendor, so that each counts once there.

    take        a batch: what is selected is mapped (``vendor.parcel``); waits while too much is on its way
    reserve     where the vendor does not know again what it was sent: what may have been sent is durable first
    batch       parcels wait until a request is full, or has waited                          batching.py
    admit       not while the vendor is away or asks for a pause                             breaker.py
    post        one request, never repeated by itself                                        posting.py
    settle      by the verdict on the answer: done, dead, or once more          sending.py, outcomes.py
    finish      batches in order: only now the position passes them                          consignments.py

A vendor that is away, slow or refuses the key stops this agent's reading and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from topology.batch import Batch, LogEvent
from topology.errors import Conflict
from topology.forwarding.breaker import Pace
from topology.forwarding.consignments import Consignment, Item
from topology.forwarding.reservations import Reservations
from topology.forwarding.selection import Selection
from topology.forwarding.sending import Sending
from topology.forwarding.settling import MOST_ON_THE_WAY, MOST_RESERVED, Settling, Surroundings
from topology.forwarding.vendor import Vendor
from topology.position import Position

log = logging.getLogger(__name__)

#: Looked at without letting others work; also how many are reserved at once.
LOOKED_AT_A_TIME = 500
#: A stop waits this long for the store of rows.
LAST_SAVING_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """What the composition root says of one forwarder."""

    vendor: Vendor
    selection: Selection = field(default_factory=Selection)
    pace: Pace = field(default_factory=Pace)


class Forwarder:
    """``start``, ``take`` batches, ``stop``."""

    def __init__(
        self,
        agent: str,
        forwarding: Forwarding,
        surroundings: Surroundings,
        reservations: Reservations | None,
    ) -> None:
        """``reservations`` where the vendor is not repeatable."""
        vendor = forwarding.vendor
        self._agent = agent
        self._vendor = vendor
        self._selection = forwarding.selection
        self._reservations = reservations
        most = MOST_ON_THE_WAY if reservations is None else MOST_RESERVED
        self._settling = Settling(agent, vendor.where, surroundings, most)
        self._sending = Sending(agent, vendor, forwarding.pace, self._settling, surroundings, reservations)
        self._reading: int | None = None
        self._started = False

    @property
    def stopped(self) -> str | None:
        """What to mend; None while all is well."""
        return self._sending.stopped

    # -- life --

    async def start(self) -> None:
        """Load what was reserved, then begin to send."""
        if self._reservations is not None:
            await self._reservations.load()
        self._sending.start()
        self._started = True

    async def stop(self) -> None:
        """Wait a moment for answers that are due; what is not settled is read again. Idempotent."""
        started, self._started = self._started, False
        if not started:
            return
        await self._sending.stop()
        if self._reservations is not None:
            try:
                async with asyncio.timeout(LAST_SAVING_S):
                    await self._reservations.end()
            except TimeoutError:
                log.warning(
                    "%s ends while the store of rows is away: what it may have sent counts as doubtful",
                    self._agent,
                )
            except Conflict:
                log.warning(
                    "%s was taken over by another worker, which knows what may have been sent", self._agent
                )

    @property
    def answers(self) -> int:
        """Requests that came to an end."""
        return self._sending.answers

    @property
    def waits(self) -> bool:
        """Whether the vendor is what is waited for: it is away, throttles somebody, or refuses everything."""
        return self._sending.waits

    # -- taking --

    async def take(self, batch: Batch) -> Consignment:
        """Take a batch and return once all of it is on its way or settled. Waits while there is no room."""
        if batch.reading != self._reading:
            await self._begin_anew(batch.reading)
        await self._settling.room()  # those of nothing but events that are not sent wait for their turn too
        consignment = self._settling.consignments.begin(batch.reading)
        for first in range(0, len(batch.events), LOOKED_AT_A_TIME):
            items = await self._looked_at(batch.events[first : first + LOOKED_AT_A_TIME], consignment)
            if not items:
                await asyncio.sleep(0)
                continue
            await self._settling.room()
            if self._reservations is not None:
                items = await self._reserved(items, self._reservations)
            consignment.open += len(items)
            self._settling.add(items)
            self._sending.put(items)
        consignment.complete = True
        self._settling.consignments.advance()
        return consignment

    async def _looked_at(self, events: Sequence[LogEvent], consignment: Consignment) -> list[Item]:
        items: list[Item] = []
        before: list[Position] = []
        for event in events:
            if self._reservations is not None and event.position in self._reservations.before:
                before.append(event.position)
                continue
            reason = self._sending.too_old(event) or self._selection.reason(event)
            if reason is not None:
                self._settling.ignore(consignment, reason)
                continue
            try:
                parcel = self._vendor.parcel(event)
            except Exception as error:  # noqa: BLE001 - it becomes the letter's reason
                await self._settling.bury({event: f"cannot be mapped: {error!r}"})
                consignment.counts.dead += 1
                continue
            if parcel is None:
                self._settling.ignore(consignment, "unknown_to_vendor")
            else:
                items.append(Item(event, parcel, consignment))
        self._sent_before(before, consignment)
        return items

    async def _reserved(self, items: list[Item], reservations: Reservations) -> list[Item]:
        """Those that may be sent now; durable."""
        await reservations.reserve([item.event.position for item in items])
        before = [item for item in items if item.event.position in reservations.before]
        if before:
            self._sent_before([item.event.position for item in before], before[0].consignment)
        return [item for item in items if item.event.position not in reservations.before]

    def _sent_before(self, positions: Sequence[Position], consignment: Consignment) -> None:
        """An earlier process, or an earlier reading, sent these, or may have."""
        consignment.counts.folded += len(positions)
        if self._reservations is not None:
            doubtful = sum(map(self._reservations.doubtful, positions))
            if doubtful:
                self._settling.doubt(doubtful, "on their way when an earlier process ended")

    async def _begin_anew(self, reading: int) -> None:
        """The group reads again from its saved positions: what has not been sent will come again."""
        self._reading = reading
        self._settling.consignments.forget()
        await self._sending.begin_anew(reading)
        if self._reservations is not None:
            self._reservations.give_up()
