"""Where accepted messages go: to the broker; into the spool where that does not confirm in time; or into the embedded
log. Each is durable when ``deliver`` returns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol, TypeAlias

from topology.errors import EventsinkError, Refused, Unavailable
from topology.log import Log, Outgoing
from web.draining import CONFIRMED_WITHIN, Drainer
from web.spool import Held, Spool

log = logging.getLogger(__name__)

#: As a 202 says it.
Durable: TypeAlias = Literal["broker", "spool", "log"]

#: Twice what the embedded log may wait for its lock; past it nobody waits for the answer any more.
LOGGED_WITHIN_S = 30.0


class Delivery(Protocol):
    """Takes what the ingest accepted."""

    @property
    def durable(self) -> Durable:
        """Where it would be kept now."""

    @property
    def spooling(self) -> str | None:
        """Why events go into the spool at present; None while they do not."""

    async def deliver(self, message: Outgoing) -> Durable:
        """Keep a stamped message; it is durable when this returns, and the answer says where.

        Raises ``Unavailable`` where it is not certain to be kept: the very same message may be delivered again.
        Raises ``Refused`` where the broker never takes it.
        """


class LogDelivery:
    """Into the embedded log, which is a file as the spool is: there is nothing to wait for."""

    def __init__(self, embedded_log: Log) -> None:
        self._log = embedded_log

    @property
    def durable(self) -> Durable:
        """The log."""
        return "log"

    @property
    def spooling(self) -> str | None:
        """There is no spool."""
        return None

    async def deliver(self, message: Outgoing) -> Durable:
        """As ``Delivery.deliver``."""
        try:
            async with asyncio.timeout(LOGGED_WITHIN_S):
                await self._log.publish([message])
        except TimeoutError:
            raise Unavailable(
                "the log did not confirm in time, so it is not certain that the events are kept: send them again"
            ) from None
        return "log"


class _Sent(NamedTuple):
    message: Outgoing
    #: Whether the broker has confirmed it.
    confirmed: asyncio.Future[bool]


class BrokerDelivery:
    """To the broker, and into the spool while that is away, blocked or slow, or has not got yet what is in the spool.

    A message that the broker did not confirm in time goes into the spool, although it may be in the log as well: it
    carries its stamp, by which it is counted once. ``open`` and ``close`` are those of the spool and its drainer; the
    log is opened and closed by whoever made it.
    """

    def __init__(self, log: Log, spool: Spool, drainer: Drainer | None = None) -> None:
        self._log = log
        self._spool = spool
        self._drainer = drainer or Drainer(log, spool)
        #: Those that came since the loop's last turn: one publish for all of them.
        self._gathered: list[_Sent] = []
        self._publishing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to drain. A disk that takes nothing now may later. Raises ``ForeignSchema``."""
        try:
            await self._spool.open()
        except Unavailable as error:
            log.warning("going on without the spool, it is tried again when it is needed: %s", error)
        await self._drainer.start()

    async def close(self) -> None:
        """Drain for a moment what can be drained, and close the spool; idempotent."""
        await self._drainer.close()
        for publishing in self._publishing:
            publishing.cancel()
        await asyncio.gather(*self._publishing, return_exceptions=True)
        await self._spool.close()

    async def deliver(self, message: Outgoing) -> Durable:
        """As ``Delivery.deliver``."""
        if await self._drainer.directly() and await self._confirmed(message):
            return "broker"
        try:
            await self._spool.append(message)
        except Unavailable:
            # The broker may answer all the same, and not have got everything yet: to be kept goes before order.
            if self._drainer.away is None and await self._confirmed(message):
                return "broker"
            raise
        self._drainer.wake()
        return "spool"

    @property
    def durable(self) -> Durable:
        """Where the next message goes, unless the broker fails just then."""
        return "broker" if self._drainer.direct else "spool"

    @property
    def held(self) -> Held:
        """What the spool holds, as far as this process knows."""
        return self._spool.held

    @property
    def spooling(self) -> str | None:
        """As ``Delivery.spooling``."""
        if self._drainer.direct:
            return None
        return self._drainer.away or f"the spool is being drained, it holds {self.held.events} event(s)"

    def broker_failed(self, reason: str) -> None:
        """Somebody else found that the broker does not answer: nobody need wait for it."""
        self._drainer.broker_failed(reason)

    async def prove(self) -> None:
        """See that a message would be kept now. Raises ``Unavailable``."""
        if self._drainer.away is not None:
            await self._spool.prove()

    # -- to the broker --

    async def _confirmed(self, message: Outgoing) -> bool:
        loop = asyncio.get_running_loop()
        confirmed: asyncio.Future[bool] = loop.create_future()
        self._gathered.append(_Sent(message, confirmed))
        if len(self._gathered) == 1:
            loop.call_soon(self._publish_gathered)
        return await confirmed

    def _publish_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._publish(gathered)

    def _publish(self, sent: Sequence[_Sent]) -> None:
        publishing = asyncio.ensure_future(self._log.publish([each.message for each in sent]))
        self._publishing.add(publishing)
        # Not a timeout around it: giving up a connection that is being made takes seconds, and nobody waits for that.
        timer = asyncio.get_running_loop().call_later(
            CONFIRMED_WITHIN.total_seconds(), self._give_up, publishing, sent
        )
        publishing.add_done_callback(partial(self._published, sent, timer))

    def _give_up(self, publishing: asyncio.Task[None], sent: Sequence[_Sent]) -> None:
        publishing.cancel()
        self._failed(sent, f"the broker did not confirm within {CONFIRMED_WITHIN.total_seconds():g} s")

    def _published(
        self, sent: Sequence[_Sent], timer: asyncio.TimerHandle, publishing: asyncio.Task[None]
    ) -> None:
        self._publishing.discard(publishing)
        timer.cancel()
        if publishing.cancelled():
            self._failed(sent, "publishing was given up")
            return
        error = publishing.exception()
        if error is None:
            _resolve(sent, confirmed=True)
        elif not isinstance(error, Refused | ValueError):
            if not isinstance(error, EventsinkError):
                log.error("publishing failed in a way that it should not", exc_info=error)
            self._failed(sent, str(error))
        elif len(sent) > 1:
            for each in sent:  # one of them is to blame
                self._publish([each])
        elif not sent[0].confirmed.done():
            sent[0].confirmed.set_exception(error)

    def _failed(self, sent: Sequence[_Sent], reason: str) -> None:
        if any(not each.confirmed.done() for each in sent):  # else it was given up before
            self._drainer.broker_failed(reason)
            _resolve(sent, confirmed=False)


def _resolve(sent: Sequence[_Sent], *, confirmed: bool) -> None:
    for each in sent:
        if not each.confirmed.done():
            each.confirmed.set_result(confirmed)
