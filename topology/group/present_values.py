"""The values of a group, as its ``Delivery`` asks for them: always of the present reading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from topology.group.delivery import WRITTEN_AT_A_TIME
from topology.group.reading import Reading
from topology.group.rows import Saved
from topology.rollups.operators import Kind
from topology.services.operator import Passing, ServiceOperator
from topology.sinks import Point
from topology.state import RowKey
from topology.windows import MINUTE


class PresentValues:
    """Implements ``delivery.Values``."""

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        reading: Callable[[], Reading],
        owned: Callable[[], Awaitable[bool]],
    ) -> None:
        self._kinds = kinds
        self._reading = reading
        self._owned = owned
        #: Of which operator the last passing of time was.
        self._passed: ServiceOperator | None = None

    async def of(self, rows: Sequence[Saved]) -> AsyncIterator[Sequence[Point]]:
        operators = self._reading().operators
        by_rollup: dict[str, list[Saved]] = {}
        for row in rows:
            by_rollup.setdefault(self._kinds[row.key.table].rollup.name, []).append(row)
        waiting: list[Point] = []
        for name, theirs in by_rollup.items():
            async for points in operators[name].values(theirs):
                waiting += points
                if len(waiting) >= WRITTEN_AT_A_TIME:
                    yield waiting
                    waiting = []
                await asyncio.sleep(0)
        if waiting:
            yield waiting

    def found(self, key: RowKey, version: int) -> bool:
        reading = self._reading()
        if not reading.rows.found(key, version):
            return False
        reading.operators[self._kinds[key.table].rollup.name].found(key)
        return True

    async def passing(self) -> Passing | None:
        for each in self._reading().timed:
            if (passing := await each.passing()) is not None:
                self._passed = each
                return passing
        return None

    def told(self, passing: Passing) -> None:
        if self._passed is not None:
            self._passed.told_ms = passing.told_ms

    def since(self, points: Sequence[Point]) -> int | None:
        timed = {each.name for each in self._reading().timed}
        starts = [point.time for point in points if point.rollup in timed and point.window == MINUTE.name]
        return min(starts) * 1000 if starts else None

    def tell_again(self, since_ms: int) -> None:
        for each in self._reading().timed:
            each.tell_again(since_ms)

    async def owned(self) -> bool:
        return await self._owned()
