"""Time in state: for how long a service was up and down, from results that each hold for a while.

A result holds from its time until the next one of the same kind for its service and region, at most for as long as it
says. At each instant a service in a region is down if any valid result says down, up if there is a valid one and none
says down, else unknown. Over all regions it is unknown if none is known, up if more than half of the known ones are,
else down. Maintenance takes precedence over all of it. All times are integers, in milliseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

#: The quorum of the regions.
ALL = "all"

MINUTE_MS = 60_000
#: Some milliseconds of work.
STEPS_AT_A_TIME = 2_000


class Result(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """What a check found. ``kind``: which results it replaces. ``average_us`` and ``most_ms`` are of the responses, -1
    where there are none."""

    time_ms: int
    region: str
    kind: str
    up: bool
    valid_ms: int
    average_us: int
    most_ms: float


class UpDown(NamedTuple):
    """Milliseconds outside maintenance; the rest is unknown."""

    up_ms: int
    down_ms: int


class _Span(NamedTuple):
    """A result, for as long as it holds."""

    start: int
    end: int
    up: bool


def in_state(
    results: Iterable[Result], maintenance: Sequence[tuple[int, int]], start: int, end: int
) -> Mapping[int, Mapping[str, UpDown]]:
    """For each minute (start in milliseconds) in [start, end) in which anything is known: each region that is known,
    and ``ALL``. ``maintenance``: intervals, ascending and apart. ``results``: all that hold at any time in it."""
    sweep = sweeping(results, maintenance, start, end)
    while True:
        try:
            next(sweep)
        except StopIteration as done:
            found: Mapping[int, Mapping[str, UpDown]] = done.value
            return found


def sweeping(
    results: Iterable[Result], maintenance: Sequence[tuple[int, int]], start: int, end: int
) -> Generator[None, None, Mapping[int, Mapping[str, UpDown]]]:
    """As ``in_state``, in pieces of a few milliseconds: whoever has an event loop lets it run in between."""
    by_kind: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for count, result in enumerate(results, 1):
        by_kind[result.region, result.kind].append(result)
        if count % STEPS_AT_A_TIME == 0:
            yield
    edges: defaultdict[int, list[tuple[str, bool, int]]] = defaultdict(list)
    count = 0
    for (region, _), same in by_kind.items():
        for span in _spans(same):
            opens, closes = max(span.start, start), min(span.end, end)
            if opens < closes:
                edges[opens].append((region, span.up, 1))
                edges[closes].append((region, span.up, -1))
        count += len(same)
        if count >= STEPS_AT_A_TIME:
            count = 0
            yield
    if not edges:
        return {}
    first, last = min(edges), max(edges)
    borders = set(range(first - first % MINUTE_MS + MINUTE_MS, last, MINUTE_MS))
    borders.update(at for span in maintenance for at in span if first < at < last)
    sweep = _Sweep(first)
    for at in sorted({*edges, *borders}):
        if at in borders or at == last:
            count += sweep.border(at, counts=not within(sweep.since, maintenance))
        for region, up, change in edges.get(at, ()):
            count += 1
            sweep.turn(at, region, up, change, counts=not within(sweep.since, maintenance))
        if count >= STEPS_AT_A_TIME:
            count = 0
            yield
    return sweep.found()


class _Sweep:
    """Goes through time. What a turn costs does not depend on how many regions there are: the time of each is added
    up when its own state turns, and of all at borders: of minutes, and of maintenance. ``since``: the last border."""

    def __init__(self, first: int) -> None:
        self.since = first
        self._valid: dict[str, list[int]] = {}  # ups, downs
        self._known: dict[str, tuple[bool, int]] = {}  # up, since when or since the last border
        self._ups = 0
        self._all: tuple[bool, int] | None = None
        self._minutes: dict[int, dict[str, list[int]]] = {}

    def turn(self, at: int, region: str, up: bool, change: int, *, counts: bool) -> None:
        """One more or one less result is valid from ``at`` on."""
        valid = self._valid.setdefault(region, [0, 0])
        valid[0 if up else 1] += change
        is_up = None if not any(valid) else not valid[1]
        before = self._known.get(region)
        if (None if before is None else before[0]) is is_up:
            return
        if before is not None:
            self._spend(region, before, at, counts)
            self._ups -= before[0]
            del self._known[region]
        if is_up is not None:
            self._known[region] = is_up, at
            self._ups += is_up
        quorum = 2 * self._ups > len(self._known) if self._known else None
        if (None if self._all is None else self._all[0]) is not quorum:
            if self._all is not None:
                self._spend(ALL, self._all, at, counts)
            self._all = None if quorum is None else (quorum, at)

    def border(self, at: int, *, counts: bool) -> int:
        """Add up everything until ``at``; returns how much that was."""
        for region, known in self._known.items():
            self._spend(region, known, at, counts)
            self._known[region] = known[0], at
        if self._all is not None:
            self._spend(ALL, self._all, at, counts)
            self._all = self._all[0], at
        self.since = at
        return len(self._known)

    def _spend(self, region: str, known: tuple[bool, int], until: int, counts: bool) -> None:
        up, since = known
        if counts and until > since:
            minute = self._minutes.setdefault(since - since % MINUTE_MS, {})
            minute.setdefault(region, [0, 0])[0 if up else 1] += until - since

    def found(self) -> Mapping[int, Mapping[str, UpDown]]:
        return {
            minute: {region: UpDown(*spent) for region, spent in regions.items()}
            for minute, regions in self._minutes.items()
        }


def _spans(results: Sequence[Result]) -> list[_Span]:
    """Results of one kind, each until the next one or for as long as it holds. At equal times, up wins."""
    best: dict[int, tuple[bool, int]] = {}
    for result in results:
        said = (result.up, result.valid_ms)
        best[result.time_ms] = max(best.get(result.time_ms, said), said)
    times = sorted(best)
    ends = [*times[1:], times[-1] + best[times[-1]][1]]
    return [
        _Span(at, min(following, at + best[at][1]), best[at][0])
        for at, following in zip(times, ends, strict=True)
    ]


@lru_cache(maxsize=4096)
def intervals(turns: tuple[tuple[int, bool], ...]) -> Sequence[tuple[int, int]]:
    """From when to when maintenance was, of when it started (False) and ended (True). One that has not ended lasts. An
    instant at which one ends and another starts changes nothing."""
    said: dict[int, set[bool]] = {}
    for at, ended in turns:
        said.setdefault(at, set()).add(ended)
    found: list[tuple[int, int]] = []
    since: int | None = None
    for at in sorted(said):
        if said[at] == {False}:
            since = at if since is None else since
        elif said[at] == {True} and since is not None:
            found.append((since, at))
            since = None
    if since is not None:
        found.append((since, FOR_EVER_MS))
    return tuple(found)


def turns_since(turns: tuple[tuple[int, bool], ...], cut: int) -> tuple[tuple[int, bool], ...]:
    """Fewer turns, of which the same follows for every instant from ``cut`` on."""
    if not turns or turns[0][0] >= cut:
        return turns
    later = [turn for turn in turns if turn[0] >= cut]
    goes_on = [(opens, False) for opens, closes in intervals(turns) if opens < cut <= closes]
    return tuple(sorted({*goes_on, *later}))


#: Later than any event.
FOR_EVER_MS = 1 << 62


def within(at: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether this instant is in one of the intervals."""
    before = bisect_right(spans, (at, FOR_EVER_MS))
    return before > 0 and at < spans[before - 1][1]


def overlap(spans: Iterable[tuple[int, int]], start: int, end: int) -> int:
    """How much of [start, end) is in the intervals."""
    return sum(max(0, min(closes, end) - max(opens, start)) for opens, closes in spans)
