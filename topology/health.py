"""A look at everything, every few seconds: how far the agents are, what is away, how the watched services are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from topology.errors import Unavailable
from topology.group.groups import Group
from topology.parts import GroupParts
from topology.progress import Progress

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
#: A log that does not say by then where it ends is asked again with the next look.
ANSWER_WITHIN_S = 2.0


class Health:
    """Of the groups of one process. ``run`` is a task of its own, which no store can stop."""

    def __init__(self, groups: Sequence[Group], parts: GroupParts) -> None:
        self._groups = groups
        self._parts = parts
        self._progress = Progress(parts.monotonic)
        self._dependencies = {"log", "state", "dead letters", parts.raw_events.name, parts.rollup_sink.name}

    @property
    def stuck(self) -> Mapping[str, str]:
        """Agents that make no progress, and what to say of them."""
        return self._progress.stuck

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await self._parts.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Once: export what is seen."""
        end = await self._end()
        metrics, away = self._parts.metrics, self._away()
        self._dependencies |= away
        for name in self._dependencies:
            metrics.dependency_away(dependency=name).set(name in away)
        for group in self._groups:
            if end is not None:
                group.measure_lag(end)
            for agent in group.agents:
                at = group.standing_of(agent, end)
                metrics.agent_stuck(agent=agent).set(self._progress.saw(agent, at))
        self._show_services()

    async def _end(self) -> int | None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self._parts.log.end_offset()
        except (Unavailable, TimeoutError):
            return None  # the reader waits for the log and says so; the last known lag stays

    def _away(self) -> set[str]:
        names = set(self._parts.outages.away)
        if any(group.sink_away is not None for group in self._groups):
            names.add(self._parts.rollup_sink.name)
        return names

    def _show_services(self) -> None:
        metrics = self._parts.metrics
        metrics.service_up.clear()
        metrics.service_in_maintenance.clear()
        now_ms = self._parts.clock_ms()
        for group in self._groups:
            for operator in group.reading.timed:
                seen = operator.present(now_ms)
                for (service, region), up in seen.up.items():
                    metrics.service_up(service=service, region=region).set(up)
                for service, resting in seen.in_maintenance.items():
                    metrics.service_in_maintenance(service=service).set(resting)
