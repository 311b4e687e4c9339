"""The log on RabbitMQ: a stream queue bound to a durable fanout exchange.

connection   where the broker is, connections to it, and their ends
declarer     what is declared on it, and connections that have it
version      what the broker says it is
messages     messages as AMQP carries them
probes       questions to the log, answered for certain
reader       one reading
consumer     the consumer under it
frames       the way of deliveries from the socket to it, past aiormq
publisher    appending, and looking after the log meanwhile
confirms     the channel under it
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakSet

from yarl import URL

from topology.errors import Unavailable
from topology.log import LogStart, Message, Outgoing
from topology.rabbitmq.connection import Broker, Connection, LoginRefused
from topology.rabbitmq.declarer import Declarer, FanoutExchange, Link, LogDeclaration, StreamQueue
from topology.rabbitmq.probes import NoQueue, Probes
from topology.rabbitmq.publisher import PublisherLimits, RabbitPublisher
from topology.rabbitmq.reader import RabbitReader, ReaderLimits

T = TypeVar("T")

PUBLISHING = PublisherLimits()
READING = ReaderLimits()


class RabbitLog:
    """The stream ``queue`` of everything that is published to ``exchange``.

    Offsets ascend, with gaps: RabbitMQ keeps one for itself at the start of each segment of a stream.

    Connects when it is used, and again after a loss: ``open`` only proves that it can. ``max_age`` is in
    RabbitMQ's words (``14D``). One connection each for looking, for publishing and for every reader, since a
    broker short of memory stops reading from those that publish.
    """

    def __init__(
        self,
        url: str | URL,
        exchange: str = "clowder.metrics",
        queue: str = "eventsink.log",
        max_age: str = "14D",
        max_bytes: int = 20_000_000_000,
        *,
        publishing: PublisherLimits = PUBLISHING,
        reading: ReaderLimits = READING,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        declaration = LogDeclaration(FanoutExchange(exchange), StreamQueue(queue, max_age, max_bytes))
        self._link = Link(Declarer(Broker(url), declaration), "log")
        self._probes = Probes(self._link.broker, queue)
        #: Looks after the log while it publishes.
        self.publisher = RabbitPublisher(self._link, publishing)
        self._reading = reading
        self._logged_in = False
        self._readers: WeakSet[RabbitReader] = WeakSet()
        self._monotonic = monotonic

    async def open(self) -> None:
        """Connect and declare. Raises ``Unavailable`` or ``SettingsError``."""
        await self._link.declare()
        self._logged_in = True
        self.publisher.open()

    async def close(self) -> None:
        """Close everything, readers included, after a last look at what was published; idempotent."""
        for reader in list(self._readers):
            await reader.close()
        await self.publisher.close()
        await self._link.close()

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish, mandatory and persistent, and wait for the broker's confirms. Raises ``Unavailable``, ``Refused``
        where the broker takes no message of that size, and ``ValueError`` for what AMQP cannot carry."""
        await self.publisher.publish(messages)

    async def reader(self, offset: int) -> RabbitReader:
        """A reader from the lowest offset that is >= ``offset``. Raises ``Unavailable`` or ``SettingsError``."""
        with self._login_may_come_back():
            await self._link.declare()
            reader = RabbitReader(self._link, offset, self._reading, self._monotonic)
            await reader.open()
        self._readers.add(reader)
        return reader

    async def message_at(self, offset: int) -> Message | None:
        """The message at exactly this offset; None only if it is certain that the log has none there."""
        return await self._asked(lambda connection: self._probes.message_at(connection, offset))

    async def first_offset(self) -> int | None:
        """The lowest offset that is left, None if the log is empty."""
        return await self._asked(self._probes.first)

    async def end_offset(self) -> int:
        """The offset that the next message will get."""
        return await self._asked(self._probes.end)

    async def offset_since(self, start: LogStart) -> int:
        """As ``Log.offset_since``; to the second, and to the chunk."""
        if start == "first":
            return 0
        return await self._asked(lambda connection: self._probes.since(connection, start))

    @contextmanager
    def _login_may_come_back(self) -> Iterator[None]:
        """A login that was good once and is refused now is an outage: the broker is being set up anew."""
        try:
            yield
        except LoginRefused as error:
            if not self._logged_in:
                raise
            raise Unavailable(str(error)) from error

    async def _asked(self, question: Callable[[Connection], Awaitable[T]]) -> T:
        with self._login_may_come_back(), self._link.given_up_when_silent():
            try:
                return await question(await self._link.connection())
            except NoQueue:
                return await question(await self._link.declare())
