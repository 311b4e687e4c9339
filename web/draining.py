"""The drainer: publishes what the spool holds, in order, and says when messages may go to the broker directly again.

    direct ──a publish failed──▶ spooling ──the spool is empty and the broker quick──▶ direct
                                    │                                                    ▲
                                    └──little is left──▶ handing over: who comes waits ──┘

For each batch: 1. published, with the stamps that its messages were accepted with  2. removed. A death between the two
publishes them once more, and intake recognises them.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from topology.errors import EventsinkError, Refused, SettingsError, Unavailable
from topology.log import Log
from topology.outages import Outages
from web.spool import Spool, Spooled

log = logging.getLogger(__name__)

#: A broker that takes longer for a confirm is not waited for: the spool answers sooner.
CONFIRMED_WITHIN = timedelta(seconds=1)
#: As many as the broker is sent at once; and bytes, so that little is held in memory.
BATCH_MESSAGES = 1_000
BATCH_BYTES = 8 << 20
#: So few that they are published within a moment, for which those who come can wait. Without that a spool into which
#: somebody always puts something would never be found empty.
LITTLE_MESSAGES = 200
#: Seconds between looks for what another process put into the spool.
LOOK_EVERY_S = 1.0
#: Seconds for draining when the process ends, out of the ten that it has.
DRAINED_WITHIN_S = 2.0
#: Seconds until draining is tried again after what should not happen.
MISHAP_PAUSE_S = 5.0

BROKER = "the broker"
SPOOL = "the spool"


class DrainRight:
    """The right to drain the spool in a folder, held by one process at a time: ``up`` and several ``web`` may work on
    one folder. The kernel keeps it, so it ends with its holder, however that ends."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock: int | None = None

    def take(self) -> bool:
        """Whether it is ours, now or already. Raises ``Unavailable`` where the file cannot be made."""
        if self._lock is not None:
            return True
        try:
            lock = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(
                f"{self._file}: {error.strerror}: check the disk and the permissions"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        except OSError as error:
            os.close(lock)
            raise Unavailable(
                f"{self._file}: {error.strerror}: choose a folder whose files can be locked"
            ) from error
        self._lock = lock
        return True

    def release(self) -> None:
        """Give it up; idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _takes_events() -> str | None:
    return None


class Drainer:
    """Drains ``spool`` into ``log`` from ``start`` to ``close``. ``blocked`` says why the broker is known to take
    nothing, or None; ``monotonic`` in seconds."""

    def __init__(
        self,
        log: Log,
        spool: Spool,
        *,
        blocked: Callable[[], str | None] = _takes_events,
        outages: Outages | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._spool = spool
        self._blocked = blocked
        self._outages = outages or Outages()
        self._monotonic = monotonic
        self._right = DrainRight(spool.path.with_suffix(".lock"))
        self._running: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._ending = False
        #: The broker was asked, and has answered or is away.
        self._asked = asyncio.Event()
        self._taken_up = False
        self._direct = False
        #: While the last of the spool is on its way; done when that is over, whatever came of it.
        self._handing_over: asyncio.Future[None] | None = None
        self._held_until: asyncio.TimerHandle | None = None
        #: Why the broker is not published to; None while it answers, as far as is known.
        self.away: str | None = f"{BROKER} was not asked yet"

    async def start(self) -> None:
        """Begin; returns when it is known whether the broker is there, or a moment later."""
        self._running = asyncio.create_task(self._run(), name="spool: draining")
        try:
            async with asyncio.timeout(CONFIRMED_WITHIN.total_seconds()):
                await self._asked.wait()
        except TimeoutError:
            pass  # it is asked all the same

    async def close(self) -> None:
        """Drain what can be drained in a moment, and end; the rest stays. Idempotent."""
        self._ending = True
        running, self._running = self._running, None
        if running is not None:
            self._woken.set()
            if self.away is None and not self._outages.away:
                await asyncio.wait({running}, timeout=DRAINED_WITHIN_S)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        self._spool_again()
        self._right.release()

    @property
    def direct(self) -> bool:
        """Whether messages go to the broker directly at present."""
        return self._direct

    async def directly(self) -> bool:
        """Whether a message may go to the broker now. Where the last of the spool is on its way, that is waited for,
        no longer than for a confirm."""
        if self._handing_over is not None:
            await asyncio.wait({self._handing_over})
        if self._direct and (reason := self._blocked()) is not None:
            self.broker_failed(reason)
        return self._direct

    def broker_failed(self, reason: str) -> None:
        """The broker did not confirm, or did not answer: what comes next goes into the spool."""
        if self._direct:
            log.warning("events go into the spool, nothing is lost: %s", reason)
        self.away = reason
        self._spool_again()
        self._woken.set()

    def wake(self) -> None:
        """There is something in the spool."""
        self._woken.set()

    # -- the loop --

    async def _run(self) -> None:
        going_on = True
        while going_on and not (self._ending and self._spool.empty):
            self._woken.clear()
            try:
                going_on = await self._turn()
            except EventsinkError as error:
                log.warning("the spool cannot be drained at present, what it holds stays: %s", error)
                await self._until_woken(MISHAP_PAUSE_S)
            except Exception:
                # Whatever it is: a spool that nobody drains any more keeps everything from the log, in silence.
                log.exception("data at risk: draining the spool failed, it is tried again")
                await asyncio.sleep(MISHAP_PAUSE_S)

    async def _turn(self) -> bool:
        """Do what is to be done now. False: there will be nothing more."""
        try:
            held = await self._spool.look()
        except EventsinkError as error:
            log.warning("the spool cannot be looked at, what it holds stays: %s", error)
            await self._ask_broker()  # which may be there all the same
            await self._until_woken(MISHAP_PAUSE_S)
            return True
        if not self._taken_up and self._right.take():
            self._taken_up = True
            if again := await self._spool.take_up_again():
                log.info("%d message(s) that the broker refused are tried again", again)
        elif not held.messages:
            await self._ask_broker()
            await self._until_woken(LOOK_EVERY_S)
        elif self._right.take():
            await self._drain()
        elif self._ending:
            return False  # another process drains
        else:
            await asyncio.sleep(LOOK_EVERY_S)
        return True

    async def _until_woken(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _ask_broker(self) -> None:
        """Wait until it is there, and publish directly if it is quick."""
        if not self._direct:
            quick = await self._answered(self._log.open)
            if quick and self._spool.empty:
                self._go_direct()

    async def _drain(self) -> None:
        self._spool_again()
        # Of publishing: a broker that is blocked answers every question, and takes nothing.
        quick = False
        try:
            while not self._spool.empty:
                if quick and self._spool.held.messages <= LITTLE_MESSAGES:
                    self._hold()
                    await self._spool.settled()
                if not (batch := await self._spool.first(limit=BATCH_MESSAGES, max_bytes=BATCH_BYTES)):
                    break
                quick = await self._publish(batch)
            if quick:
                log.info("the spool is empty: events go to the broker directly")
                self._go_direct()
        finally:
            self._release()

    async def _publish(self, batch: Sequence[Spooled]) -> bool:
        """Whether the broker was quick."""
        try:
            quick = await self._answered(lambda: self._log.publish([each.message for each in batch]))  # 1.
        except (Refused, ValueError):
            quick = await self._publish_one_by_one(batch)
        await self._forget(batch[-1].number)  # 2.
        return quick

    async def _publish_one_by_one(self, batch: Sequence[Spooled]) -> bool:
        """One of them is refused for good: that one is put aside. Whether the broker was quick."""
        quick = True
        for number, message in batch:
            try:
                quick = await self._answered(partial(self._log.publish, [message])) and quick
            except (Refused, ValueError) as error:
                log.warning(
                    "the broker will never take a message of %d bytes that was accepted; it is kept in %s and tried "
                    "again at the next start: %s",
                    len(message.body),
                    self._spool.path.name,
                    error,
                )
                await self._forget(number - 1)
                await self._outages.ridden_out(SPOOL, partial(self._spool.put_aside, number, str(error)))
        return quick

    async def _forget(self, upto: int) -> None:
        # Not published again because of a disk that is full: removing is tried again by itself.
        await self._outages.ridden_out(SPOOL, partial(self._spool.remove, upto))

    async def _answered(self, call: Callable[[], Awaitable[None]]) -> bool:
        """``call`` the broker until it answers, and say whether it took no longer than a request may wait. Raises
        ``Refused`` and ``ValueError``."""

        async def asked() -> bool:
            begun = self._monotonic()
            try:
                if (reason := self._blocked()) is not None:
                    raise Unavailable(reason)
                await call()
            except (Unavailable, SettingsError) as error:
                self.away = str(error)
                self._spool_again()
                self._asked.set()
                # A broker that is set up anew may refuse a login for a while.
                raise error if isinstance(error, Unavailable) else Unavailable(str(error)) from error
            except (Refused, ValueError):
                self._broker_answered()
                raise
            self._broker_answered()
            return self._monotonic() - begun <= CONFIRMED_WITHIN.total_seconds()

        return await self._outages.ridden_out(BROKER, asked)

    # -- which way messages go --

    def _broker_answered(self) -> None:
        self.away = None
        self._asked.set()

    def _go_direct(self) -> None:
        self._direct = not self._ending
        self._release()

    def _spool_again(self) -> None:
        self._direct = False
        self._release()

    def _hold(self) -> None:
        """Let those who come wait, but not for a broker that takes nothing just now."""
        if self._handing_over is None:
            loop = asyncio.get_running_loop()
            self._handing_over = loop.create_future()
            self._held_until = loop.call_later(CONFIRMED_WITHIN.total_seconds(), self._release)

    def _release(self) -> None:
        handing_over, self._handing_over = self._handing_over, None
        if self._held_until is not None:
            self._held_until.cancel()
            self._held_until = None
        if handing_over is not None:
            handing_over.set_result(None)
