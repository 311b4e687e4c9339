"""What the metrics of the spool are asked at each scrape. All metrics are declared in ``topology/metrics.py``."""

from __future__ import annotations

from collections.abc import Callable

from topology.metrics import SpoolMetrics
from web.spool import Held


def show_spool(
    metrics: SpoolMetrics, held: Callable[[], Held], *, max_bytes: int, clock: Callable[[], int]
) -> None:
    """``held`` is asked at each scrape; ``clock`` in epoch milliseconds."""

    def oldest_seconds() -> float:
        oldest_ms = held().oldest_ms
        return 0.0 if oldest_ms is None else max(0, clock() - oldest_ms) / 1000

    metrics.spool_events().set_function(lambda: held().events)
    metrics.spool_bytes().set_function(lambda: held().bytes)
    metrics.spool_limit_bytes().set(max_bytes)
    metrics.spool_oldest_seconds().set_function(oldest_seconds)
    metrics.spool_refused_events().set_function(lambda: held().refused_events)
