"""What a report says: numbers of a range out of the rollups, in the shape of its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agents import ROLLUPS
from cli.rollups import asked
from cli.top import whole_windows
from topology.sinks import DeadLetters, RollupSink, Value
from topology.windows import WINDOWS
from web.documents import Row
from web.rows import Order, Wanted

TOP = 10
#: The quorum of regions.
ALL = "all"
OUTCOMES = ("succeeded", "failed", "skipped")

Numbers = Mapping[str, Value | None]
#: Of each name a value for each window.
Courses = Mapping[str, Sequence[Value | None]]


class Line(NamedTuple):
    """A line of a table: what it is of, and its numbers."""

    names: tuple[str, ...]
    numbers: Numbers
    course: Sequence[Value | None] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """[since_s, until_s) in steps of ``window``, which begin at ``times``. ``services``: by service and region, with
    the course of their uptime. ``spaces``: the first ones; ``rest``: all others together."""

    since_s: int
    until_s: int
    window: str
    times: Sequence[int]
    services: Sequence[Line]
    storage: Numbers
    storage_course: Courses
    spaces: Sequence[Line]
    rest: Numbers | None
    traffic: Sequence[Line]
    traffic_course: Courses
    activity: Sequence[Line]
    extractors: Sequence[Line]
    extractors_course: Courses
    dead_letters: int

    @property
    def empty(self) -> bool:
        """Whether nothing at all happened."""
        return not (self.services or self.storage or self.traffic or self.activity or self.extractors)


async def gathered(
    sink: RollupSink, letters: DeadLetters, *, since_s: int, until_s: int, now_s: int
) -> Findings:
    """The findings of the whole windows that a range touches. It is told as it was counted: from the start of its first
    window to the end of its last one, or to now."""
    window, since_s = whole_windows(since_s, until_s)
    size = next(each.seconds for each in WINDOWS if each.name == window)
    asking = _Asking(sink, window, since_s, until_s)
    times = range(since_s, until_s, size)
    until_s = min(since_s + len(times) * size, max(until_s, now_s))
    storage = await asking.totals("space_storage", group_by=())
    spaces = await asking.totals("space_storage", order=Order(by="bytes_added", descending=True))
    uptime = await asking.totals("service_uptime")
    ratios = await asking.courses("service_uptime", times, "uptime_ratio")
    extractors = await asking.totals("extractor_runtime")
    return Findings(
        since_s=since_s,
        until_s=until_s,
        window=window,
        times=times,
        services=[line._replace(course=ratios[line.names]) for line in _by_service(uptime)],
        storage=storage[0].numbers if storage else {},
        storage_course={
            field: (await asking.course("space_storage", times, field))
            for field in ("bytes_added", "bytes_removed")
        },
        spaces=spaces[:TOP],
        rest=_together(spaces[TOP:]),
        traffic=await asking.totals("resource_traffic", group_by=("action",)),
        traffic_course={
            names[0]: course
            for names, course in (
                await asking.courses("resource_traffic", times, "events", group_by=("action",))
            ).items()
        },
        activity=await asking.totals("user_activity"),
        extractors=sorted(extractors, key=lambda line: (-runs(line.numbers), line.names)),
        extractors_course={
            outcome: (await asking.course("extractor_runtime", times, outcome)) for outcome in OUTCOMES
        },
        dead_letters=await letters.count(),
    )


def runs(numbers: Numbers) -> int:
    """Jobs that ended, one way or another."""
    return sum(int(numbers.get(outcome) or 0) for outcome in OUTCOMES)


def failure_share(numbers: Numbers) -> float | None:
    """Of the jobs that ended, how many failed."""
    ended = runs(numbers)
    return (numbers.get("failed") or 0) / ended if ended else None


def mean(numbers: Numbers, of: str) -> float | None:
    """Sum by count."""
    count = numbers.get(f"{of}_count")
    return (numbers.get(f"{of}_sum") or 0) / count if count else None


class _Asking(NamedTuple):
    """Questions about one range."""

    sink: RollupSink
    window: str
    since_s: int
    until_s: int

    async def totals(
        self, rollup: str, *, group_by: Sequence[str] | None = None, order: Order | None = None
    ) -> list[Line]:
        rows = await self._rows(
            rollup,
            Wanted(
                window=self.window,
                since=self.since_s,
                until=self.until_s,
                group_by=group_by,
                total=True,
                order=order or Order(),
            ),
        )
        lines = [Line(_names(row), row.fields) for row in rows]
        return lines if order is not None else sorted(lines, key=lambda line: line.names)

    async def course(self, rollup: str, times: range, field: str) -> Sequence[Value | None]:
        """How a field went, all keys together."""
        found = await self.courses(rollup, times, field, group_by=())
        return found.get((), [None] * len(times))

    async def courses(
        self, rollup: str, times: range, field: str, *, group_by: Sequence[str] | None = None
    ) -> Mapping[tuple[str, ...], Sequence[Value | None]]:
        """How a field went, of each key."""
        rows = await self._rows(
            rollup,
            Wanted(
                window=self.window,
                since=self.since_s,
                until=self.until_s,
                group_by=group_by,
                fields=(field,),
            ),
        )
        found: dict[tuple[str, ...], list[Value | None]] = {}
        for row in rows:
            course = found.setdefault(_names(row), [None] * len(times))
            course[(row.time - times.start) // times.step] = row.fields.get(field)
        return found

    async def _rows(self, rollup: str, wanted: Wanted) -> Sequence[Row]:
        return (await asked(self.sink, ROLLUPS[rollup], wanted)).rows


def _names(row: Row) -> tuple[str, ...]:
    return tuple(value for _, value in row.tags)


def _by_service(lines: Sequence[Line]) -> list[Line]:
    """The quorum of each service before its regions."""
    return sorted(lines, key=lambda line: (line.names[0], line.names[1] != ALL, line.names[1]))


def _together(lines: Sequence[Line]) -> Numbers | None:
    if not lines:
        return None
    fields = dict.fromkeys(field for line in lines for field in line.numbers)
    return {field: sum(line.numbers.get(field) or 0 for line in lines) for field in fields}
