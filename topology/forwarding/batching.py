"""Batching: parcels wait until a request of them is full or has waited long enough. And holding: parcels whose ids the
vendor wants to rest wait by themselves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

from topology.forwarding.breaker import Pace
from topology.forwarding.consignments import Item
from topology.forwarding.vendor import Limits


class Waiting:
    """What is to be sent, by what may go together; whoever waited longest goes first."""

    def __init__(self, limits: Limits, pace: Pace) -> None:
        self._limits = limits
        self._pace = pace
        self._groups: OrderedDict[str, deque[Item]] = OrderedDict()
        self._since: dict[str, float] = {}
        self._changed = asyncio.Event()

    def put(self, items: Iterable[Item]) -> None:
        now = self._pace.monotonic()
        for item in items:
            group = self._groups.setdefault(item.parcel.together, deque())
            group.append(item)
            self._since.setdefault(item.parcel.together, now)
        self._changed.set()

    def put_back(self, items: Sequence[Item]) -> None:
        """Before all others, in their order, and without lingering."""
        for item in reversed(items):
            together = item.parcel.together
            self._groups.setdefault(together, deque()).appendleft(item)
            self._groups.move_to_end(together, last=False)
            self._since[together] = -self._limits.linger_s
        if items:
            self._changed.set()

    def clear(self) -> list[Item]:
        """Forget all, and return them."""
        forgotten = [item for group in self._groups.values() for item in group]
        self._groups.clear()
        self._since.clear()
        return forgotten

    async def due(self) -> None:
        """Return when a request should go."""
        while True:
            self._changed.clear()
            if not self._groups:
                await self._changed.wait()
                continue
            together, group = next(iter(self._groups.items()))
            left = self._since[together] + self._limits.linger_s - self._pace.monotonic()
            if left <= 0 or len(group) >= self._limits.events:
                return
            await _either(self._changed, left, self._pace)

    def take(self) -> list[Item]:
        """The items of one request; none where there are none."""
        if not self._groups:
            return []
        together, group = next(iter(self._groups.items()))
        taken: list[Item] = []
        size = 0
        while group and len(taken) < self._limits.events:
            size += len(group[0].parcel.body) + 1
            if taken and size > self._limits.bytes:
                break
            taken.append(group.popleft())
        if not group:
            del self._groups[together], self._since[together]
        return taken


class Holding:
    """Items that rest, and the ids that are to rest."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._ids: dict[str, float] = {}
        self._resting: list[tuple[float, int, Item]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()

    def hold(self, items: Iterable[Item], ids: Iterable[str], for_s: float) -> None:
        until = self._pace.monotonic() + for_s
        self._ids.update((each, until) for each in ids)
        for item in items:
            heapq.heappush(self._resting, (until, next(self._order), item))
        self._changed.set()

    def kept(self, items: Sequence[Item]) -> list[Item]:
        """Keep those whose ids rest, and return the others."""
        if not self._ids:
            return list(items)
        now = self._pace.monotonic()
        self._ids = {each: until for each, until in self._ids.items() if until > now}
        free: list[Item] = []
        for item in items:
            until = max((self._ids.get(each, 0.0) for each in item.parcel.ids), default=0.0)
            if until > now:
                heapq.heappush(self._resting, (until, next(self._order), item))
                self._changed.set()
            else:
                free.append(item)
        return free

    @property
    def rests(self) -> bool:
        """Whether any item does."""
        return bool(self._resting)

    def clear(self) -> list[Item]:
        """Forget all items, not the ids, and return them."""
        forgotten = [item for _, _, item in self._resting]
        self._resting.clear()
        return forgotten

    async def rested(self) -> list[Item]:
        """Those whose time is over; waits until there are some."""
        while True:
            self._changed.clear()
            now = self._pace.monotonic()
            found: list[Item] = []
            while self._resting and self._resting[0][0] <= now:
                found.append(heapq.heappop(self._resting)[2])
            if found:
                return found
            if self._resting:
                # Whoever comes later may rest for less.
                await _either(self._changed, self._resting[0][0] - now, self._pace)
            else:
                await self._changed.wait()


async def _either(changed: asyncio.Event, seconds: float, pace: Pace) -> None:
    """Return when something changed, at the latest after ``seconds``."""
    timer = asyncio.ensure_future(pace.sleep(seconds))
    change = asyncio.ensure_future(changed.wait())
    try:
        await asyncio.wait((timer, change), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (timer, change):
            each.cancel()
        await asyncio.gather(timer, change, return_exceptions=True)
