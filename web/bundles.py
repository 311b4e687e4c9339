"""What comes at the same time goes into the log as one message: a message costs the broker, and us, more than the
events in it do (docs/decisions/0037).

1. gathered    the events of every request that comes in one turn of the loop or, where much is on its way already,
               until some of that is durable
2. stamped     once, as any message is: its id and its arrival are those of all events in it that bring none
3. delivered   and every request is answered then, none before
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from topology.errors import Refused
from topology.log import JSON, NDJSON, Outgoing
from topology.uuid7 import uuid7
from web.delivery import Delivery, Durable
from web.items import MAX_ITEM_BYTES

#: While so many are being confirmed, who comes is gathered. Two: while the broker works on one, we work on the next.
AT_ONCE = 2
#: As one item may be, so a broker that takes every item takes every bundle, from the spool too. What is more waits with
#: the delivery, within its bounds.
BUNDLE_BYTES = MAX_ITEM_BYTES
#: The arrival of one event is that of the others, as far as anybody can tell.
ARRIVED_WITHIN_MS = 10


class _Bundle:
    """What requests bring, and who waits for each of it."""

    __slots__ = ("bodies", "content_type", "received_ms", "size", "waiting")

    def __init__(self, received_ms: int) -> None:
        self.received_ms = received_ms
        self.content_type = NDJSON
        self.bodies: list[bytes] = []
        self.waiting: list[asyncio.Future[Durable]] = []
        self.size = 0

    def takes(self, body: bytes, now: int) -> bool:
        """Whether there is room for it, and it comes at the same time."""
        return self.size + len(body) <= BUNDLE_BYTES and 0 <= now - self.received_ms <= ARRIVED_WITHIN_MS

    def add(self, body: bytes, content_type: str) -> asyncio.Future[Durable]:
        """Put it behind the others. The future says where it is kept."""
        kept: asyncio.Future[Durable] = asyncio.get_running_loop().create_future()
        self.content_type = NDJSON if self.bodies else content_type
        self.bodies.append(body)
        self.waiting.append(kept)
        self.size += len(body) + 1
        return kept

    def message(self) -> Outgoing:
        """All of it, stamped."""
        return _stamped(self.bodies, self.content_type, self.received_ms)

    def taken_apart(self) -> Iterator[_Bundle]:
        """Each of its bodies by itself."""
        for body, kept in zip(self.bodies, self.waiting, strict=True):
            alone = _Bundle(self.received_ms)
            alone.bodies, alone.waiting = [body], [kept]
            yield alone

    def fail(self, error: Exception) -> None:
        """Tell everybody who waits."""
        for kept in self.waiting:
            if not kept.done():  # else its request is gone
                kept.set_exception(error)


class Bundles:
    """Gathers for ``delivery``. ``clock``: epoch milliseconds."""

    def __init__(self, delivery: Delivery, *, clock: Callable[[], int]) -> None:
        self._delivery = delivery
        self._clock = clock
        self._gathered: _Bundle | None = None
        self._delivering: set[asyncio.Task[None]] = set()

    async def deliver(self, body: bytes, content_type: str) -> Durable:
        """Keep the events of a request, as a message holds them; durable when this returns. Raises as
        ``Delivery.deliver``."""
        now = self._clock()
        if content_type == JSON and b"\n" in body:  # one event on several lines is none of several events
            return await self._delivery.deliver(_stamped([body], content_type, now))
        gathered = self._gathered
        if gathered is None or not gathered.takes(body, now):
            if gathered is not None:
                self._send(gathered)
            gathered = self._gathered = _Bundle(now)
            asyncio.get_running_loop().call_soon(self._turned, gathered)
        kept = gathered.add(body, content_type)
        if gathered.size >= BUNDLE_BYTES:
            self._send(gathered)
        return await kept

    def _turned(self, gathered: _Bundle) -> None:
        """The turn of the loop is over in which it was begun."""
        if gathered is self._gathered and len(self._delivering) < AT_ONCE:
            self._send(gathered)

    def _send(self, bundle: _Bundle) -> None:
        if bundle is self._gathered:
            self._gathered = None
        delivering = asyncio.get_running_loop().create_task(self._deliver(bundle))
        self._delivering.add(delivering)
        delivering.add_done_callback(self._delivered)

    def _delivered(self, delivering: asyncio.Task[None]) -> None:
        self._delivering.discard(delivering)
        if self._gathered is not None and len(self._delivering) < AT_ONCE:
            self._send(self._gathered)

    async def _deliver(self, bundle: _Bundle) -> None:
        try:
            durable = await self._delivery.deliver(bundle.message())
        except Refused as error:
            if len(bundle.bodies) == 1:
                bundle.fail(error)
                return
            # Together they are too much. Nothing of them was taken, so each may be stamped anew.
            for alone in bundle.taken_apart():
                self._send(alone)
        except asyncio.CancelledError:
            for kept in bundle.waiting:
                kept.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised to each request, which logs what it does not know
            bundle.fail(error)
        else:
            for kept in bundle.waiting:
                if not kept.done():
                    kept.set_result(durable)


def _stamped(bodies: Sequence[bytes], content_type: str, received_ms: int) -> Outgoing:
    return Outgoing(b"\n".join(bodies), content_type, uuid7(received_ms), received_ms)
