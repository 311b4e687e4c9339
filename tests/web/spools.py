"""A spool, and a broker that does what it is told, as the tests of the spool need them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from topology.errors import Refused, Unavailable
from topology.log import JSON, NDJSON, Outgoing
from topology.outages import Outages
from web.delivery import BrokerDelivery
from web.draining import Drainer
from web.spool import Spool

NOW_MS = 1_795_467_600_000
ROOM = 10_000_000
LARGEST = 100_000
PATIENCE_S = 120.0


def stamped(number: int, *, size: int = 0, events: int = 1) -> Outgoing:
    """The message of this number; ``size`` of its body at least."""
    line = f'{{"n":{number}}}'.ljust(size).encode()
    return Outgoing(
        b"\n".join([line] * events), NDJSON if events > 1 else JSON, f"id-{number}", NOW_MS + number
    )


class Broker:
    """The log on a broker. ``away`` raises, ``hangs`` takes nothing and says nothing, neither takes."""

    def __init__(self) -> None:
        self.took: list[Outgoing] = []
        self.calls: list[int] = []
        self.away = False
        self.lets_go = asyncio.Event()
        self.lets_go.set()

    async def open(self) -> None:
        await self._answer()

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self.calls.append(len(messages))
        await self._answer()
        if any(len(message.body) > LARGEST for message in messages):
            raise Refused("the broker takes no message of that size")
        self.took += messages

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("the broker is stopped")
        await self.lets_go.wait()

    def hang(self) -> None:
        self.lets_go.clear()

    @property
    def ids(self) -> list[str | None]:
        return [message.event_id for message in self.took]


class FileBroker(Broker):
    """Whatever it takes is in a file, in the order in which it was taken."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def lines(self) -> list[str]:
        """Id and arrival of each message that it has taken."""
        return self._file.read_text().splitlines() if self._file.exists() else []

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        await super().publish(messages)
        with self._file.open("a") as file:
            file.writelines(f"{message.event_id} {message.received_ms}\n" for message in messages)


async def impatient(seconds: float) -> None:
    """Instead of a pause between two tries."""
    await asyncio.sleep(0)


class Life:
    """One life of a web process: broker, spool, drainer, delivery."""

    def __init__(self, folder: Path, broker: Broker, **spool: Any) -> None:
        self.broker = broker
        self.spool = Spool(folder / "spool.db", **{"max_bytes": ROOM, **spool})
        self.outages = Outages(impatient)
        log: Any = broker  # of a log nothing else is asked
        self.blocked: str | None = None
        self.drainer = Drainer(log, self.spool, blocked=lambda: self.blocked, outages=self.outages)
        self.delivery = BrokerDelivery(log, self.spool, self.drainer)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for it."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.001)

    async def drained(self) -> None:
        """Wait until messages go to the broker directly."""
        await self.until(lambda: self.drainer.direct)


@asynccontextmanager
async def life(folder: Path, broker: Broker, **spool: Any) -> AsyncIterator[Life]:
    """A delivery that is open; closed at the end."""
    lived = Life(folder, broker, **spool)
    await lived.delivery.open()
    try:
        yield lived
    finally:
        await lived.delivery.close()
