"""Days whose rows are gone, of rollups whose hours and days are merges of minutes: rows that were made anew would be
purged one by one, and what is merged of the rest be wrong. So their values are computed of the archive alone, compared
with what the sink has, and written at once. What asks for it stays open until that is done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from topology.group.reading import Reading
from topology.group.rows import RowCache, Saved
from topology.jobs.job import JobRollup
from topology.jobs.joining import JobOperator
from topology.jobs.minutes import NOTHING, fields, summary
from topology.parts import GroupParts
from topology.rebuild.differences import Differences
from topology.services.operator import ServiceOperator
from topology.services.rows import UptimeRollup
from topology.sinks import Point
from topology.windows import Tumbling

#: More than any store holds.
NO_LIMIT = 2**31 - 1
WRITTEN_AT_A_TIME = 5000
#: Each is a number of events.
COUNTS = ("submitted", "started", "retried", "succeeded", "failed", "skipped", "checks")

Address = tuple[str, int, tuple[tuple[str, str], ...]]


class Bygone:
    """Values of days, [start, end) in epoch seconds, of events that were folded into ``rows`` by ``operator``."""

    def __init__(self, parts: GroupParts, found: Differences, *, check: bool, force: bool) -> None:
        self._parts = parts
        self._found = found
        self._check = check
        self._force = force

    async def replace(
        self,
        rollup: JobRollup | UptimeRollup,
        operator: JobOperator | ServiceOperator,
        rows: RowCache,
        reading: Reading,
        start: int,
        end: int,
    ) -> None:
        """Compare and write. Waits while a store or the sink is away; raises ``Refused``."""
        fresh: dict[Address, Point] = {}
        async for points in self._points(rollup, operator, rows, reading, start, end):
            fresh |= {_address(point): point for point in points if start <= point.time < end}
        changed: list[Point] = []
        for window in rollup.windows.values():
            there = await self._there(rollup.name, window, start, end)
            for address in sorted({*there, *(each for each in fresh if each[0] == window.name)}):
                old = there.get(address)
                new = fresh.get(address)
                if new is None and isinstance(rollup, JobRollup):
                    assert old is not None  # noqa: S101 - it is in one of them
                    new = old._replace(fields=fields(summary(NOTHING)))
                if new is not None and self._taken(old, new):
                    changed.append(new)
        sink = self._parts.rollup_sink
        for first in range(0, 0 if self._check else len(changed), WRITTEN_AT_A_TIME):
            some = changed[first : first + WRITTEN_AT_A_TIME]
            await self._parts.outages.ridden_out(sink.name, lambda: sink.write(some))  # noqa: B023 - at once

    async def _points(
        self,
        rollup: JobRollup | UptimeRollup,
        operator: JobOperator | ServiceOperator,
        rows: RowCache,
        reading: Reading,
        start: int,
        end: int,
    ) -> AsyncIterator[Sequence[Point]]:
        if isinstance(operator, JobOperator):
            saved = [
                Saved(each.row.key, 0, each.state)
                for each in rows.dirty()
                if each.row.key.table == rollup.minutes and start <= each.row.key.at < end
            ]
            async for points in operator.values(saved):
                yield points
            return
        # What is known of services that are still kept goes further back than what was read.
        known = await reading.rows.peek(await reading.rows.keys_of(operator.services_table))
        await operator.replace(known, reading.lowest)
        async for points in operator.between(start * 1000, end * 1000):
            yield points

    async def _there(self, name: str, window: Tumbling, start: int, end: int) -> Mapping[Address, Point]:
        sink = self._parts.rollup_sink
        points = await self._parts.outages.ridden_out(
            sink.name,
            lambda: sink.query(name, window.name, since=start, until=end, where={}, limit=NO_LIMIT),
        )
        return {_address(point): point for point in points}

    def _taken(self, old: Point | None, new: Point) -> bool:
        found = self._found
        found.windows += 1
        tags = [value for _, value in new.tags]
        before, after = _events(old), _events(new)
        if before > after and not self._force:
            found.refuse(new.window, new.time, tags, before, after)
            return False
        return found.compare(new.window, new.time, tags, {} if old is None else old.fields, new.fields)


def _address(point: Point) -> Address:
    return point.window, point.time, tuple(point.tags)


def _events(point: Point | None) -> int:
    """How many events a window is made of, at least."""
    return 0 if point is None else int(sum(point.fields.get(name, 0) for name in COUNTS))
