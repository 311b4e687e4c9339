"""What makes the engine stand still until a test says otherwise: no Faust, no waiting for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from datetime import timedelta
from typing import Any

from topology.agents import Agent
from topology.batch import Batch
from topology.flow import BATCHES_WAITING
from topology.group.groups import Group
from topology.log import LogReader, Message
from topology.parts import GroupParts
from topology.sqlite.log import SqliteLog

#: Longer than any test.
_FOR_EVER = timedelta(days=1)


class Bare:
    """As ``topology.flow.Flow``, without Faust: each agent reads from a queue of its own."""

    def __init__(self, agents: Iterable[Agent], parts: GroupParts) -> None:
        members: dict[str, list[Agent]] = {}
        for agent in agents:
            members.setdefault(agent.group, []).append(agent)
        self.groups = [Group(name, group, parts) for name, group in members.items()]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for group in self.groups:
            await group.start()
            queues = {name: asyncio.Queue[Batch](BATCHES_WAITING) for name in group.agents}
            self._spawn(group, _read(group, list(queues.values())))
            for name, agent in group.agents.items():
                self._spawn(group, _run(agent, group, queues[name]))

    async def stop(self) -> None:
        """Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for group in self.groups:
            await group.stop()

    def _spawn(self, group: Group, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - as Flow does
                group.fail(error)

        self._tasks.append(asyncio.get_running_loop().create_task(guarded()))


async def _read(group: Group, queues: Sequence[asyncio.Queue[Batch]]) -> None:
    async for batch in group.read():
        for queue in queues:
            await queue.put(batch)


async def _run(agent: Agent, group: Group, queue: asyncio.Queue[Batch]) -> None:
    await agent.body(group.batches(agent, _taken(queue)))


async def _taken(queue: asyncio.Queue[Batch]) -> AsyncIterator[Batch]:
    while True:
        yield await queue.get()


class Patience:
    """How long readers wait for a message: until ``over`` is called, each of them once a call."""

    def __init__(self) -> None:
        self.times = 0
        self.event = asyncio.Event()

    def over(self) -> None:
        event, self.event = self.event, asyncio.Event()
        self.times += 1
        event.set()


class LogByHand:
    """A log whose readers have ``patience``."""

    def __init__(self, inner: SqliteLog, patience: Patience) -> None:
        self._inner = inner
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def reader(self, offset: int) -> ReaderByHand:
        return ReaderByHand(await self._inner.reader(offset), self._patience)


class ReaderByHand:
    """Its ``timeout`` is what its patience is."""

    def __init__(self, inner: LogReader, patience: Patience) -> None:
        self._inner = inner
        self._patience = patience
        self._times = patience.times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def fetch(self, *, limit: int, max_bytes: int, timeout: timedelta) -> Sequence[Message]:
        over = self._patience.event
        fetching = asyncio.create_task(self._inner.fetch(limit=limit, max_bytes=max_bytes, timeout=_FOR_EVER))
        waiting = asyncio.create_task(over.wait())
        try:
            if self._times == self._patience.times:
                await asyncio.wait([fetching, waiting], return_when=asyncio.FIRST_COMPLETED)
            if fetching.done():
                return fetching.result()
            self._times = self._patience.times
            return ()
        finally:
            fetching.cancel()
            waiting.cancel()
            await asyncio.gather(fetching, waiting, return_exceptions=True)
