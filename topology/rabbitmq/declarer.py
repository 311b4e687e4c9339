"""What the log needs on RabbitMQ, and connections that have it. Exchange and queue are values; the ``Declarer`` alone
makes them, a ``Link`` alone keeps a connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.common import Arguments

from topology.errors import SettingsError, Unavailable
from topology.rabbitmq.connection import (
    CALL_LIMIT_S,
    Broker,
    Connection,
    end,
    is_missing,
    message_count,
    not_a_stream,
    open_channel,
    said,
    unavailable,
)

log = logging.getLogger(__name__)

#: Retention deletes whole segments: one is a small part of the log, and no larger than RabbitMQ's default.
SEGMENTS = 20
LARGEST_SEGMENT_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class FanoutExchange:
    """Where events are published: durable, nothing else."""

    name: str

    def __str__(self) -> str:
        return (
            f"exchange {self.name!r} (type 'fanout', durable 'true', auto_delete 'false', internal 'false')"
        )


@dataclass(frozen=True, slots=True)
class StreamQueue:
    """The log itself. ``max_age`` in RabbitMQ's words (``14D``)."""

    name: str
    max_age: str
    max_bytes: int

    @property
    def segment_bytes(self) -> int:
        return max(1, min(LARGEST_SEGMENT_BYTES, self.max_bytes // SEGMENTS))

    @property
    def arguments(self) -> Arguments:
        return {
            "x-queue-type": "stream",
            "x-max-age": self.max_age,
            "x-max-length-bytes": self.max_bytes,
            "x-stream-max-segment-size-bytes": self.segment_bytes,
        }


@dataclass(frozen=True, slots=True)
class LogDeclaration:
    """The exchange and the queue that is bound to it."""

    exchange: FanoutExchange
    queue: StreamQueue


class Declarer:
    """Makes the log where it is missing. What others declared is used, or refused with both declarations."""

    def __init__(self, broker: Broker, declaration: LogDeclaration) -> None:
        self.broker = broker
        self.declaration = declaration
        #: The queue is there, a stream, and has arguments of somebody else's choice.
        self._used_as_it_is = False

    async def declare(self, connection: Connection) -> None:
        """Exchange, queue and binding, as far as they are missing.

        Raises ``Unavailable`` or ``SettingsError``.
        """
        with unavailable(self.broker, "declaring the log"):
            try:
                async with asyncio.timeout(CALL_LIMIT_S):
                    await self._declare(connection)
            except ChannelAccessRefused as error:
                raise SettingsError(
                    f"{self.broker}: the user may not declare the log ({said(error)}): grant it the "
                    f"permissions configure, write and read"
                ) from error

    async def present(self, connection: Connection) -> bool:
        """Whether the queue is there. Raises ``Unavailable``."""
        with unavailable(self.broker, "looking for the log"):
            try:
                async with asyncio.timeout(CALL_LIMIT_S):
                    await message_count(connection, self.declaration.queue.name)
            except ChannelNotFoundEntity as error:
                if not is_missing(error):
                    raise
                return False
        return True

    async def _declare(self, connection: Connection) -> None:
        queue = self.declaration.queue
        async with open_channel(connection) as channel:
            await self._declare_exchange(channel)
            try:
                # Refused once is enough: the broker logs each time as an error.
                await channel.declare_queue(
                    queue.name, durable=True, arguments=queue.arguments, passive=self._used_as_it_is
                )
                await self._bind(channel)
                return
            except ChannelPreconditionFailed as error:
                difference = said(error)
            except ChannelNotFoundEntity as error:
                if not self._used_as_it_is or not is_missing(error):
                    raise
                difference = None
        # The broker has closed that channel.
        if difference is None:
            self._used_as_it_is = False
            await self._declare(connection)
        else:
            await self._accept_queue(connection, difference)
            async with open_channel(connection) as channel:
                await self._bind(channel)

    async def _declare_exchange(self, channel: AbstractChannel) -> None:
        exchange = self.declaration.exchange
        try:
            await channel.declare_exchange(exchange.name, aio_pika.ExchangeType.FANOUT, durable=True)
        except ChannelPreconditionFailed as error:
            raise SettingsError(
                f"{self.broker}: somebody declared the exchange otherwise. Ours: {exchange}. Theirs differs: "
                f"{said(error)}. Delete theirs, declare it alike there, or set EVENTSINK_EXCHANGE"
            ) from error

    async def _accept_queue(self, connection: Connection, difference: str) -> None:
        """A stream with another retention does, whoever chose that; no other kind of queue can be a log."""
        queue = self.declaration.queue
        try:
            async with open_channel(connection) as channel:
                plain = await channel.get_underlay_channel()
                # Streams alone refuse a consumer without prefetch. Whatever another queue delivers here goes
                # back into it when the channel closes.
                await plain.basic_consume(queue.name, _ignored)
        except ChannelPreconditionFailed:
            pass
        else:
            raise not_a_stream(self.broker, queue.name)
        if not self._used_as_it_is:
            self._used_as_it_is = True
            log.warning("the log's queue was declared otherwise and is used as it is: %s", difference)

    async def _bind(self, channel: AbstractChannel) -> None:
        queue = await channel.get_queue(self.declaration.queue.name, ensure=False)
        await queue.bind(self.declaration.exchange.name)


async def _ignored(message: DeliveredMessage) -> None:
    """The delivery stays unacknowledged."""


class Link:
    """A connection that is made when it is needed and made anew after it was lost. Every new one declares
    the log first."""

    def __init__(self, declarer: Declarer, purpose: str) -> None:
        self.declarer = declarer
        self._purpose = purpose
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def broker(self) -> Broker:
        return self.declarer.broker

    @property
    def current(self) -> Connection | None:
        """The connection as it is, None if there is none at present."""
        return self._connection

    async def connection(self) -> Connection:
        """The connection. Raises ``Unavailable`` or ``SettingsError``."""
        async with self._connecting:
            if self._connection is None or not self._connection.is_open:
                self.drop()
                connection = await self.broker.connect(self._purpose)
                try:
                    await self.declarer.declare(connection)
                except BaseException:
                    await end(connection)
                    raise
                self._connection = connection
            return self._connection

    async def declare(self) -> Connection:
        """The connection, after making sure that nothing of the log is missing."""
        before = self._connection
        connection = await self.connection()
        if connection is before:
            with self.given_up_when_silent():
                await self.declarer.declare(connection)
        return connection

    @contextmanager
    def given_up_when_silent(self) -> Iterator[None]:
        """Around calls on the connection: one that does not answer is not asked again, although it may take
        the heartbeat half a minute to find that out."""
        try:
            yield
        except Unavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                self.drop()
            raise

    def drop(self) -> None:
        """Give up a connection that does not work, without waiting for its end; the next use makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            ending = asyncio.create_task(end(connection))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def close(self) -> None:
        """Idempotent."""
        async with self._connecting:
            self.drop()
        await asyncio.gather(*self._endings)
