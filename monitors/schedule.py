"""When a probe is asked, how often again, and what its answer means. One ``Schedule`` for each probe.

1. check        a bad result is tried again, up to ``retries`` times: one check, however many attempts
2. judge        down while the reference addresses are gone too is unknown
3. stamp        service, region, source, id, and the time at which the check began
4. report       with the progress that was made, to be kept together. Unknown results are counted and told of, never
                sent: silence is unknown, and "down" would be a lie
5. sleep        until the interval, jittered, has passed since the check began

A probe that hangs or crashes is let go and built anew; what it would have said is unknown.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from monitors.probe import Measured, Outcome, Probe, ProbeSettings, Read, Unknown
from monitors.reference import Reference
from topology.errors import EventsinkError
from topology.metrics import MonitorMetrics, Restart, Result
from topology.uuid7 import uuid7

log = logging.getLogger(__name__)

#: Intervals vary by so much to either side, so that monitors do not fall into step.
JITTER = 0.1
#: The first checks of a monitor with many probes are spread over this.
SPREAD_S = 2.0
#: A probe keeps its own timeout; one that is over it by this hangs.
GRACE_S = 2.0
#: At the end, which nothing is to hold up.
CLOSED_WITHIN_S = 0.5
LONGEST_VALIDITY_S = 3600

#: Whose results hold for a while (``ProbeSettings.holds``), and which say where they were measured.
_HOLDS = frozenset({"health.pinged", "health.page_fetched"})
_HAS_REGION = _HOLDS | {"health.connections_counted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Time, as it is given to a schedule. ``wall_ms`` for what is reported, ``monotonic`` for durations; ``chance`` is
    0 to 1."""

    wall_ms: Callable[[], int]
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """Who measures, and who is told."""

    region: str
    source: str
    report: Callable[[Measured | Read], Awaitable[None]]
    metrics: MonitorMetrics
    reference: Reference


def valid_for_s(settings: ProbeSettings, *, reference_s: float) -> int:
    """How long a result holds: until the next one must have come, if that check takes as long as a check may."""
    return min(_needed_s(settings, settings.interval, reference_s), LONGEST_VALIDITY_S)


def longest_interval_s(settings: ProbeSettings, *, reference_s: float) -> int:
    """The longest interval whose results hold until the next one; 0 or less where a check alone may take longer than
    a result holds."""
    longest = int((LONGEST_VALIDITY_S - _needed_s(settings, 0, reference_s)) / (1 + JITTER)) + 1
    return longest if _needed_s(settings, longest, reference_s) <= LONGEST_VALIDITY_S else longest - 1


def _needed_s(settings: ProbeSettings, interval: float, reference_s: float) -> int:
    attempts = settings.retries + 1
    longest = attempts * (settings.timeout + GRACE_S) + settings.retries * settings.retry_delay + reference_s
    # Rounded up, and a second for the machine.
    return int(interval * (1 + JITTER) + longest) + 2


class Schedule:
    """``build`` makes the probe, at start and after it hung or crashed."""

    def __init__(
        self,
        settings: ProbeSettings,
        build: Callable[[], Probe],
        to: Reporting,
        clocks: Clocks,
        *,
        valid_for: int,
        grace_s: float = GRACE_S,
    ) -> None:
        self._settings = settings
        self._kind = settings.kind
        self._build = build
        self._probe = build()
        self._to = to
        self._clocks = clocks
        self._valid_for = valid_for
        self._grace_s = grace_s
        self._last = ("", "")

    async def run(self, ending: asyncio.Event) -> None:
        """Check again and again until ``ending`` is set; a check in hand is finished. Closes the probe."""
        clocks = self._clocks
        try:
            pause = min(self._settings.interval, SPREAD_S) * clocks.chance()
            while not await self._ends_within(pause, ending):
                began = clocks.monotonic()
                await self.check()
                interval = self._settings.interval * (1 + JITTER * (2 * clocks.chance() - 1))
                pause = max(0.0, began + interval - clocks.monotonic())
        finally:
            await self._close(self._probe, within_s=CLOSED_WITHIN_S)

    async def once(self) -> None:
        """One check. Closes the probe."""
        try:
            await self.check()
        finally:
            await self._close(self._probe, within_s=CLOSED_WITHIN_S)

    async def _ends_within(self, seconds: float, ending: asyncio.Event) -> bool:
        sleeping = asyncio.ensure_future(self._clocks.sleep(seconds))
        waiting = asyncio.ensure_future(ending.wait())
        try:
            await asyncio.wait({sleeping, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waiting.cancel()
            await asyncio.gather(sleeping, waiting, return_exceptions=True)
        return ending.is_set()

    async def check(self) -> None:
        """Steps 1 to 4. Raises nothing but what ``report`` raises."""
        at_ms = self._clocks.wall_ms()
        outcome = await self._attempts()
        result = outcome.result if isinstance(outcome, Read) else outcome
        if (
            not isinstance(result, Unknown)
            and result.get("up") is False
            and await self._to.reference.network_gone()
        ):
            result = Unknown("no reference address answers: the network of this monitor is gone")
        self._tell(result)
        told = result if isinstance(result, Unknown) else self._stamped(result, at_ms)
        if isinstance(outcome, Read):
            await self._to.report(Read(told, outcome.progress))
        elif not isinstance(told, Unknown):
            await self._to.report(told)

    async def _attempts(self) -> Outcome:
        result = await self._attempt()
        for _ in range(self._settings.retries):
            if isinstance(result, Read):
                break  # what was read is not there to be read again
            if not isinstance(result, Unknown) and result.get("up") is not False:
                break
            await self._clocks.sleep(self._settings.retry_delay)
            result = await self._attempt()
        return result

    async def _attempt(self) -> Outcome:
        limit_s = self._settings.timeout + self._grace_s
        attempt = asyncio.ensure_future(self._probe.check())
        try:
            done, _ = await asyncio.wait({attempt}, timeout=limit_s)
        except asyncio.CancelledError:
            attempt.cancel()
            raise
        if not done:
            attempt.cancel()  # not waited for: what hangs may not heed it
            return await self._restarted("hung", f"no result within {limit_s:g} s")
        error = asyncio.CancelledError() if attempt.cancelled() else attempt.exception()
        if error is None:
            return attempt.result()
        if isinstance(error, EventsinkError):
            return Unknown(str(error))
        log.error("a probe crashed, it is started again: %s %s", self._kind, self._name, exc_info=error)
        return await self._restarted("crashed", f"the probe crashed: {type(error).__name__}")

    async def _restarted(self, why: Restart, reason: str) -> Unknown:
        self._to.metrics.monitor_probe_restarts(kind=self._kind, service=self._name, why=why).inc()
        try:
            old, self._probe = self._probe, self._build()
        except EventsinkError as error:  # its secret is not there any more
            return Unknown(f"{reason}, and it cannot be built again: {error}")
        await self._close(old, within_s=self._grace_s)
        return Unknown(reason)

    async def _close(self, probe: Probe, *, within_s: float) -> None:
        """Let go of it, also where it hangs."""
        closing = asyncio.ensure_future(probe.close())
        done, _ = await asyncio.wait({closing}, timeout=within_s)
        if not done or closing.cancelled():
            closing.cancel()
        elif (wrong := closing.exception()) is not None:
            log.warning("%s %s did not close: %s", self._kind, self._name, wrong)

    @property
    def _name(self) -> str:
        return self._settings.service

    def _tell(self, result: Measured | Unknown) -> None:
        """Count, and log what changed."""
        metrics, kind, name = self._to.metrics, self._kind, self._name
        state: Result = "unknown"
        if isinstance(result, Unknown):
            said = result.reason
        else:
            up = result.get("up")
            state = "measured" if up is None else "up" if up else "down"
            said = str(result.get("problem", "")) if state == "down" else ""
            if isinstance(days := result.get("certificate_days_left"), int):
                metrics.monitor_certificate_days_left(kind=kind, service=name).set(days)
        metrics.monitor_checks(kind=kind, service=name, result=state).inc()
        if state in {"up", "down"}:
            metrics.monitor_service_up(kind=kind, service=name).set(state == "up")
        if state != self._last[0] or (state == "unknown" and said != self._last[1]):
            well = state in {"up", "measured"}
            log.log(
                logging.INFO if well else logging.WARNING,
                "%s %s is %s%s",
                kind,
                name,
                state,
                f": {said}" if said else "",
            )
        self._last = (state, said)

    def _stamped(self, result: Measured, at_ms: int) -> Measured:
        event = {
            "source": self._to.source,
            "id": uuid7(at_ms),
            "time": at_ms,
            "service": self._name,
            **result,
        }
        if event["type"] in _HAS_REGION:
            event["region"] = self._to.region
        if event["type"] in _HOLDS:
            event["valid_for_s"] = self._valid_for
        return event
