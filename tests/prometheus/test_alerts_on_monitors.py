"""Alerts on monitors, each fired and resolved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.prometheus.firing import (
    AT_MONITOR,
    MONITOR,
    Case,
    fire_and_are_over,
    rises,
    turns,
)

CASES: Sequence[Case] = (
    Case(
        "MonitorNotPosting",
        {f"eventsink_monitor_outbox_oldest_seconds{{{MONITOR}}}": turns(0, 600, 0)},
        34,
        36,
        60,
        AT_MONITOR,
        "The monitor on monitor:8082 has not been able to post for 10m 0s",
    ),
    Case(
        "MonitorOutboxFilling",
        {
            f"eventsink_monitor_outbox_bytes{{{MONITOR}}}": turns(0, 600, 0),
            f"eventsink_monitor_outbox_limit_bytes{{{MONITOR}}}": turns(1000, 1000, 1000),
        },
        34,
        36,
        60,
        AT_MONITOR,
        "The outbox of the monitor on monitor:8082 is 60% full",
    ),
    Case(
        "MonitorDropsResults",
        {f"eventsink_monitor_outbox_dropped_events{{{MONITOR}}}": rises()},
        9,
        12,
        30,
        AT_MONITOR,
        "The monitor on monitor:8082 drops results",
    ),
    Case(
        "MonitorResultsRefused",
        {f"eventsink_monitor_outbox_refused_events{{{MONITOR}}}": "3+0x1499 5+0x2000"},
        1490,
        1510,
        2950,
        AT_MONITOR,
        "The ingest refuses results of the monitor on monitor:8082 for good",
    ),
    Case(
        "MonitorResultsRefused",
        # It was refused some before it was first scraped.
        {f"eventsink_monitor_outbox_refused_events{{{MONITOR}}}": "_x10 3+0x200"},
        9,
        11,
        75,
        AT_MONITOR,
        "The ingest refuses results of the monitor on monitor:8082 for good",
    ),
    Case(
        "MonitorMeasuresNothing",
        {
            f'eventsink_monitor_checks_total{{kind="page",service="clowder",result="up",{MONITOR}}}': (
                "0+1x19 19+0x39 20+1x40"
            ),
            f'eventsink_monitor_checks_total{{kind="page",service="clowder",result="unknown",{MONITOR}}}': (
                "0+0x19 1+1x39 40+0x40"
            ),
        },
        30,
        50,
        65,
        {"instance": "monitor:8082", "service": "clowder", "kind": "page"},
        "The monitor on monitor:8082 cannot measure clowder (page)",
    ),
)


@pytest.mark.servers
def test_each_fires_and_is_over(tmp_path: Path) -> None:
    fire_and_are_over(CASES, tmp_path)
