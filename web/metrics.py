"""The web application's own metrics; the engine's are in ``topology/metrics.py``."""

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


def refused_keys(registry: CollectorRegistry) -> Counter:
    """``eventsink_ingest_refused_keys_total``: requests that were not let in. Made once for a registry."""
    # The reasons are a ``keys.Refusal``, scope, or limited: past what one address may try, whatever the reason.
    return Counter(
        "eventsink_ingest_refused_keys",
        "Requests whose key may not do what they ask, by reason; many unknown, or any limited: see who tries.",
        ["reason"],
        registry=registry,
    )
