"""How long a service was up, down, unknown or in maintenance: the part of the oracle that is about states."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from schemas.events import Event, PageFetched, Pinged

DAY_MS = 86_400_000

Result: TypeAlias = Pinged | PageFetched


class Region:
    """The results for one service in one region."""

    def __init__(self, results: Sequence[tuple[int, Result]]) -> None:
        self.results = results
        self.times = [time_ms for time_ms, _ in results]
        kinds: defaultdict[tuple[type[Event], str | None], list[tuple[int, bool, int]]] = defaultdict(list)
        for time_ms, event in results:
            check = event.check if isinstance(event, Pinged) else None
            kinds[type(event), check].append((time_ms, event.up, round(event.valid_for_s * 1000)))
        # Of equal times the last counts: up after down, then the one that is valid for longer.
        self.kinds = [sorted(found) for found in kinds.values()]
        self.changes = {time_ms for found in self.kinds for time_ms, _, _ in found}
        self.changes |= {time_ms + valid_ms for found in self.kinds for time_ms, _, valid_ms in found}

    def up_at(self, instant_ms: int) -> bool | None:
        """False if any valid result says down, True if there is a valid one, None if there is none."""
        valid = []
        for found in self.kinds:
            at = bisect_right(found, instant_ms, key=lambda result: result[0])
            if at:
                time_ms, up, valid_ms = found[at - 1]
                if instant_ms < time_ms + valid_ms:
                    valid.append(up)
        return all(valid) if valid else None


def _quorum(states: Iterable[bool | None]) -> bool | None:
    known = [up for up in states if up is not None]
    return 2 * sum(known) > len(known) if known else None


class Maintenance:
    """The announcements for one service, in order. A start and an end at the same instant change nothing."""

    def __init__(self, announced: Iterable[tuple[int, bool]]) -> None:
        """``announced``: time in ms, and whether it ends."""
        said = set(announced)
        self.announced = sorted((at, ends) for at, ends in said if (at, not ends) not in said)
        self.changes = {time_ms for time_ms, _ in self.announced}

    def at(self, instant_ms: int) -> bool:
        at = bisect_right(self.announced, instant_ms, key=lambda announced: announced[0])
        return at > 0 and not self.announced[at - 1][1]


def time_in_state(
    regions: Sequence[Region], maintenance: Maintenance, size_ms: int, watermark_ms: int
) -> dict[int, dict[str, float]]:
    """By start of the window in seconds: how long it was in which state, as far as the watermark has passed it.

    Of several regions their quorum; the quorum of one region is that region.
    """
    first = min(min(region.times) for region in regions)
    end = max(max(region.times) for region in regions) + DAY_MS
    starts = range(first // size_ms * size_ms, min(end, watermark_ms), size_ms)
    if not starts:
        return {}
    spent_ms: dict[str, defaultdict[int, int]] = {
        state: defaultdict(int) for state in ("up", "down", "maintenance")
    }
    # Between two of these instants nothing changes.
    changes = {starts[0], starts[-1] + size_ms, watermark_ms} | maintenance.changes
    instants = sorted(changes.union(*(region.changes for region in regions)))
    for since, until in itertools.pairwise(instants):
        if since < starts[0] or until > min(starts[-1] + size_ms, watermark_ms):
            continue
        up = _quorum(region.up_at(since) for region in regions)
        if maintenance.at(since):
            spent = spent_ms["maintenance"]
        elif up is None:
            continue
        else:
            spent = spent_ms["up" if up else "down"]
        for start in range(since // size_ms * size_ms, until, size_ms):
            spent[start] += min(until, start + size_ms) - max(since, start)
    rows = {}
    for start in starts:
        passed = min(start + size_ms, watermark_ms) - start
        up_ms, down_ms, maintenance_ms = (spent_ms[state].get(start, 0) for state in spent_ms)
        known = up_ms + down_ms + maintenance_ms
        row = rows[start // 1000] = {
            "up_s": up_ms / 1000,
            "down_s": down_ms / 1000,
            "unknown_s": (passed - known) / 1000,
            "maintenance_s": maintenance_ms / 1000,
            "coverage": known / passed,
        }
        if up_ms + down_ms:
            row["uptime_ratio"] = up_ms / (up_ms + down_ms)
    return rows
