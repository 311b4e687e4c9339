"""One consumer of a stream on a channel of its own, delivered to by the connection's scanner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import aiormq.abc
from aio_pika.abc import AbstractChannel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError

from topology.rabbitmq.connection import Connection, closed, said
from topology.rabbitmq.frames import Delivery
from topology.rabbitmq.messages import OFFSET_HEADER


class StreamConsumer:
    """Calls ``receive`` with what was delivered, in order, and ``lost`` once when the other side ends it. After
    ``end`` neither is called."""

    def __init__(
        self,
        prefetch: int,
        receive: Callable[[StreamConsumer, Sequence[Delivery]], None],
        lost: Callable[[StreamConsumer, str], None],
    ) -> None:
        self.prefetch = prefetch
        #: Whether it ended because the broker cancelled it: the queue is gone.
        self.cancelled = False
        self._receive = receive
        self._lost = lost
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._plain: aiormq.abc.AbstractChannel | None = None
        self._ended = False
        self._writing = asyncio.Lock()

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return self._ended

    async def begin(self, connection: Connection, queue: str, offset: int | str) -> None:
        """Consume from ``offset`` on. Raises what aio-pika raises."""
        channel = self._channel = connection.channel(publisher_confirms=False)
        await channel.initialize()
        channel.close_callbacks.add(self._on_channel_end)
        # The layer below aio-pika's queues: it tells when the broker cancels a consumer.
        plain = self._plain = await channel.get_underlay_channel()
        plain.on_consumer_cancel_callbacks.add(self._on_cancel)
        self._connection = connection
        connection.scanner.take(plain.number, self._on_deliveries)
        await plain.basic_qos(prefetch_count=self.prefetch)
        await plain.basic_consume(queue, not_scanned, arguments={OFFSET_HEADER: offset})

    async def acknowledge(self, tag: int) -> None:
        """Everything up to ``tag``: the broker may send as many more. Raises nothing."""
        async with self._writing:
            if self._ended or self._plain is None or self._plain.is_closed:
                return
            try:
                await self._plain.basic_ack(tag, multiple=True, wait=False)
            except (AMQPError, OSError, RuntimeError):
                pass  # the channel has just ended: ``lost`` says so

    async def end(self) -> None:
        """Stop. Nothing is acknowledged from here on: behind the channel's end that would cost the
        connection. Raises nothing; idempotent."""
        if self._ended:
            return
        self._ended = True
        await closed(self._close())

    async def _close(self) -> None:
        async with self._writing:
            if self._channel is not None and self._channel.is_initialized:
                await self._channel.close()
            self._leave()  # not before: until then there are deliveries on their way

    def _leave(self) -> None:
        if self._connection is not None and self._plain is not None:
            self._connection.scanner.leave(self._plain.number, self._on_deliveries)

    def _on_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        if not self._ended:
            self._receive(self, deliveries)

    async def _on_cancel(self, frame: object) -> None:
        self.cancelled = True
        self._tell("the broker cancelled the consumer, as it does when the queue is deleted")

    async def _on_channel_end(self, channel: object, error: BaseException | None) -> None:
        self._leave()
        self._tell(f"the broker closed the channel ({said(error) if error else 'no reason given'})")

    def _tell(self, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._lost(self, reason)


async def not_scanned(message: DeliveredMessage) -> None:
    """What aiormq would call. The scanner has the deliveries of this channel, so none comes here."""
    raise RuntimeError("a delivery went past the scanner")
