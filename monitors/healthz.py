"""``GET /healthz`` says ``healthy``, as Clowder's does."""

from __future__ import annotations

from monitors.page import WebSettings
from monitors.probe import Measured, Surroundings

HEALTHY = b"healthy"


class HealthzSettings(WebSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="healthz"):
    """``[[probe]] kind = "healthz"``; ``url`` with its path."""


class HealthzProbe:
    """Up when the answer is 200 and nothing but ``healthy``."""

    def __init__(self, settings: HealthzSettings, surroundings: Surroundings) -> None:
        self._fetcher = settings.fetcher(surroundings)

    async def check(self) -> Measured:
        fetched = await self._fetcher.fetch()
        problem = fetched.problem
        if problem is None and fetched.status != 200:
            problem = f"status {fetched.status}"
        if problem is None and fetched.body.strip() != HEALTHY:
            problem = "does not say healthy"
        event: dict[str, object] = {"type": "health.pinged", "check": "healthz", "up": problem is None}
        if problem is None:
            took = fetched.elapsed_ms
            event["response_ms"] = {"min": took, "avg": took, "max": took}
        else:
            event["problem"] = problem
        if fetched.certificate_days_left is not None:
            event["certificate_days_left"] = fetched.certificate_days_left
        return event

    async def close(self) -> None:
        """Every fetch has closed what it opened."""
