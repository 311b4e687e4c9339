"""What the metrics of the outbox are asked at each scrape. All metrics are declared in ``topology/metrics.py``."""

from __future__ import annotations

from collections.abc import Callable

from monitors.outbox import Held
from topology.metrics import MonitorMetrics


def show_outbox(
    metrics: MonitorMetrics, held: Callable[[], Held], *, max_bytes: int, clock_ms: Callable[[], int]
) -> None:
    """``held`` is asked at each scrape; ``clock_ms`` is the wall clock."""

    def oldest_seconds() -> float:
        oldest_ms = held().oldest_ms
        return 0.0 if oldest_ms is None else max(0, clock_ms() - oldest_ms) / 1000

    metrics.monitor_outbox_events().set_function(lambda: held().events)
    metrics.monitor_outbox_bytes().set_function(lambda: held().bytes)
    metrics.monitor_outbox_limit_bytes().set(max_bytes)
    metrics.monitor_outbox_oldest_seconds().set_function(oldest_seconds)
    metrics.monitor_outbox_dropped_events().set_function(lambda: held().dropped)
    metrics.monitor_outbox_refused_events().set_function(lambda: held().refused)
