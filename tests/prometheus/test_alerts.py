"""No alert without a case, and cases that can fail. The cases are in ``test_alerts_on_*.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prometheus import (
    test_alerts_on_agents,
    test_alerts_on_delivery,
    test_alerts_on_monitors,
    test_alerts_on_services,
)
from tests.prometheus.firing import AGENT, Case, fire_and_are_over, of_agent, turns
from tests.prometheus.rules import alerts, needed_by

CASES = (
    *test_alerts_on_agents.CASES,
    *test_alerts_on_delivery.CASES,
    *test_alerts_on_monitors.CASES,
    *test_alerts_on_services.CASES,
)


def test_every_alert_is_fired_and_resolved_by_a_case() -> None:
    assert {case.alert for case in CASES} == set(alerts())
    for case in CASES:
        assert case.before < case.firing < case.after


def test_an_alert_needs_what_is_recorded_for_it_and_what_that_needs() -> None:
    names = [rule.get("record", rule.get("alert")) for rule in needed_by(["UptimeBudgetBurnsSlowly"])]
    ratios = {f"service:eventsink_down:ratio{span}" for span in ("1d", "2h", "3d", "6h")}
    assert set(names) == {"UptimeBudgetBurnsSlowly", "eventsink:uptime_objective:ratio"} | ratios
    assert names[-1] == "UptimeBudgetBurnsSlowly"


@pytest.mark.servers
@pytest.mark.parametrize(
    ("turn", "wrong"),
    [
        (turns(0, 0, 0), "time: 30m"),  # it never fires
        (turns(0, 1, 1), "time: 1h"),  # it is never over
    ],
)
def test_an_alert_that_does_not_fire_or_does_not_end_would_be_seen(
    turn: str, wrong: str, tmp_path: Path
) -> None:
    case = Case(
        "AgentStuck",
        {of_agent("eventsink_agent_stuck"): turn},
        29,
        30,
        60,
        AGENT,
        "Agent storage is alive and makes no progress",
    )
    with pytest.raises(AssertionError, match=wrong):
        fire_and_are_over([case], tmp_path)
