"""Ranges that the page offers, each in the window in which it has a chartful of points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from topology.windows import DAY, HOUR, MINUTE, Tumbling
from web.overview.shapes import Span


class Range(NamedTuple):
    """So many windows of one size; the last is the running one."""

    window: Tumbling
    windows: int


RANGES: Mapping[str, Range] = {
    "1h": Range(MINUTE, 60),
    "24h": Range(HOUR, 24),
    "7d": Range(HOUR, 7 * 24),
    "30d": Range(DAY, 30),
}
DEFAULT_RANGE = "24h"


def span_of(name: str, now_ms: int) -> Span:
    """The range that ends with the window in which ``now_ms`` is."""
    window, windows = RANGES[name]
    until = window.end(window.start(now_ms // 1000))
    return Span(
        range=name,
        window=window.name,
        window_s=window.seconds,
        since=until - windows * window.seconds,
        until=until,
        now=now_ms,
    )


def place(span: Span, time: int) -> int:
    """Which window of the span starts at ``time``."""
    return (time - span.since) // span.window_s


def length(span: Span) -> int:
    """How many windows there are in it."""
    return (span.until - span.since) // span.window_s


def today(span: Span) -> int:
    """When the UTC day of ``span.now`` began."""
    return DAY.start(span.now // 1000)
