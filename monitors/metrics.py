"""A monitor's own metrics. Labels are names from its configuration and fixed words, so they are bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitors.outbox import Held

Result: TypeAlias = Literal["up", "down", "measured", "unknown"]
Restart: TypeAlias = Literal["hung", "crashed"]


class MonitorMetrics:
    """``eventsink_monitor_*``; ``held`` is asked at each scrape, ``clock_ms`` is the wall clock."""

    def __init__(
        self, registry: CollectorRegistry, held: Callable[[], Held], clock_ms: Callable[[], int]
    ) -> None:
        self.registry = registry
        self._checks = Counter(
            "eventsink_monitor_checks",
            "Checks by result; many unknown ones: the monitor lacks something, its log says what.",
            ["kind", "service", "result"],
            registry=registry,
        )
        self._up = Gauge(
            "eventsink_monitor_service_up",
            "1 if the last check that could tell found the service up, 0 if down.",
            ["kind", "service"],
            registry=registry,
        )
        self._restarts = Counter(
            "eventsink_monitor_probe_restarts",
            "Probes that were built anew because they hung or crashed; report what the log says of them.",
            ["kind", "service", "why"],
            registry=registry,
        )
        self._posts = Counter(
            "eventsink_monitor_posts",
            "Requests to the endpoint by status, none where it did not answer; 401 and 403: mend the key.",
            ["code"],
            registry=registry,
        )

        def shows(name: str, meaning: str, read: Callable[[], float]) -> None:
            Gauge(name, meaning, registry=registry).set_function(read)

        def oldest_seconds() -> float:
            oldest_ms = held().oldest_ms
            return 0.0 if oldest_ms is None else max(0, clock_ms() - oldest_ms) / 1000

        shows(
            "eventsink_monitor_outbox_events",
            "Results that wait for the endpoint; if they stay, bring it back or mend the key.",
            lambda: held().events,
        )
        shows(
            "eventsink_monitor_outbox_bytes",
            "Bytes of its file that the outbox uses; at outbox_max_bytes results are dropped.",
            lambda: held().bytes,
        )
        shows(
            "eventsink_monitor_outbox_oldest_seconds",
            "Age of the oldest result in the outbox, 0 where there is none.",
            oldest_seconds,
        )
        shows(
            "eventsink_monitor_outbox_dropped_events",
            "Results dropped because the outbox was full, since its file was made: raise outbox_max_bytes.",
            lambda: held().dropped,
        )
        shows(
            "eventsink_monitor_outbox_refused_events",
            "Results that the endpoint will never take, since the file was made; its log says why.",
            lambda: held().refused,
        )

    def checked(self, kind: str, service: str, result: Result) -> None:
        self._checks.labels(kind, service, result).inc()
        if result in {"up", "down"}:
            self._up.labels(kind, service).set(result == "up")

    def restarted(self, kind: str, service: str, why: Restart) -> None:
        self._restarts.labels(kind, service, why).inc()

    def posted(self, code: str) -> None:
        self._posts.labels(code).inc()
