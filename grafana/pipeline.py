"""Pipeline: how the agents of eventsink are, from Prometheus."""

from __future__ import annotations

from grafana.boards import Board, series, source
from grafana.panels import BLUE, ORANGE, RED, Promql, Row, lines, stat

_AGENT = 'agent=~"$agent"'

pipeline = Board(
    name="pipeline",
    title="Pipeline",
    description="How eventsink itself is: lag, outcomes, checkpoints, sinks, ingest, forwarders.",
    since="now-3h",
    refresh="30s",
    variables=[
        source("prometheus", "Prometheus"),
        series("agent", "Agent", "eventsink_agent_up"),
    ],
    rows=[
        Row(
            "Now",
            4,
            [
                stat(
                    "Agents down",
                    "An agent that is down folds nothing: see the worker's log.",
                    "short",
                    Promql(f"sum(1 - eventsink_agent_up{{{_AGENT}}})", "down", instant=True),
                    width=6,
                    steps=[(1, RED)],
                ),
                stat(
                    "Agents stuck",
                    "Alive, and without progress for 45 s though the log goes on: the log has the stack of its tasks.",
                    "short",
                    Promql(f"sum(eventsink_agent_stuck{{{_AGENT}}})", "stuck", instant=True),
                    width=6,
                    steps=[(1, RED)],
                ),
                stat(
                    "Dependencies away",
                    "Servers and files that the agents need and that do not answer. All catch up when they do.",
                    "short",
                    Promql("count(eventsink_dependency_away == 1) or vector(0)", "away", instant=True),
                    width=6,
                    steps=[(1, RED)],
                ),
                stat(
                    "Events",
                    "Events that the groups read each second, over five minutes. Each group reads all of them.",
                    "eps",
                    Promql(
                        "max(sum by (group) (rate(eventsink_events_received_total[5m])))",
                        "events",
                        instant=True,
                    ),
                    width=6,
                    base=BLUE,
                ),
                stat(
                    "Largest lag",
                    "Age of the newest event that the slowest agent has folded; 0 at the end of the log.",
                    "s",
                    Promql(f"max(eventsink_agent_lag_seconds{{{_AGENT}}})", "lag", instant=True),
                    width=6,
                    steps=[(60, ORANGE), (600, RED)],
                ),
                stat(
                    "Dead letters, last hour",
                    "Events that could not be processed: eventsink dead list shows them.",
                    "short",
                    Promql('sum(increase(eventsink_events_total{outcome="dead"}[1h]))', "dead", instant=True),
                    width=6,
                    decimals=0,
                    steps=[(1, ORANGE), (100, RED)],
                ),
                stat(
                    "In the spool",
                    "Events that the ingest keeps on disk while the broker is away.",
                    "short",
                    Promql("sum(eventsink_spool_events)", "spool", instant=True),
                    width=6,
                    steps=[(1, ORANGE), (100_000, RED)],
                    nothing="no spool",
                ),
                stat(
                    "Ledger imbalance",
                    "Events received less those accounted for. Anything but 0 is a fault of eventsink: report it.",
                    "short",
                    Promql(
                        f"sum(abs(eventsink_ledger_imbalance_events{{{_AGENT}}}))", "imbalance", instant=True
                    ),
                    width=6,
                    steps=[(1, RED)],
                ),
            ],
        ),
        Row(
            "Agents",
            8,
            [
                lines(
                    "Events by outcome",
                    "Each event gets one outcome of each agent. Late: older than the kept windows. Dead: unreadable.",
                    "eps",
                    Promql(
                        f"sum by (outcome) (rate(eventsink_events_total{{{_AGENT}}}[$__rate_interval]))",
                        "{{outcome}}",
                    ),
                    bars=True,
                ),
                lines(
                    "Messages not yet folded",
                    "In the log beyond an agent's position. A line that only rises: a store is away, or events come "
                    "faster than they are folded.",
                    "short",
                    Promql(f"eventsink_agent_lag_events{{{_AGENT}}}", "{{agent}}"),
                    least=0,
                ),
                lines(
                    "Lag",
                    "Age of the newest event that an agent has folded; 0 at the end of the log.",
                    "s",
                    Promql(f"eventsink_agent_lag_seconds{{{_AGENT}}}", "{{agent}}"),
                    least=0,
                    steps=[(60, ORANGE), (600, RED)],
                ),
                lines(
                    "Watermark behind the clock",
                    "How far event time is behind. About 11 s on a quiet log: 10 s of allowed disorder, 1 s idle.",
                    "s",
                    Promql(f"time() - eventsink_watermark_seconds{{{_AGENT}}}", "{{agent}}"),
                    least=0,
                ),
                lines(
                    "Age of the checkpoint",
                    "Time since an agent's position was saved, once a second as a rule. It grows while the store of "
                    "rows is away; after a crash so much is read again.",
                    "s",
                    Promql(f"eventsink_checkpoint_age_seconds{{{_AGENT}}}", "{{agent}}"),
                    least=0,
                    steps=[(30, ORANGE), (300, RED)],
                ),
                lines(
                    "Batch in hand",
                    "How long an agent has a batch in hand; 95 % are done sooner.",
                    "s",
                    Promql(
                        "histogram_quantile(0.95, sum by (agent, le) "
                        f"(rate(eventsink_agent_batch_seconds_bucket{{{_AGENT}}}[$__rate_interval])))",
                        "{{agent}}",
                    ),
                    least=0,
                ),
                lines(
                    "Dependencies",
                    "1 while a server or a file does not answer. Nothing is drawn while all do.",
                    "short",
                    Promql("eventsink_dependency_away", "{{dependency}}"),
                    least=0,
                    most=1,
                    nothing="all answer",
                ),
                lines(
                    "Agents up",
                    "1 while an agent runs; 0: it stopped with an error, or its vendor refuses everything.",
                    "short",
                    Promql(f"eventsink_agent_up{{{_AGENT}}}", "{{agent}}"),
                    least=0,
                    most=1,
                ),
            ],
        ),
        Row(
            "Sinks",
            8,
            [
                lines(
                    "Written to sinks",
                    "Values by what became of them; unavailable counts tries, refused ones are dead letters.",
                    "wps",
                    Promql(
                        "sum by (sink, outcome) (rate(eventsink_sink_writes_total[$__rate_interval]))",
                        "{{sink}} {{outcome}}",
                    ),
                ),
                lines(
                    "Waiting for sinks",
                    "Values owed to a sink. They are kept while it is away, and written when it is back.",
                    "short",
                    Promql("eventsink_sink_pending", "{{sink}}"),
                    least=0,
                ),
            ],
        ),
        Row(
            "Ingest",
            8,
            [
                lines(
                    "Requests by status",
                    "Of POST /v1/events. 401 and 403: somebody's key is wrong. 429: too many. 503: the spool is full.",
                    "reqps",
                    Promql(
                        "sum by (code) (rate(eventsink_ingest_requests_total[$__rate_interval]))", "{{code}}"
                    ),
                    bars=True,
                ),
                lines(
                    "Spool",
                    "Events on disk that wait for the broker.",
                    "short",
                    Promql("eventsink_spool_events", "{{instance}}"),
                    least=0,
                ),
            ],
        ),
        Row(
            "Data",
            8,
            [
                lines(
                    "Keys over their budget",
                    "Keys that were folded into other: somebody sends too many values of a tag.",
                    "short",
                    Promql(
                        "sum by (rollup, tag) (increase(eventsink_keys_over_budget_total[$__rate_interval]))",
                        "{{rollup}} {{tag}}",
                    ),
                    bars=True,
                ),
                lines(
                    "Processes",
                    "1 where Prometheus reaches a process.",
                    "short",
                    Promql('up{job=~"eventsink.*"}', "{{job}} {{instance}}"),
                    least=0,
                    most=1,
                ),
            ],
        ),
        Row(
            "Forwarders",
            8,
            [
                lines(
                    "Forwarded",
                    "Events by vendor: sent, or doubtful, which may have arrived and are not sent twice.",
                    "eps",
                    Promql(
                        "sum by (agent, result) (rate(eventsink_forwarded_events_total[$__rate_interval]))",
                        "{{agent}} {{result}}",
                    ),
                ),
                lines(
                    "On their way to vendors",
                    "At 20 000 an agent reads no further until its vendor takes some.",
                    "short",
                    Promql("eventsink_forward_pending_events", "{{agent}}"),
                    least=0,
                    steps=[(20_000, RED)],
                ),
            ],
        ),
    ],
)
