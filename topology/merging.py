"""Hours and days as merges of their minutes: for rollups whose coarser windows are not state of their own.

Summaries are kept in memory within a bound, and can be made again from the rows at any time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from topology.windows import HOUR, MINUTE

S = TypeVar("S")

#: Summaries of minutes and hours in memory; those of a day of one key are 1464.
MOST_SUMMARIES = 30_000
#: Merges of the minutes of an hour that is not over.
MOST_RUNS = 4_000


class Merges(Generic[S]):
    """``minutes(key, starts)`` gives the summaries of those minutes (epoch seconds, ascending) that have one; ``merge``
    makes one of several. Whoever changes a row says ``changed`` without an await in between."""

    def __init__(
        self,
        minutes: Callable[[str, Sequence[int]], Awaitable[Mapping[int, S]]],
        merge: Callable[[Sequence[S]], S],
    ) -> None:
        self._minutes = minutes
        self._merge = merge
        self._known: OrderedDict[tuple[str, int, int], S | None] = OrderedDict()
        self._runs: dict[tuple[str, int, int], S | None] = {}
        #: Counts changes: what was computed while one happened may be of before, and is not kept.
        self._changes = 0

    def changed(self, key: str, start: int, end: int) -> None:
        """The summaries of ``key`` in [start, end) are void."""
        self._changes += 1
        self._runs.clear()
        for minute in range(start - start % MINUTE.seconds, end, MINUTE.seconds):
            self._known.pop((key, MINUTE.seconds, minute), None)
            if minute % HOUR.seconds == 0:
                self._known.pop((key, HOUR.seconds, minute), None)
        self._known.pop((key, HOUR.seconds, HOUR.start(start)), None)

    def forget(self, key: str) -> None:
        """All summaries of ``key`` are void."""
        self._changes += 1
        self._runs.clear()
        for known in [known for known in self._known if known[0] == key]:
            del self._known[known]

    async def between(self, key: str, start: int, end: int) -> S | None:
        """The summary of the whole minutes in [start, end), None where there is nothing. Waits while the store is
        away."""
        run = (key, start, end)
        if run in self._runs:
            return self._runs[run]
        changes = self._changes
        found: list[S] = []
        at = start
        while at < end:
            hour_ends = HOUR.end(HOUR.start(at))
            if at % HOUR.seconds == 0 and hour_ends <= end:
                part = await self._hour(key, at)
            else:
                part = self._merged(await self._each(key, at, min(hour_ends, end)))
            if part is not None:
                found.append(part)
            at = hour_ends
        merged = self._merged(found)
        if changes == self._changes:
            if len(self._runs) >= MOST_RUNS:
                self._runs.clear()
            self._runs[run] = merged
        return merged

    async def _hour(self, key: str, start: int) -> S | None:
        address = (key, HOUR.seconds, start)
        if address in self._known:
            self._known.move_to_end(address)
            return self._known[address]
        changes = self._changes
        hour = self._merged(await self._each(key, start, start + HOUR.seconds))
        if changes == self._changes:
            self._keep(address, hour)
        return hour

    async def _each(self, key: str, start: int, end: int) -> list[S]:
        starts = range(start, end, MINUTE.seconds)
        known = self._known
        missing = [minute for minute in starts if (key, MINUTE.seconds, minute) not in known]
        summaries = {
            minute: known[key, MINUTE.seconds, minute]
            for minute in starts
            if (key, MINUTE.seconds, minute) in known
        }
        if missing:
            changes = self._changes
            made = await self._minutes(key, missing)
            for minute in missing:
                summaries[minute] = made.get(minute)
                if changes == self._changes:
                    self._keep((key, MINUTE.seconds, minute), made.get(minute))
        found = (summaries[minute] for minute in starts)
        return [summary for summary in found if summary is not None]

    def _merged(self, summaries: Sequence[S]) -> S | None:
        if len(summaries) < 2:
            return summaries[0] if summaries else None
        return self._merge(summaries)

    def _keep(self, address: tuple[str, int, int], summary: S | None) -> None:
        known = self._known
        known[address] = summary
        known.move_to_end(address)
        if len(known) > MOST_SUMMARIES:
            known.popitem(last=False)
