"""Attempts to be let in that failed: counted, and of one address only so many.

A key that is good is let in from any address, however often another one failed there (docs/decisions/0028).
"""

from __future__ import annotations

import math

from aiohttp import web

from topology.metrics import IngestMetrics
from web.clients import Clients
from web.limits import TokenBuckets
from web.problems import Problem


class FailedAttempts:
    """``buckets``: what one address may try."""

    def __init__(self, buckets: TokenBuckets, clients: Clients, metrics: IngestMetrics) -> None:
        self._buckets = buckets
        self._clients = clients
        self._metrics = metrics

    def failed(self, request: web.Request, reason: str) -> None:
        """Count an attempt; the caller answers 401. Raises the 429 ``Problem`` where its address has none left."""
        wait = self._buckets.take(self._clients.group(request))
        if wait:
            self._metrics.ingest_refused_keys(reason="limited").inc()
            raise too_many(
                "too many attempts with no valid key from this address: wait, then mend the key", wait
            )
        self._metrics.ingest_refused_keys(reason=reason).inc()

    def out_of_scope(self) -> None:
        """Count a good key that may not do this. It is no attempt: its holder is known."""
        self._metrics.ingest_refused_keys(reason="scope").inc()


def too_many(said: str, wait_s: float) -> Problem:
    """429 with the time after which the next request is let in."""
    return Problem(429, said, headers={"Retry-After": str(max(1, math.ceil(wait_s)))})
