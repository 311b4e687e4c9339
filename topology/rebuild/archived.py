"""The archive as a rebuild reads it: the events of a rollup, once everything that its rows have is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from itertools import count

from schemas.events import ResourceDownloaded
from schemas.reading import Refusal, read
from topology.batch import LogEvent
from topology.errors import Refused
from topology.group.doubles import Doubles
from topology.jobs.job import JobRollup
from topology.parts import GroupParts
from topology.position import NOWHERE, Position
from topology.rollups.measures import EventType
from topology.rollups.operators import AnyRollup
from topology.services.rows import UptimeRollup
from topology.sinks import RawEvent
from topology.windows import DAY, MINUTE

#: Events read at once.
PAGE = 2000
#: The archive saves its position once a second: so often it is asked, so far apart.
ASKED_TIMES, ASKED_EVERY_S = 150, 0.2
#: The group whose agent keeps raw events.
GROUP = "archive"


class Archived:
    """The archived events of one rollup. Every call waits while a store is away."""

    def __init__(self, parts: GroupParts, rollup: AnyRollup) -> None:
        self._parts = parts
        self._rollup = rollup

    async def reaches(self, upto: Position) -> None:
        """Return once the archive has everything up to there. Raises ``Refused`` where it will not."""
        store, outages = self._parts.store, self._parts.outages
        for _ in range(ASKED_TIMES):
            archive = await outages.ridden_out("state", lambda: store.read_group(GROUP))
            if archive is None:
                raise Refused("there is no archive to rebuild from: run a worker with the group archive")
            if min(archive.positions.values(), default=NOWHERE) >= upto:
                return
            await self._parts.sleep(ASKED_EVERY_S)
        raise Refused(
            "the archive is behind the rollups: let it catch up (a worker with the group archive), then ask again"
        )

    async def days(self, start: int, end: int) -> set[int]:
        """The days (epoch seconds) in which there is any event in [start, end)."""
        found: set[int] = set()
        for kind in self._rollup.types:
            before = end
            while before > start:
                newest = await self._some(kind, start * 1000, before * 1000, None, limit=1)
                if not newest:
                    break
                before = DAY.start(newest[0].time // 1000)
                found.add(before)
        return found

    async def events(
        self, start: int, end: int, upto: Position, doubles: Doubles | None
    ) -> AsyncGenerator[tuple[Sequence[LogEvent], float]]:
        """Those that have a part in the windows of [start, end), and how much of the range is read. Their order is that
        of the log where it matters; else they are numbered as they come, so that a long range is not held in memory.
        ``doubles``: the rule, where one is followed."""
        if not isinstance(self._rollup, UptimeRollup | JobRollup):
            gone = set() if doubles is None else await self._doubled(start, end, upto, doubles)
            numbers = count()
            async for page, part in self._pages(start, end, upto):
                counted = [event for event in page if event.position not in gone]
                yield [event._replace(position=Position(next(numbers))) for event in counted], part
            return
        found = [event async for page, _ in self._pages(start, end, upto) for event in page]
        found.sort(key=lambda event: event.position)
        for at in range(0, len(found), PAGE):
            yield found[at : at + PAGE], min(1.0, (at + PAGE) / len(found))

    async def _doubled(self, start: int, end: int, upto: Position, doubles: Doubles) -> set[Position]:
        """Downloads that do not count, decided in the order of the log."""
        if ResourceDownloaded not in self._rollup.types:
            return set()
        # The first of two may lie before the range.
        first_ms, last_ms = max(0, start - MINUTE.seconds) * 1000, end * 1000
        found = [
            each async for page in self._of(ResourceDownloaded, first_ms, last_ms, upto) for each in page
        ]
        found.sort(key=lambda event: event.position)
        gone: set[Position] = set()
        for at in range(0, len(found), PAGE):
            gone |= await doubles.among(found[at : at + PAGE])
        return gone

    async def _pages(
        self, start: int, end: int, upto: Position
    ) -> AsyncGenerator[tuple[list[LogEvent], float]]:
        types = sorted(self._rollup.types, key=lambda kind: kind.__name__)
        for number, kind in enumerate(types):
            before, after = self._reach(kind)
            first_ms, last_ms = max(0, start - before) * 1000, (end + after) * 1000
            async for page in self._of(kind, first_ms, last_ms, upto):
                read_ms = last_ms - page[-1].time_ms if page else 0
                yield page, (number + min(1.0, max(0.0, read_ms / (last_ms - first_ms)))) / len(types)

    def _reach(self, kind: EventType) -> tuple[int, int]:
        """How long before and after a window an event may lie and have a part in it (seconds)."""
        keep = int(self._parts.keep.total_seconds())
        match self._rollup:
            case JobRollup():
                return keep, keep
            case UptimeRollup():
                return (keep, keep) if kind in self._rollup.maintenance else (DAY.seconds, 0)
            case _:
                return 0, 0

    async def _of(
        self, kind: EventType, first_ms: int, last_ms: int, upto: Position
    ) -> AsyncGenerator[list[LogEvent]]:
        """One type, the newest first."""
        before: tuple[int, Position] | None = None
        while True:
            raw = await self._some(kind, first_ms, last_ms, before, limit=PAGE)
            yield [_event(each) for each in raw if each.position <= upto]
            if len(raw) < PAGE:
                return
            before = raw[-1].time, raw[-1].position

    async def _some(
        self,
        kind: EventType,
        first_ms: int,
        last_ms: int,
        before: tuple[int, Position] | None,
        *,
        limit: int,
    ) -> Sequence[RawEvent]:
        archive = self._parts.raw_events
        name = str(kind.__struct_config__.tag)
        return await self._parts.outages.ridden_out(
            archive.name,
            lambda: archive.query(since=first_ms, until=last_ms, type=name, limit=limit, before=before),
        )


def _event(raw: RawEvent) -> LogEvent:
    event = read(raw.event)
    if isinstance(event, Refusal):
        raise Refused(f"archived event {raw.id} is no event any more: {event.reason}")
    return LogEvent(raw.position, raw.time, raw.received, event, b"")
