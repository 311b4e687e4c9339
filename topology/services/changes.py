"""What events change of a service, beside the results of its minutes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from topology.services.rows import KEPT_GOING_MS, Service
from topology.services.time_in_state import FOR_EVER_MS, Result, turns_since

#: From when to when (milliseconds), the end not in it.
Span: TypeAlias = tuple[int, int]
#: When maintenance started (False) or ended (True).
Turn: TypeAlias = tuple[int, bool]


def service_after(
    service: Service, results: Iterable[Result], turns: Iterable[Turn], kept_from_ms: int
) -> tuple[Service, Span | None]:
    """The service after these events, which may be in it already, and the time whose values may be others now beside
    that of the results themselves; None where nothing changed. What only concerns days before ``kept_from_ms`` is
    left out of it: nobody is told of them any more."""
    regions, longest = dict(service.regions), service.longest_ms
    owes: list[Span] = []
    for result in results:
        at = result.time_ms
        first, last = regions.get(result.region, (at, at))
        if result.region not in regions:
            owes.append((at, at + KEPT_GOING_MS))
        if at < first:
            owes.append((at, first))
        if at > last:
            owes.append((last + KEPT_GOING_MS, at + KEPT_GOING_MS))
        if result.valid_ms > longest:
            longest = result.valid_ms
            owes.append((at, at))
        regions[result.region] = min(first, at), max(last, at)
    known = set(service.turns)
    for turn in turns:
        if turn not in known:
            known.add(turn)
            owes.append((turn[0], FOR_EVER_MS))  # another one may follow directly on it
    if not owes:
        return service, None
    changed = msgspec.structs.replace(
        service,
        regions=_still_told(regions, kept_from_ms),
        longest_ms=longest,
        turns=turns_since(tuple(sorted(known)), kept_from_ms),
    )
    return changed, hull(owes)


def _still_told(regions: Mapping[str, Span], kept_from_ms: int) -> dict[str, Span]:
    """Without those whose last row is gone; but the first result of all stays: the quorum's rows begin with it."""
    first = min(regions, key=lambda name: regions[name], default=None)
    return {
        name: span
        for name, span in regions.items()
        if name == first or span[1] >= kept_from_ms - KEPT_GOING_MS
    }


def merged(one: Service, other: Service) -> Service:
    regions = dict(one.regions)
    for region, (first, last) in other.regions.items():
        was = regions.get(region, (first, last))
        regions[region] = min(first, was[0]), max(last, was[1])
    return msgspec.structs.replace(
        one,
        regions=regions,
        turns=tuple(sorted({*one.turns, *other.turns})),
        longest_ms=max(one.longest_ms, other.longest_ms),
    )


def hull(spans: Sequence[Span]) -> Span:
    return min(start for start, _ in spans), max(end for _, end in spans)
