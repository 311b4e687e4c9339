"""How services are at this moment, for whoever is to be woken. Rollups tell of time that has passed; this tells of now.

Held in memory alone: after a start a service is unknown until its next result, which is a minute for most.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from topology.services.rows import KEPT_GOING_MS, Service
from topology.services.time_in_state import ALL, Result, intervals, within

log = logging.getLogger(__name__)

#: Services times regions whose present is told: each is a series of Prometheus.
MOST_TOLD = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """``up`` by service and region, ``ALL`` among them; what is unknown or in maintenance is left out.
    ``in_maintenance`` by service, of those with a result in the last day."""

    up: Mapping[tuple[str, str], bool]
    in_maintenance: Mapping[str, bool]


class Present:
    """The latest result of each kind, by the same rules as ``time_in_state``."""

    def __init__(self) -> None:
        self._latest: defaultdict[tuple[str, str], dict[str, Result]] = defaultdict(dict)
        self._told = False

    def saw(self, service: str, result: Result, now_ms: int) -> None:
        """A result was folded, in any order."""
        place = service, result.region
        if place not in self._latest and len(self._latest) >= MOST_TOLD:
            self._forget(now_ms)
            if len(self._latest) >= MOST_TOLD:
                if not self._told:
                    log.warning(
                        "more than %d services and regions report: the present state of the others is not exported; "
                        "the rollups have them all",
                        MOST_TOLD,
                    )
                self._told = True
                return
        kinds = self._latest[place]
        was = kinds.get(result.kind)
        if was is None or (was.time_ms, was.up) <= (result.time_ms, result.up):
            kinds[result.kind] = result

    def _forget(self, now_ms: int) -> None:
        """What holds no more."""
        for place, kinds in list(self._latest.items()):
            if all(not _holds(each, now_ms) for each in kinds.values()):
                del self._latest[place]

    def at(self, now_ms: int, services: Mapping[str, Service]) -> Seen:
        """Of this moment; ``services`` has the maintenance."""
        self._forget(now_ms)
        resting = {
            name: within(now_ms, intervals(service.turns))
            for name, service in list(services.items())[-MOST_TOLD:]
            if service.last_ms is not None and now_ms - service.last_ms < KEPT_GOING_MS
        }
        up: dict[tuple[str, str], bool] = {}
        regions: defaultdict[str, list[bool]] = defaultdict(list)
        for (name, region), kinds in self._latest.items():
            if not resting.get(name, False):
                found = all(each.up for each in kinds.values() if _holds(each, now_ms))
                up[name, region] = found
                regions[name].append(found)
        for name, votes in regions.items():
            up[name, ALL] = 2 * sum(votes) > len(votes)
        return Seen(up=up, in_maintenance=resting)


def _holds(result: Result, now_ms: int) -> bool:
    return now_ms < result.time_ms + result.valid_ms
