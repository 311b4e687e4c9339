"""Alerts on processes and agents, each fired and resolved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.prometheus.firing import (
    AGENT,
    AT_WORKER,
    WORKER,
    Case,
    fire_and_are_over,
    of_agent,
    rises,
    turns,
)

CASES: Sequence[Case] = (
    Case(
        "EventsinkDown",
        {f"up{{{WORKER}}}": turns(1, 0, 1)},
        31,
        33,
        60,
        AT_WORKER,
        "eventsink-worker on worker:8081 does not answer",
    ),
    Case(
        "DependencyAway",
        {f'eventsink_dependency_away{{dependency="state",{WORKER}}}': turns(0, 1, 0)},
        34,
        36,
        60,
        {"dependency": "state"},
        "The agents wait for state",
    ),
    Case(
        "AgentStuck",
        {of_agent("eventsink_agent_stuck"): turns(0, 1, 0)},
        29,
        30,
        60,
        AGENT,
        "Agent storage is alive and makes no progress",
    ),
    Case(
        "AgentStopped",
        {of_agent("eventsink_agent_up"): turns(1, 0, 1)},
        30,
        31,
        60,
        AGENT,
        "Agent storage has stopped",
    ),
    Case(
        "AgentLagging",
        {
            of_agent("eventsink_agent_lag_seconds"): turns(0, 600, 600),
            of_agent("eventsink_agent_lag_events"): turns(0, 7, 0),
        },
        39,
        41,
        60,
        AGENT,
        "Agent storage is 10m 0s behind",
    ),
    Case(
        "CheckpointOld",
        {of_agent("eventsink_checkpoint_age_seconds"): turns(1, 300, 1)},
        31,
        33,
        60,
        AGENT,
        "The position of agent storage was saved 5m 0s ago",
    ),
    Case(
        "LedgerImbalance",
        {of_agent("eventsink_ledger_imbalance_events"): turns(0, 3, 0)},
        30,
        31,
        60,
        AGENT,
        "Agent storage does not account for 3 event(s)",
    ),
    Case(
        "DeadLettersRising",
        {
            f'eventsink_events_total{{group="rollups",agent="{agent}",outcome="dead",{WORKER}}}': rises()
            for agent in ("storage", "uptime")
        },
        9,
        12,
        30,
        {"group": "rollups"},
        "Group rollups put events aside that it cannot process",
    ),
    Case(
        "LogCut",
        {f'eventsink_log_messages_cut_total{{group="archive",{WORKER}}}': rises(minutes=1)},
        9,
        11,
        80,
        AT_WORKER | {"group": "archive"},
        "Retention took messages out of the log before group archive had read them",
    ),
    Case(
        "LogCut",
        # The worker was away for two hours, finds the cut when it starts, and counts nothing more.
        {f'eventsink_log_messages_cut_total{{group="archive",{WORKER}}}': "0+0x40 _x120 5+0x100"},
        160,
        161,
        223,
        AT_WORKER | {"group": "archive"},
        "Retention took messages out of the log before group archive had read them",
    ),
    Case(
        "CardinalityBudgetHit",
        {f'eventsink_keys_over_budget_total{{rollup="space_storage",tag="space_id",{WORKER}}}': rises()},
        9,
        11,
        80,
        {"rollup": "space_storage", "tag": "space_id"},
        "space_storage has more values of space_id today than its budget",
    ),
    Case(
        "JobsNeverEnd",
        {
            f'eventsink_jobs_open_over_a_day{{rollup="extractor_runtime",{WORKER}}}': turns(
                0, 2, 0, minutes=100
            )
        },
        158,
        161,
        200,
        {"rollup": "extractor_runtime"},
        "2 job(s) of extractors began over a day ago and have not ended",
    ),
    Case(
        "JobsNeverEnd",
        # Two jobs for ever: news for a day.
        {f'eventsink_jobs_open_over_a_day{{rollup="extractor_runtime",{WORKER}}}': turns(0, 2, minutes=2000)},
        2050,
        2070,
        3450,
        {"rollup": "extractor_runtime"},
        "2 job(s) of extractors began over a day ago and have not ended",
    ),
    Case(
        "JobsNeverEnd",
        # They were there when the worker was first watched.
        {f'eventsink_jobs_open_over_a_day{{rollup="extractor_runtime",{WORKER}}}': "_x10 2+0x2000"},
        60,
        80,
        1460,
        {"rollup": "extractor_runtime"},
        "2 job(s) of extractors began over a day ago and have not ended",
    ),
)


@pytest.mark.servers
def test_each_fires_and_is_over(tmp_path: Path) -> None:
    fire_and_are_over(CASES, tmp_path)
