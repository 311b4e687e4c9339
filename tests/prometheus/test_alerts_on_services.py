"""Alerts on watched services, each fired and resolved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.prometheus.firing import (
    ALL,
    CLOWDER,
    MONITOR,
    WORKER,
    Case,
    Quiet,
    fire_and_are_over,
    stay_quiet,
    turns,
)

#: Whether the service is in maintenance, and whether somebody runs who would know how it is.
BEFORE = 'instance="worker-before:8081",job="eventsink-worker"'
RESTING = f'eventsink_service_in_maintenance{{service="clowder",{WORKER}}}'
UPTIME = f'eventsink_agent_up{{agent="uptime",{WORKER}}}'

CASES: Sequence[Case] = (
    Case(
        "ServiceDownInMostRegions",
        {ALL: turns(1, 0, 1)},
        31,
        33,
        60,
        CLOWDER,
        "clowder is down for most regions",
    ),
    Case(
        "ServiceUnknown",
        {ALL: "1+0x29 _x29 1+0x30", RESTING: turns(0, 0, 0), UPTIME: turns(1, 1, 1)},
        # A series that is gone from a scrape is gone at once, unless it was missed: then after five minutes.
        39,
        46,
        61,
        CLOWDER,
        "Nobody reports how clowder is",
    ),
    Case(
        "ServiceUnknown",
        # The worker forgot the service after a day, and on the third somebody reported it again.
        {ALL: "1+0x99 _x2900 1+0x100", RESTING: "0+0x1539 _x1460 0+0x100", UPTIME: "1+0x3200"},
        90,
        2950,
        3010,
        CLOWDER,
        "Nobody reports how clowder is",
    ),
    Case(
        "ServiceUnknown",
        # Nobody ever did. The last full hour at which it was known is minute 1500, a week after it is 11580.
        {ALL: "1+0x99", RESTING: "0+0x1539", UPTIME: "1+0x11700"},
        90,
        11570,
        11600,
        CLOWDER,
        "Nobody reports how clowder is",
    ),
    Case(
        "ServiceUnknown",
        # The worker before was stopped while the service was in maintenance; the one now forgot it after minute 500,
        # not in maintenance, and nobody has reported it since.
        {
            f'eventsink_service_in_maintenance{{service="clowder",{BEFORE}}}': "1+0x200 stale",
            RESTING: "_x200 0+0x300 stale",
            ALL: "1+0x300 stale",
            UPTIME: "1+0x11700",
        },
        300,
        700,
        11000,
        CLOWDER,
        "Nobody reports how clowder is",
    ),
    Case(
        "UptimeBudgetBurnsFast",
        # three minutes in an hour are 5 %, 50 times the objective
        {ALL: "1+0x59 0+0x2 1+0x400"},
        59,
        63,
        100,
        CLOWDER,
        "clowder spends its error budget so fast that it is gone within days",
    ),
    Case(
        "UptimeBudgetBurnsFast",
        # A minute in a hundred, three times: in minute 315 the last five are clean, of the last thirty 3 % are not, and
        # of six hours 0.8 %, eight times the objective.
        {ALL: "1+0x99 0 1+0x99 0 1+0x99 0 1+0x100"},
        99,
        315,
        340,
        CLOWDER,
        "clowder spends its error budget so fast that it is gone within days",
    ),
    Case(
        "UptimeBudgetBurnsSlowly",
        # Five minutes are 0.35 % of a day; the six hours behind minute 490 are clean.
        {ALL: "1+0x119 0+0x4 1+0x400"},
        119,
        126,
        490,
        CLOWDER,
        "clowder spends more of its error budget than it has",
    ),
    Case(
        "CertificateExpiring",
        {
            f'eventsink_monitor_certificate_days_left{{service="clowder",kind="page",{MONITOR}}}': turns(
                60, 13, 90, minutes=100
            )
        },
        158,
        161,
        200,
        CLOWDER,
        "The certificate of clowder ends in 13 day(s)",
    ),
)

QUIET: Sequence[Quiet] = (
    Quiet(
        "one failed check after an hour of maintenance, or one of which nothing is known",
        ("UptimeBudgetBurnsFast", "UptimeBudgetBurnsSlowly"),
        {ALL: "1+0x39 _x260 0 0 1+0x99"},
        (74, 75, 76, 77, 80, 95),
    ),
    Quiet(
        "one failed check of a service that was never seen before",
        ("UptimeBudgetBurnsFast", "UptimeBudgetBurnsSlowly"),
        {ALL: "_x40 0 0 1+0x99"},
        (9, 10, 11, 12, 30),
    ),
    Quiet(
        "a worker that is down: it is told of once, and not by each service",
        ("ServiceUnknown",),
        {ALL: "1+0x119", RESTING: "0+0x119", UPTIME: "1+0x119"},
        (29, 36, 50, 90),
    ),
    Quiet(
        "a service that was taken away for good: it went into maintenance, and was forgotten",
        ("ServiceUnknown",),
        {ALL: "1+0x119", RESTING: "0+0x119 1+0x400", UPTIME: "1+0x2000"},
        (40, 100, 131, 150, 200, 300),
    ),
)


@pytest.mark.servers
def test_each_fires_and_is_over(tmp_path: Path) -> None:
    fire_and_are_over(CASES, tmp_path)


@pytest.mark.servers
def test_what_is_no_alarm_fires_none(tmp_path: Path) -> None:
    stay_quiet(QUIET, tmp_path)
