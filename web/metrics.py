"""The web application's own metric; the engine's are in ``topology/metrics.py``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class IngestMetrics:
    """``eventsink_ingest_requests_total``: what ``POST /v1/events`` was answered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # The codes are those that the ingest can answer, so the label is bounded.
        self._requests = Counter(
            "eventsink_ingest_requests",
            "Requests that brought events, by status; 503 means that the log is away, 401 a wrong key.",
            ["code"],
            registry=registry,
        )

    def answered(self, status: int) -> None:
        self._requests.labels(str(status)).inc()
