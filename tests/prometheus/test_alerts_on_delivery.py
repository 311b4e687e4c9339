"""Alerts on sinks, forwarders and the ingest, each fired and resolved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.prometheus.firing import (
    AT_WEB,
    AT_WORKER,
    WEB,
    WORKER,
    Case,
    fire_and_are_over,
    rises,
    turns,
)


def written(outcome: str) -> str:
    return f'eventsink_sink_writes_total{{sink="influxdb",outcome="{outcome}",{WORKER}}}'


CASES: Sequence[Case] = (
    Case(
        "SinkFailing",
        {
            # written, then only tries, then written again
            written("written"): "0+100x19 1900+0x39 2000+100x40",
            written("unavailable"): "0+0x19 1+1x39 40+0x40",
        },
        25,
        45,
        70,
        {"sink": "influxdb"},
        "Nothing is written to influxdb, every try fails",
    ),
    Case(
        "SinkRefuses",
        {written("refused"): rises(by=1, minutes=1)},
        9,
        11,
        30,
        {"sink": "influxdb"},
        "influxdb refuses values for good",
    ),
    Case(
        "ForwarderPaused",
        {f'eventsink_forward_breaker_open{{agent="amplitude",{WORKER}}}': turns(0, 1, 0)},
        44,
        46,
        60,
        AT_WORKER | {"agent": "amplitude"},
        "The vendor of amplitude has failed for 15 minutes",
    ),
    Case(
        "SpoolFilling",
        {
            f"eventsink_spool_bytes{{{WEB}}}": turns(0, 600, 100),
            f"eventsink_spool_limit_bytes{{{WEB}}}": turns(1000, 1000, 1000),
            f"eventsink_spool_events{{{WEB}}}": turns(0, 60, 0),
        },
        34,
        36,
        60,
        AT_WEB,
        "The spool of web:8080 is filling",
    ),
    Case(
        "SpoolFilling",
        # 5000 bytes a minute are 1.2 MB in four hours, and there is room for 1 MB
        {
            f"eventsink_spool_bytes{{{WEB}}}": "0+0x9 5000+5000x29 0+0x60",
            f"eventsink_spool_limit_bytes{{{WEB}}}": turns(1_000_000, 1_000_000, 1_000_000),
            f"eventsink_spool_events{{{WEB}}}": "0+0x9 10+10x29 0+0x60",
        },
        12,
        38,
        60,
        AT_WEB,
        "The spool of web:8080 is filling",
    ),
    Case(
        "SpoolNotDraining",
        {f"eventsink_spool_oldest_seconds{{{WEB}}}": turns(0, 900, 0)},
        34,
        36,
        60,
        AT_WEB,
        "Events wait in the spool of web:8080 for 15m 0s",
    ),
    Case(
        "IngestRefuses",
        {f'eventsink_ingest_requests_total{{code="503",{WEB}}}': rises(minutes=6)},
        10,
        14,
        25,
        {"instance": "web:8080"},
        "The ingest on web:8080 answers 503: events are not taken",
    ),
    Case(
        "SpoolRefused",
        {f"eventsink_spool_refused_events{{{WEB}}}": turns(0, 4, 0)},
        29,
        30,
        60,
        AT_WEB,
        "4 accepted event(s) on web:8080 are ones that the broker never takes",
    ),
)


@pytest.mark.servers
def test_each_fires_and_is_over(tmp_path: Path) -> None:
    fire_and_are_over(CASES, tmp_path)
