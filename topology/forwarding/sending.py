"""Sending what waits, request by request, and acting on the verdict on each answer. The steps are drawn in
``forwarder.py``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence

from topology.batch import LogEvent
from topology.forwarding.batching import Holding, Waiting
from topology.forwarding.breaker import Breaker, Pace
from topology.forwarding.consignments import Item
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
from topology.forwarding.selection import Reason
from topology.forwarding.settling import Settling, Surroundings
from topology.forwarding.vendor import Answer, Parcel, Vendor
from topology.position import Position

log = logging.getLogger(__name__)

#: A stop waits this long for answers.
LAST_ANSWERS_S = 2.0


class Sending:
    """``start``, ``put`` items, ``stop``. ``stopped`` says why nothing goes out any more, None while all is well."""

    def __init__(
        self,
        agent: str,
        vendor: Vendor,
        pace: Pace,
        settling: Settling,
        surroundings: Surroundings,
        reservations: Reservations | None,
    ) -> None:
        self._agent = agent
        self._vendor = vendor
        self._settling = settling
        self._around = surroundings
        self._metrics = surroundings.metrics
        self._reservations = reservations
        self._waiting = Waiting(vendor.limits, pace)
        self._holding = Holding(pace)
        self._breaker = Breaker(pace)
        self._reading: int | None = None
        self._slots = asyncio.Semaphore(vendor.limits.in_flight)
        self._poster: Poster | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._away: str | None = None
        self.stopped: str | None = None
        #: Requests that came to an end, whichever: a vendor that is slow is no standstill.
        self.answers = 0

    # -- life --

    def start(self) -> None:
        """Begin to send."""
        self._poster = Poster(self._vendor.limits, self._vendor.secrets, self._around.clock_ms)
        self._metrics.forward_pending_events(agent=self._agent).set(0)
        self._metrics.forward_breaker_open(agent=self._agent).set(0)
        self._tasks = [self._guarded(self._send_for_ever()), self._guarded(self._wake_for_ever())]

    async def stop(self) -> None:
        """Send nothing more, and wait a moment for answers that are due. Idempotent."""
        tasks, self._tasks = self._tasks, []
        await _ended(tasks)
        if self._sending:
            await asyncio.wait(self._sending, timeout=LAST_ANSWERS_S)
            await _ended(list(self._sending))
        if self._poster is not None:
            await self._poster.close()

    @property
    def waits(self) -> bool:
        """Whether the vendor is what is waited for: it is away, throttles somebody, or refuses everything."""
        return self.stopped is not None or self._away is not None or self._holding.rests

    def put(self, items: Sequence[Item]) -> None:
        """These wait for their turn."""
        self._waiting.put(self._holding.kept(items))

    async def begin_anew(self, reading: int) -> None:
        """What waits comes again, in this reading. Where the vendor cannot tell repeats, returns when nothing is being
        sent any more: whether what is under way was sent is known only then, and what was not is to go again."""
        self._reading = reading
        self._settling.drop([*self._waiting.clear(), *self._holding.clear()])
        if self._reservations is not None and self._sending:
            await asyncio.wait(self._sending)

    def too_old(self, event: LogEvent) -> Reason | None:
        """Whether the vendor does not take this one any more."""
        most = self._vendor.limits.max_age_ms
        return "too_old" if most is not None and event.time_ms < self._around.clock_ms() - most else None

    def _guarded(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - handed on: whoever runs the process stops it
                self._around.fail(error)

        return asyncio.get_running_loop().create_task(run())

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
        old: list[Item] = []
        young: list[Item] = []
        for item in items:
            (old if self.too_old(item.event) else young).append(item)
        for item in old:
            self._settling.ignore(item.consignment, "too_old")
        self._settling.settle(old)
        return young

    async def _send(self, items: list[Item]) -> None:
        vendor = self._vendor
        parcels = [item.parcel for item in items]
        assert self._poster is not None  # noqa: S101 - it was started
        try:
            request = vendor.request(parcels)
        except Exception as error:
            log.exception("agent %s cannot make a request", self._agent)
            self._stop_agent(f"it cannot make a request ({type(error).__name__}); please report it")
            self._again(items)
            return
        if self._reservations is not None:
            self._reservations.sent(_positions(items))
        answer = await self._poster.post(request)
        self.answers += 1
        verdict = self._verdict(answer, parcels)
        self._metrics.forward_requests(agent=self._agent, verdict=type(verdict).__name__.lower()).inc()
        await self._apply(verdict, items)
        self._metrics.forward_breaker_open(agent=self._agent).set(self._breaker.is_open)

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
            case Answer(status=status):
                try:
                    return self._vendor.verdict(answer, parcels)
                except Exception as error:
                    log.exception("agent %s cannot read an answer", self._agent)
                    return Stopped(
                        f"it cannot read an answer {status} ({type(error).__name__}); please report it"
                    )

    async def _apply(self, verdict: Verdict, items: list[Item]) -> None:
        match verdict:
            case Later(reason=reason, retry_after_s=wish):
                self._failed(reason, wish)
                self._again(items)
            case Doubtful(reason=reason, retry_after_s=wish):
                self._failed(reason, wish)
                self._settling.doubt(len(items), reason)
                self._known(items)
                self._settling.deliver(items)
            case Stopped(reason=reason):
                self._stop_agent(reason)
                if self._reservations is None:
                    self._again(items)
                else:
                    await self._put_aside(dict.fromkeys(items, reason))
            case _:
                self._answered()
                await self._sort(verdict, items)

    async def _sort(self, verdict: Delivered | Rejected | Halve | Held, items: list[Item]) -> None:
        """The vendor answered, and is well."""
        match verdict:
            case Delivered():
                self._metrics.forwarded_events(agent=self._agent, result="sent").inc(len(items))
                self._known(items)
                self._settling.deliver(items)
            case Rejected(reasons=reasons):
                await self._put_aside({items[index]: why for index, why in reasons.items()})
                self._again([item for index, item in enumerate(items) if index not in reasons])
            case Halve(reason=reason) if len(items) == 1:
                await self._put_aside({items[0]: reason})
            case Halve():
                # One half is on its way before the other is looked for: two requests, not one again.
                middle = len(items) // 2
                for half in (items[:middle], items[middle:]):
                    await self._send_half(half)
            case Held(indexes=indexes, ids=ids):
                resting = [
                    item
                    for index, item in enumerate(items)
                    if index in indexes or not ids.isdisjoint(item.parcel.ids)
                ]
                if not resting:  # it names none of these: to send them again at once would be for ever
                    self._failed(verdict.reason, verdict.for_s)
                    self._again(items)
                    return
                self._metrics.forward_held_events(agent=self._agent).inc(len(resting))
                self._unsent(resting)
                self._holding.hold(resting, ids, verdict.for_s)
                held = set(map(id, resting))
                self._again([item for item in items if id(item) not in held])

    async def _send_half(self, half: list[Item]) -> None:
        """As what waits is sent, at once."""
        await self._breaker.admitted()
        if self._settling.closed:
            free: list[Item] = []
            self._again(half)
        else:
            free = self._young(self._holding.kept(self._current(half)))
        if free:
            await self._send(free)
        else:
            self._breaker.given_back()

    def _again(self, items: Sequence[Item]) -> None:
        """Send these once more, unless the group reads again anyway."""
        self._unsent(items)
        self._waiting.put_back(self._current(items))

    def _current(self, items: Sequence[Item]) -> list[Item]:
        """Those of this reading; the others come again."""
        void = [item for item in items if item.consignment.reading != self._reading]
        if not void:
            return list(items)
        self._settling.drop(void)
        return [item for item in items if item.consignment.reading == self._reading]

    async def _put_aside(self, reasons: Mapping[Item, str]) -> None:
        await self._settling.put_aside(reasons)
        self._known(reasons)

    def _known(self, items: Collection[Item]) -> None:
        """What became of these is told."""
        if self._reservations is not None:
            self._reservations.answered(_positions(items))

    def _unsent(self, items: Collection[Item]) -> None:
        """Of these nothing was taken."""
        if self._reservations is not None:
            self._reservations.not_sent(_positions(items))

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

    def _stop_agent(self, reason: str) -> None:
        if self.stopped is None:
            self.stopped = reason
            self._settling.close()
            log.error("agent %s stops, its events are kept, everything else goes on: %s", self._agent, reason)
            self._metrics.agent_up(agent=self._agent).set(0)
        self._breaker.given_back()

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
                self._stop_agent(f"{self._vendor.where} refuses the shape of {trial.shape}: {fault}")
                return
        if trials:
            log.info("%s found nothing wrong with the shapes of our events", self._vendor.where)


def _positions(items: Iterable[Item]) -> Iterable[Position]:
    return (item.event.position for item in items)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
