"""Time in state: for how long a service was up and down, from results that each hold for a while.

A result holds from its time until the next one of the same kind for its service and region, at most for as long as it
says. At each instant a service in a region is down if any valid result says down, up if there is a valid one and none
says down, else unknown. Over all regions it is unknown if none is known, up if more than half of the known ones are,
else down. Maintenance takes precedence over all of it. All times are integers, in milliseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

#: The quorum of the regions.
ALL = "all"

MINUTE_MS = 60_000


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
    by_kind: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        by_kind[result.region, result.kind].append(result)
    edges: defaultdict[int, list[tuple[str, bool, int]]] = defaultdict(list)
    for (region, _), same in by_kind.items():
        for span in _spans(same):
            opens, closes = max(span.start, start), min(span.end, end)
            if opens < closes:
                edges[opens].append((region, span.up, 1))
                edges[closes].append((region, span.up, -1))
    if not edges:
        return {}
    turns = set(edges)
    first, last = min(turns), max(turns)
    turns.update(range(first - first % MINUTE_MS + MINUTE_MS, last, MINUTE_MS))
    for opens, closes in maintenance:
        turns.update(at for at in (opens, closes) if first < at < last)
    valid: dict[str, list[int]] = {region: [0, 0] for region, _ in by_kind}  # ups, downs
    minutes: dict[int, dict[str, list[int]]] = {}
    before = first
    for at in sorted(turns):
        if at > before and not within(before, maintenance):
            _spend(minutes.setdefault(before - before % MINUTE_MS, {}), valid, at - before)
        before = at
        for region, up, change in edges.get(at, ()):
            valid[region][0 if up else 1] += change
    return {
        minute: {region: UpDown(*spent) for region, spent in regions.items()}
        for minute, regions in minutes.items()
        if regions
    }


def _spend(minute: dict[str, list[int]], valid: Mapping[str, Sequence[int]], ms: int) -> None:
    """Add a stretch of time in which nothing changes."""
    known = up = 0
    for region, (ups, downs) in valid.items():
        if ups or downs:
            known += 1
            up += not downs
            minute.setdefault(region, [0, 0])[1 if downs else 0] += ms
    if known:
        minute.setdefault(ALL, [0, 0])[0 if 2 * up > known else 1] += ms


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


def intervals(turns: Iterable[tuple[int, bool]]) -> list[tuple[int, int]]:
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
    return found


#: Later than any event.
FOR_EVER_MS = 1 << 62


def within(at: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether this instant is in one of the intervals."""
    before = bisect_right(spans, (at, FOR_EVER_MS))
    return before > 0 and at < spans[before - 1][1]


def overlap(spans: Iterable[tuple[int, int]], start: int, end: int) -> int:
    """How much of [start, end) is in the intervals."""
    return sum(max(0, min(closes, end) - max(opens, start)) for opens, closes in spans)
