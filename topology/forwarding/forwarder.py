"""A forwarder: the events of one agent to one vendor, so that each counts once there.

    take        a batch: what is selected is mapped (``vendor.parcel``); waits while too much is on its way
    reserve     where the vendor does not know again what it was sent: what may have been sent is durable first
    batch       parcels wait until a request is full, or has waited                          batching.py
    admit       not while the vendor is away or asks for a pause                             breaker.py
    post        one request, never repeated by itself                                        posting.py
    settle      by the verdict on the answer: done, dead, or once more                       outcomes.py
    finish      batches in order: only now the position passes them                          consignments.py

A vendor that is away, slow or refuses the key stops this agent's reading and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from topology.batch import Batch, LogEvent
from topology.forwarding.batching import Holding, Waiting
from topology.forwarding.breaker import Breaker, Pace
from topology.forwarding.consignments import Consignment, Item
from topology.forwarding.outcomes import (
    Delivered,
    Doubtful,
    Halve,
    Held,
    Later,
    Rejected,
    Stopped,
    Verdict,
)
from topology.forwarding.posting import NotSent, Poster, Unanswered
from topology.forwarding.reservations import Reservations
from topology.forwarding.selection import Reason, Selection
from topology.forwarding.settling import Settling, Surroundings
from topology.forwarding.vendor import Answer, Parcel, Vendor

log = logging.getLogger(__name__)

#: Looked at without letting others work; also how many are reserved at once.
LOOKED_AT_A_TIME = 500
#: A stop waits this long for answers.
LAST_ANSWERS_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """What the composition root says of one forwarder."""

    vendor: Vendor
    selection: Selection = field(default_factory=Selection)
    pace: Pace = field(default_factory=Pace)


class Forwarder:
    """``start``, ``take`` batches, ``stop``. ``stopped`` says why nothing goes out any more, None while all is well."""

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
        self._around = surroundings
        self._metrics = surroundings.metrics
        self._reservations = reservations
        self._settling = Settling(agent, vendor.where, surroundings)
        self._waiting = Waiting(vendor.limits, forwarding.pace)
        self._holding = Holding(forwarding.pace)
        self._breaker = Breaker(forwarding.pace)
        self._reading: int | None = None
        self._slots = asyncio.Semaphore(vendor.limits.in_flight)
        self._poster: Poster | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._away: str | None = None
        self.stopped: str | None = None

    # -- life --

    async def start(self) -> None:
        """Load what was reserved, then begin to send."""
        if self._reservations is not None:
            await self._reservations.load()
        self._poster = Poster(self._vendor.limits, self._vendor.secrets)
        self._metrics.forward_pending(self._agent, 0)
        self._metrics.breaker_open(self._agent, is_open=False)
        self._tasks = [self._guarded(self._send_for_ever()), self._guarded(self._wake_for_ever())]

    async def stop(self) -> None:
        """Wait a moment for answers that are due; what is not settled is read again. Idempotent."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        await _ended(tasks)
        if self._sending:
            await asyncio.wait(self._sending, timeout=LAST_ANSWERS_S)
            await _ended(list(self._sending))
        if self._reservations is not None:
            try:
                async with asyncio.timeout(LAST_ANSWERS_S):
                    await self._reservations.end()
            except TimeoutError:
                log.warning(
                    "%s ends while the store of rows is away: what it may have sent counts as doubtful",
                    self._agent,
                )
        if self._poster is not None:
            await self._poster.close()

    def _guarded(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - handed on: whoever runs the process stops it
                self._around.fail(error)

        return asyncio.get_running_loop().create_task(run())

    # -- taking --

    async def take(self, batch: Batch) -> Consignment:
        """Take a batch and return once all of it is on its way or settled. Waits while there is no room."""
        if batch.reading != self._reading:
            self._begin_anew(batch.reading)
        consignment = self._settling.consignments.begin(batch.reading)
        for first in range(0, len(batch.events), LOOKED_AT_A_TIME):
            items = await self._looked_at(batch.events[first : first + LOOKED_AT_A_TIME], consignment)
            if not items:
                await asyncio.sleep(0)
                continue
            await self._settling.room()
            if self._reservations is not None:
                await self._reservations.reserve([item.event.position for item in items])
            consignment.open += len(items)
            self._settling.moved(len(items))
            self._waiting.put(self._holding.kept(items))
        consignment.complete = True
        self._settling.consignments.advance()
        return consignment

    async def _looked_at(self, events: Sequence[LogEvent], consignment: Consignment) -> list[Item]:
        items: list[Item] = []
        for event in events:
            if self._reservations is not None and event.position in self._reservations.before:
                consignment.counts.folded += 1
                if event.position in self._reservations.doubtful:
                    self._settling.doubt(1, "it was on its way when an earlier process ended")
                continue
            reason = self._too_old(event) or self._selection.reason(event)
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
        return items

    def _too_old(self, event: LogEvent) -> Reason | None:
        most = self._vendor.limits.max_age_ms
        return "too_old" if most is not None and event.time_ms < self._around.clock_ms() - most else None

    def _begin_anew(self, reading: int) -> None:
        """The group reads again from its saved positions: what has not been sent will come again."""
        self._reading = reading
        self._settling.consignments.forget()
        if self._reservations is not None:
            self._reservations.give_up()
        waiting = len(self._waiting) + len(self._holding)
        self._waiting.clear()
        self._holding.clear()
        self._settling.moved(-waiting)

    # -- sending --

    async def _send_for_ever(self) -> None:
        await self._prove()
        while True:
            await self._slots.acquire()
            items: list[Item] = []
            while not items:
                await self._waiting.due()
                await self._breaker.admitted()
                if self._settling.closed:
                    return
                items = self._young(self._holding.kept(self._waiting.take()))
                if not items:
                    self._breaker.given_back()
            task = self._guarded(self._send(items))
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._slots.release()

    async def _wake_for_ever(self) -> None:
        while True:
            self._waiting.put_back(await self._holding.rested())

    def _young(self, items: list[Item]) -> list[Item]:
        """Without those that grew too old while they waited."""
        if self._vendor.limits.max_age_ms is None:
            return items
        old = [item for item in items if self._too_old(item.event)]
        for item in old:
            self._settling.ignore(item.consignment, "too_old")
        self._settling.settle(old)
        return [item for item in items if item not in old] if old else items

    async def _send(self, items: list[Item]) -> None:
        vendor = self._vendor
        parcels = [item.parcel for item in items]
        if self._reservations is not None:
            self._reservations.sent(item.event.position for item in items)
        assert self._poster is not None  # noqa: S101 - it was started
        answer = await self._poster.post(vendor.request(parcels))
        verdict = self._verdict(answer, parcels)
        self._metrics.forward_request(self._agent, type(verdict).__name__.lower())
        if isinstance(answer, NotSent) and self._reservations is not None:
            self._reservations.not_sent(item.event.position for item in items)
        await self._apply(verdict, items)
        self._metrics.breaker_open(self._agent, is_open=self._breaker.is_open)

    def _verdict(self, answer: Answer | NotSent | Unanswered, parcels: Sequence[Parcel]) -> Verdict:
        match answer:
            case NotSent():
                return Later(f"no connection: {answer.reason}")
            case Unanswered() if self._vendor.repeatable:
                return Later(answer.reason)
            case Unanswered():
                return Doubtful(answer.reason)
            case Answer(whole=False, status=status) if self._vendor.repeatable:
                return Later(f"the answer {status} was cut off")
            case Answer():
                return self._vendor.verdict(answer, parcels)

    async def _apply(self, verdict: Verdict, items: list[Item]) -> None:
        match verdict:
            case Later(reason=reason, retry_after_s=wish):
                self._failed(reason, wish)
                self._again(items)
            case Doubtful(reason=reason, retry_after_s=wish):
                self._failed(reason, wish)
                self._settling.doubt(len(items), reason)
                self._settling.deliver(items)
            case Stopped(reason=reason):
                await self._stop_agent(reason, items)
            case _:
                self._answered()
                await self._sort(verdict, items)

    async def _sort(self, verdict: Delivered | Rejected | Halve | Held, items: list[Item]) -> None:
        """The vendor answered, and is well."""
        match verdict:
            case Delivered():
                self._metrics.forwarded(self._agent, "sent", len(items))
                self._settling.deliver(items)
            case Rejected(reasons=reasons):
                await self._settling.put_aside({items[index]: why for index, why in reasons.items()})
                self._again([item for index, item in enumerate(items) if index not in reasons])
            case Halve(reason=reason) if len(items) == 1:
                await self._settling.put_aside({items[0]: reason})
            case Halve():
                # One half is on its way before the other is looked for: two requests, not one again.
                middle = len(items) // 2
                for half in (items[:middle], items[middle:]):
                    await self._send(half)
            case Held(indexes=indexes, ids=ids):
                resting = [
                    item
                    for index, item in enumerate(items)
                    if index in indexes or not ids.isdisjoint(item.parcel.ids)
                ]
                self._metrics.forward_held(self._agent, len(resting))
                self._holding.hold(resting, ids, verdict.for_s)
                held = set(map(id, resting))
                self._again([item for item in items if id(item) not in held])

    def _again(self, items: Sequence[Item]) -> None:
        """Send these once more, unless the group reads again anyway."""
        void = [item for item in items if item.consignment.reading != self._reading]
        if void:
            self._settling.moved(-len(void))
        self._waiting.put_back([item for item in items if item.consignment.reading == self._reading])

    # -- how the vendor is --

    def _failed(self, reason: str, retry_after_s: float | None) -> None:
        self._breaker.failed(retry_after_s)
        if self._away is None:
            log.warning("%s is away, its events wait, nothing else does: %s", self._agent, reason)
        self._away = reason

    def _answered(self) -> None:
        self._breaker.succeeded()
        if self._away is not None:
            log.warning("%s is back", self._agent)
        self._away = None

    async def _stop_agent(self, reason: str, items: list[Item]) -> None:
        if self.stopped is None:
            self.stopped = reason
            self._settling.close()
            log.error("agent %s stops, its events are kept, everything else goes on: %s", self._agent, reason)
            self._metrics.up(self._agent, running=False)
        self._breaker.given_back()
        if self._reservations is not None:
            await self._settling.put_aside(dict.fromkeys(items, reason))
        else:
            self._again(items)

    async def _prove(self) -> None:
        """Let the vendor look at each shape of ours, where it is asked to. A vendor that is away proves nothing, and
        is told of."""
        assert self._poster is not None  # noqa: S101 - it was started
        trials = self._vendor.trials(self._around.clock_ms())
        for trial in trials:
            answer = await self._poster.post(trial.request)
            if not isinstance(answer, Answer) or not 200 <= answer.status < 300:
                said = answer.words if isinstance(answer, Answer) else answer.reason
                log.warning("%s could not validate the shape of %s: %s", self._agent, trial.shape, said)
                return
            if (fault := self._vendor.fault(answer)) is not None:
                await self._stop_agent(
                    f"{self._vendor.where} refuses the shape of {trial.shape}: {fault}", []
                )
                return
        if trials:
            log.info("%s found nothing wrong with the shapes of our events", self._vendor.where)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
