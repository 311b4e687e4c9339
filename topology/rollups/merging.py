"""Hours and days as merges of their minutes: for rollups whose coarser windows are not state of their own.

Summaries are kept in memory within a bound, and can be made again from the rows at any time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

from topology.windows import DAY, HOUR, MINUTE

S = TypeVar("S")
_Known: TypeAlias = "OrderedDict[tuple[str, int], S | None]"

#: Summaries of minutes in memory: those of the hour that is passing, of 500 keys.
MOST_MINUTES = 30_000
#: Summaries of hours: of a day of 2000 keys. Kept apart, so that the many minutes do not push them out.
MOST_HOURS = 48_000
#: What lies so far (seconds) behind the newest is rarely asked for, by late events alone: it is made again then.
MINUTES_SPAN = 2 * HOUR.seconds
HOURS_SPAN = 2 * DAY.seconds
#: Keys whose windows that are not over are kept merged.
MOST_RUNS = 4_000
RUNS_OF_A_KEY = 16


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
        self._minutes_known: _Known[S] = OrderedDict()
        self._hours_known: _Known[S] = OrderedDict()
        self._runs: OrderedDict[str, dict[tuple[int, int], S | None]] = OrderedDict()
        #: Counts changes of each key that is being computed: what was while one happened may be of before, and is not
        #: kept.
        self._changes: Counter[str] = Counter()
        self._newest = 0

    def changed(self, key: str, start: int, end: int) -> None:
        """The summaries of ``key`` in [start, end) are void."""
        self._changes[key] += 1
        self._runs.pop(key, None)
        for minute in range(MINUTE.start(start), end, MINUTE.seconds):
            self._minutes_known.pop((key, minute), None)
        for hour in range(HOUR.start(start), end, HOUR.seconds):
            self._hours_known.pop((key, hour), None)

    def forget(self, key: str) -> None:
        """All summaries of ``key`` are void."""
        self._changes[key] += 1
        self._runs.pop(key, None)
        for known in (self._minutes_known, self._hours_known):
            for address in [address for address in known if address[0] == key]:
                del known[address]

    async def between(self, key: str, start: int, end: int) -> S | None:
        """The summary of the whole minutes in [start, end), None where there is nothing. Waits while the store is
        away."""
        run = (start, end)
        runs = self._runs.get(key)
        if runs is not None and run in runs:
            self._runs.move_to_end(key)
            return runs[run]
        changes = self._changes[key]
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
        if changes == self._changes[key]:
            runs = self._runs.setdefault(key, {})
            if len(runs) >= RUNS_OF_A_KEY:
                runs.clear()
            runs[run] = merged
            if len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
        return merged

    async def _hour(self, key: str, start: int) -> S | None:
        address = (key, start)
        if address in self._hours_known:
            self._hours_known.move_to_end(address)
            return self._hours_known[address]
        changes = self._changes[key]
        hour = self._merged(await self._each(key, start, start + HOUR.seconds))
        if changes == self._changes[key]:
            self._keep(self._hours_known, address, hour, MOST_HOURS, HOURS_SPAN)
        return hour

    async def _each(self, key: str, start: int, end: int) -> list[S]:
        starts = range(start, end, MINUTE.seconds)
        known = self._minutes_known
        summaries = {minute: known[key, minute] for minute in starts if (key, minute) in known}
        missing = [minute for minute in starts if minute not in summaries]
        if missing:
            changes = self._changes[key]
            made = await self._minutes(key, missing)
            for minute in missing:
                summaries[minute] = made.get(minute)
                if changes == self._changes[key]:
                    self._keep(known, (key, minute), made.get(minute), MOST_MINUTES, MINUTES_SPAN)
        found = (summaries[minute] for minute in starts)
        return [summary for summary in found if summary is not None]

    def _merged(self, summaries: Sequence[S]) -> S | None:
        if len(summaries) < 2:
            return summaries[0] if summaries else None
        return self._merge(summaries)

    def _keep(
        self, known: _Known[S], address: tuple[str, int], summary: S | None, most: int, span: int
    ) -> None:
        self._newest = max(self._newest, address[1])
        known[address] = summary
        known.move_to_end(address)
        while known:
            oldest = next(iter(known))
            if len(known) <= most and oldest[1] >= self._newest - span:
                break
            del known[oldest]
