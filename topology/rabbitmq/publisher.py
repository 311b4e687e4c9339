"""Appending to the stream, so that "accepted" means "in the log".

A confirm says only that the broker kept the message for every queue that is bound to the exchange. So a
publish is mandatory (no queue at all: it comes back), and beside the publishing, once a second and on another
connection, it is looked after that the log's queue is there and grew by at least what was confirmed; where others
append, too, that the last confirmed message is in it. Where not, the log is declared again, and everything
confirmed since the last good look is published again; the ids of the events make that harmless.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from aiormq.exceptions import AMQPChannelError, ChannelNotFoundEntity, ChannelPreconditionFailed

from topology.errors import EventsinkError, Refused, SettingsError, Unavailable
from topology.log import Outgoing
from topology.outages import FIRST_DELAY_S, LONGEST_DELAY_S, pause
from topology.rabbitmq.confirms import ConfirmChannel, Outcome
from topology.rabbitmq.connection import Connection, said, stop, unavailable
from topology.rabbitmq.consumer import StreamConsumer
from topology.rabbitmq.declarer import Link
from topology.rabbitmq.frames import LARGEST_BODY_BYTES, Delivery
from topology.rabbitmq.probes import NoQueue, Probes

log = logging.getLogger(__name__)

#: How often a message is published before the broker counts as away: on a connection that turns out to be
#: dead, on a new one, and after the log was declared again.
ATTEMPTS = 3
RETRY_AFTER_S = 0.1
#: Seconds. The sentinel never acknowledges, and brokers close a channel on which that takes half an hour.
SENTINEL_LIFE_S = 600.0
#: Seconds for the last look when a publisher is closed, the end of the one that is going on included: a broker that
#: says nothing any more must not keep a process from ending. A queue that is being deleted takes one or two to be gone.
LAST_LOOK_S = 4.0
#: Seconds. Confirms come thousands of times in one.
PUT_OFF_EVERY_S = 0.1
#: Seconds for a look that is going on then; it takes milliseconds where the broker is there.
LOOK_ENDS_WITHIN_S = 1.0
#: How a broker says which messages it never takes, and up to which size it does (``max_message_size``).
TOO_LARGE = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherLimits:
    """``timeout`` bounds the wait while no confirm comes: a broker whose memory or disk is short stops reading and says
    nothing more. ``outstanding`` messages wait for their confirms at once, and ``waiting_bytes`` for their turn: who
    comes beyond is refused at once. ``kept_bytes`` of confirmed bodies are kept for publishing again; beyond them a
    look is taken without waiting for ``check_every``."""

    timeout: timedelta = timedelta(seconds=10)
    outstanding: int = 1000
    waiting_bytes: int = 64 << 20
    check_every: timedelta = timedelta(seconds=1)
    kept_bytes: int = 32 << 20


class _Baseline(NamedTuple):
    """``end`` of the log when ``confirmed`` messages of ours were in it and ``in_flight`` more may have been."""

    end: int
    confirmed: int
    in_flight: int


class _Barred(NamedTuple):
    """Nobody asks again before ``until`` (monotonic)."""

    reason: str
    until: float


class RabbitPublisher:
    """``control`` is a link that never publishes: a blocked broker answers on it all the same."""

    def __init__(self, control: Link, limits: PublisherLimits) -> None:
        self._control = control
        self._limits = limits
        self._broker = control.broker
        self._exchange = control.declarer.declaration.exchange.name
        self._queue = control.declarer.declaration.queue.name
        self._probes = Probes(control.broker, self._queue)
        self._line = Link(control.declarer, "publisher")
        self._channel: ConfirmChannel | None = None
        #: As the broker said on the present connection.
        self._largest_body = LARGEST_BODY_BYTES
        self._opening = asyncio.Lock()
        self._waiting_bytes = 0
        #: The last refusal to declare the log, and how long the next one would count.
        self._barred: _Barred | None = None
        self._longest_bar = FIRST_DELAY_S
        #: Confirmed since the last good look.
        self._kept: deque[Outgoing] = deque()
        self._kept_bytes = 0
        #: By channels that have ended.
        self._confirmed_before = 0
        self._baseline: _Baseline | None = None
        #: Somebody noticed that queue or binding were gone.
        self._gone = False
        self._alarm = asyncio.Event()
        self._checking = asyncio.Lock()
        #: Nothing more is taken; and, after the last look, nothing more is sent.
        self._closed = self._shut = False
        #: Of the publishes that wait for confirms; put off whenever some come.
        self._deadlines: set[asyncio.Timeout] = set()
        self._put_off_at = 0.0
        self._closing = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._sentinel: StreamConsumer | None = None
        self._sentinel_since = 0.0

    @property
    def kept_bytes(self) -> int:
        """Bodies that would be published again if the log turned out to be gone."""
        return self._kept_bytes

    @property
    def blocked(self) -> str | None:
        """Why the broker takes nothing at present, in its own words (``low on memory``); None while it does, as far
        as is known: it tells those who publish."""
        connection = self._line.current
        return None if connection is None else connection.scanner.blocked

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """As ``Log.publish``. Raises nothing but ``Unavailable``, ``Refused`` where the broker takes no message of that
        size, and ``ValueError`` for what AMQP cannot carry."""
        if self._closed:
            raise Unavailable(f"{self._broker}: the log was closed: open it again")
        if self._watching is None or self._watching.done():
            self._closing.clear()
            self._watching = asyncio.create_task(self._watch(), name="log publisher: watching")
        size = sum(len(message.body) for message in messages)
        if self._barred is not None and time.monotonic() < self._barred.until:
            raise Unavailable(self._barred.reason)
        if self._waiting_bytes and self._waiting_bytes + size > self._limits.waiting_bytes:
            raise Unavailable(
                f"{self._trouble()}, and {self._waiting_bytes >> 20} MiB wait already: try again later"
            )
        self._waiting_bytes += size
        try:
            await self._publish(messages)
        finally:
            self._waiting_bytes -= size

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        try:
            for start in range(0, len(messages), self._limits.outstanding):
                if self._kept_bytes > self._limits.kept_bytes:
                    await self.check()
                await self._timely(messages[start : start + self._limits.outstanding])
        except SettingsError as error:
            # Found at the start it ends a process. Here it must not: events come in, and there is a spool. Nor may
            # everybody who publishes ask the broker again what it has refused, in a loop.
            self._barred = _Barred(str(error), time.monotonic() + pause(self._longest_bar, None))
            self._longest_bar = min(self._longest_bar * 2, LONGEST_DELAY_S)
            raise Unavailable(str(error)) from error
        self._longest_bar = FIRST_DELAY_S

    async def check(self) -> None:
        """See that the log is there and holds what was confirmed; mend it if not. Raises ``EventsinkError``
        where that cannot be seen; then everything stays kept."""
        async with self._checking:
            with self._control.given_up_when_silent():
                await self._check()

    async def _check(self) -> None:
        kept, confirmed = len(self._kept), self._confirmed
        connection = await self._control.connection()
        end = None
        try:
            if kept or self._baseline is None:
                end = await self._probes.end(connection)
            elif not await self._control.declarer.present(connection):
                self._gone = True
        except NoQueue:
            self._gone = True
        if (
            self._gone
            or self._fell_short(end, confirmed)
            or await self._missing(connection, kept, end, confirmed)
        ):
            await self._mend()
        else:
            # Somebody may have taken the binding or the exchange away just now.
            await self._control.declare()
            if end is not None:
                in_flight = self._channel.in_flight if self._channel is not None else 0
                self._baseline = _Baseline(end, self._confirmed, in_flight)
            self._forget(kept)
        await self._post_sentinel(await self._control.connection())

    def open(self) -> None:
        """Publish again, after ``close``."""
        self._closed = self._shut = False

    async def close(self) -> None:
        """A last look at what was confirmed, then the end; idempotent."""
        self._closed = True
        looks_until = time.monotonic() + LAST_LOOK_S
        watching, self._watching = self._watching, None
        if watching is not None:
            # A look that is cut off leaves aiormq with channels that it has lost track of.
            self._closing.set()
            self._alarm.set()
            await asyncio.wait({watching}, timeout=LOOK_ENDS_WITHIN_S)
        await stop(watching)
        if self._kept:
            await self._look_once_more(looks_until - time.monotonic())
        sentinel, self._sentinel = self._sentinel, None
        self._shut = True
        ends = [self._line.close()]
        if sentinel is not None:
            ends.append(sentinel.end())
        await asyncio.gather(*ends)  # together: each takes seconds where the broker says nothing

    # -- publishing --

    async def _timely(self, messages: Sequence[Outgoing], *, keep: bool = True) -> None:
        """``keep`` what is confirmed, unless it is kept already."""
        try:
            async with asyncio.timeout(self._limits.timeout.total_seconds()) as deadline:
                self._deadlines.add(deadline)
                try:
                    await self._send(messages, keep=keep)
                finally:
                    self._deadlines.discard(deadline)
        except TimeoutError as error:
            if self.blocked is None:
                # What was written may still be read some time; by a connection that is given up it is not.
                self._line.drop()
            raise Unavailable(f"{self._trouble()} for {self._limits.timeout.total_seconds():g} s") from error

    def _put_off(self) -> None:
        """A broker that confirms is there, however slow: a publish is given up when nothing comes any more."""
        now = asyncio.get_running_loop().time()
        if now - self._put_off_at >= PUT_OFF_EVERY_S:
            self._put_off_at = now
            for deadline in self._deadlines:
                if not deadline.expired():
                    deadline.reschedule(now + self._limits.timeout.total_seconds())

    def _trouble(self) -> str:
        reason = self.blocked
        if reason is None:
            return f"{self._broker} took nothing (if it runs, it may lack memory or disk space)"
        return f"{self._broker} takes nothing ({reason})"

    async def _send(self, messages: Sequence[Outgoing], *, keep: bool) -> None:
        pending = list(messages)
        why = ""
        for attempt in range(ATTEMPTS):
            channel = await self._open_channel()
            self._demand_size(pending)
            outcomes = await channel.publish(pending)
            failed = []
            for message, outcome in zip(pending, outcomes, strict=True):
                if outcome is not Outcome.CONFIRMED:
                    failed.append(message)
                elif keep:
                    self._keep(message)
            if not failed:
                return
            pending = failed
            why = await self._recover(channel, set(outcomes))
            await asyncio.sleep(RETRY_AFTER_S * attempt)
        raise Unavailable(f"{self._broker} did not confirm {len(pending)} message(s): {why}")

    def _demand_size(self, messages: Sequence[Outgoing]) -> None:
        size = max([len(message.body) for message in messages], default=0)
        if size > self._largest_body:
            raise Refused(
                f"{self._broker} takes no message of {size} bytes: send at most {self._largest_body}, or raise its "
                "max_message_size"
            )

    async def _recover(self, channel: ConfirmChannel, outcomes: AbstractSet[Outcome]) -> str:
        """Make another try worth while; returns what was wrong."""
        missing = isinstance(channel.error, ChannelNotFoundEntity)
        if missing or Outcome.UNROUTABLE in outcomes:
            # It came back, or there is no exchange: what was confirmed a moment ago may be nowhere either.
            self._gone = True
            self._alarm.set()
            await self._control.declare()
            return "no queue was bound to the exchange" if channel.error is None else said(channel.error)
        if Outcome.UNCERTAIN in outcomes:
            if not isinstance(channel.error, AMQPChannelError):
                self._line.drop()
            elif isinstance(channel.error, ChannelPreconditionFailed) and (
                said_size := TOO_LARGE.search(said(channel.error))
            ):
                # Others, whose messages were on their way beside that one, try again.
                self._largest_body = int(said_size[1])
            return "the connection ended" if channel.error is None else said(channel.error)
        return "it refused them"

    async def _open_channel(self) -> ConfirmChannel:
        async with self._opening:
            if self._shut:
                raise Unavailable(
                    f"{self._broker}: the log was closed: what was not confirmed is not certain"
                )
            connection = await self._line.connection()
            channel = self._channel
            if channel is None or not channel.is_open or channel.connection is not connection:
                if channel is not None:
                    if channel.connection is not connection:
                        self._largest_body = LARGEST_BODY_BYTES
                    await channel.close()
                channel = ConfirmChannel(self._exchange, self._limits.outstanding, self._put_off)
                with unavailable(self._broker, "opening a channel"):
                    await channel.open(connection)
                self._confirmed_before = self._confirmed
                self._channel = channel
            return channel

    # -- looking after the log --

    async def _look_once_more(self, within_s: float) -> None:
        reason = "no answer"
        try:
            async with asyncio.timeout(within_s):
                while True:
                    try:
                        await self.check()
                        return
                    except EventsinkError as error:
                        reason = str(error)
                        await asyncio.sleep(RETRY_AFTER_S)
        except TimeoutError:
            log.warning(
                "the last %d message(s) were confirmed, but the log could not be looked at again: %s",
                len(self._kept),
                reason,
            )

    async def _watch(self) -> None:
        every = self._limits.check_every.total_seconds()
        delay = FIRST_DELAY_S
        while not self._closing.is_set():
            try:
                await self.check()
                wait, delay = every, FIRST_DELAY_S
            except EventsinkError as error:
                if delay == FIRST_DELAY_S:
                    log.warning(
                        "the log cannot be looked at, %d message(s) are kept: %s", len(self._kept), error
                    )
                wait, delay = pause(delay, None), min(delay * 2, LONGEST_DELAY_S)
            except (Exception, asyncio.CancelledError) as error:
                # Whatever it is: a log that nobody looks after any more loses in silence. aiormq cancels what waits
                # on a connection that ends.
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                    raise
                log.exception("data at risk: looking after the log failed, it is tried again")
                wait, delay = pause(delay, None), min(delay * 2, LONGEST_DELAY_S)
            try:
                async with asyncio.timeout(0 if self._closing.is_set() else wait):
                    await self._alarm.wait()
            except TimeoutError:
                pass
            self._alarm.clear()

    async def _missing(self, connection: Connection, kept: int, end: int | None, confirmed: int) -> bool:
        """Whether the last message kept is not in the log although that has grown: by what others append, while our
        binding was gone and another queue took our messages."""
        if end is None or self._baseline is None or not kept:
            return False
        certain = confirmed - self._baseline.confirmed - self._baseline.in_flight
        last = self._kept[kept - 1].event_id
        if certain <= 0 or last is None or end - self._baseline.end == certain:
            return False
        return not await self._probes.holds(connection, last, after=self._baseline.end, end=end)

    def _fell_short(self, end: int | None, confirmed: int) -> bool:
        """Whether the log has grown by less than what was confirmed since the baseline. Others append, too, and
        some of ours were on their way then: so only what is certain counts."""
        if end is None or self._baseline is None:
            return False
        certain = confirmed - self._baseline.confirmed - self._baseline.in_flight
        return end - self._baseline.end < max(0, certain)

    @property
    def _confirmed(self) -> int:
        return self._confirmed_before + (self._channel.confirmed if self._channel is not None else 0)

    async def _mend(self) -> None:
        await self._control.declare()
        self._gone = False
        self._baseline = None
        again = list(self._kept)
        log.error(
            "data at risk: the log's queue or its binding was gone; declared again, and the %d message(s) "
            "confirmed since the last good look are published again. Who deletes it?",
            len(again),
        )
        try:
            # They stay kept, once each, until a look finds them: this may fail, and fail again.
            for start in range(0, len(again), self._limits.outstanding):
                await self._timely(again[start : start + self._limits.outstanding], keep=False)
        except BaseException:
            self._gone = True
            raise

    async def _post_sentinel(self, connection: Connection) -> None:
        """A consumer that wants nothing but to be told when its queue is deleted."""
        sentinel = self._sentinel
        if sentinel is not None:
            if not sentinel.ended and time.monotonic() - self._sentinel_since < SENTINEL_LIFE_S:
                return
            await sentinel.end()
        self._sentinel = StreamConsumer(1, _ignored, self._on_sentinel_lost)
        self._sentinel_since = time.monotonic()
        with unavailable(self._broker, "posting the sentinel"):
            await self._sentinel.begin(connection, self._queue, "next")

    def _on_sentinel_lost(self, sentinel: StreamConsumer, reason: str) -> None:
        if sentinel.cancelled:
            self._gone = True
        self._alarm.set()

    def _keep(self, message: Outgoing) -> None:
        self._kept.append(message)
        self._kept_bytes += len(message.body)

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._kept_bytes -= len(self._kept.popleft().body)


def _ignored(consumer: StreamConsumer, deliveries: Sequence[Delivery]) -> None:
    """What the sentinel is sent, one message, stays unacknowledged: so it is sent no more."""
