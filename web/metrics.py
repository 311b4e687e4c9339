"""The web application's own metrics; the engine's are in ``topology/metrics.py``."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from web.spool import Held


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
        self._of_status: dict[int, Counter] = {}

    def answered(self, status: int) -> None:
        counter = self._of_status.get(status)
        if counter is None:
            counter = self._of_status[status] = self._requests.labels(str(status))
        counter.inc()


def refused_keys(registry: CollectorRegistry) -> Counter:
    """``eventsink_ingest_refused_keys_total``: requests that were not let in. Made once for a registry."""
    # The reasons are a ``keys.Refusal``, scope, or limited: past what one address may try, whatever the reason.
    return Counter(
        "eventsink_ingest_refused_keys",
        "Requests whose key may not do what they ask, by reason; many unknown, or any limited: see who tries.",
        ["reason"],
        registry=registry,
    )


class SpoolMetrics:
    """``eventsink_spool_*``: what waits on this disk for the broker. Where the log is embedded there is none."""

    def __init__(
        self, registry: CollectorRegistry, held: Callable[[], Held], clock: Callable[[], int]
    ) -> None:
        """``held`` is asked at each scrape; ``clock`` in epoch milliseconds."""

        def oldest_seconds() -> float:
            oldest_ms = held().oldest_ms
            return 0.0 if oldest_ms is None else max(0, clock() - oldest_ms) / 1000

        def shows(name: str, meaning: str, read: Callable[[], float]) -> None:
            Gauge(name, meaning, registry=registry).set_function(read)

        shows(
            "eventsink_spool_events",
            "Accepted events that wait in the spool for the broker; if they stay, bring the broker back.",
            lambda: held().events,
        )
        shows(
            "eventsink_spool_bytes",
            "Bytes of its file that the spool uses; at EVENTSINK_SPOOL_MAX_BYTES the ingest answers 503.",
            lambda: held().bytes,
        )
        shows(
            "eventsink_spool_oldest_seconds",
            "How long the oldest event in the spool has waited; 0 where none does.",
            oldest_seconds,
        )
        shows(
            "eventsink_spool_refused_events",
            "Accepted events that the broker never takes, kept in spool.db: raise its max_message_size and "
            "restart.",
            lambda: held().refused_events,
        )
