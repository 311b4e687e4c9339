"""Every metric, with its kind, meaning and remedy. Names are part of the contract.

Metrics are made on a registry of the process's own and handed down; nothing is global.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge

Outcome: TypeAlias = Literal["folded", "ignored", "duplicate", "late", "dead"]
Forwarded: TypeAlias = Literal["sent", "doubtful"]
Written: TypeAlias = Literal["written", "unavailable", "refused"]


class Metrics:
    """Typed setters, so that a misspelt name or label fails the type check."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        # Remedy where the sum over outcomes differs from received: report it, the ledger must balance.
        self._events = Counter(
            "eventsink_events",
            "Events by what became of them; late, dead and duplicate ones deserve a look when they rise.",
            ["group", "agent", "outcome"],
            registry=registry,
        )
        self._received = Counter(
            "eventsink_events_received",
            "Events that a group read, whatever became of them.",
            ["group"],
            registry=registry,
        )
        self._skewed = Counter(
            "eventsink_events_skewed",
            "Events from the future, placed at their arrival; set the clock of whoever sends them.",
            ["group"],
            registry=registry,
        )
        self._doubled = Counter(
            "eventsink_downloads_doubled",
            "Downloads that Clowder logged twice and that were counted once, among the duplicates.",
            ["group"],
            registry=registry,
        )
        self._cut = Counter(
            "eventsink_log_messages_cut",
            "Messages, at most, that retention took out of the log before the group read them; keep the log longer.",
            ["group"],
            registry=registry,
        )
        self._lag_events = Gauge(
            "eventsink_agent_lag_events",
            "Messages in the log (of one or more events) that the agent has not folded; look for a store that is away.",
            ["agent"],
            registry=registry,
        )
        self._lag_seconds = Gauge(
            "eventsink_agent_lag_seconds",
            "Age of the newest event that the agent has folded, 0 when it is at the end of the log.",
            ["agent"],
            registry=registry,
        )
        self._up = Gauge(
            "eventsink_agent_up",
            "1 while the agent runs; 0: a vendor refuses all (see the log), or the process stops with an error.",
            ["agent"],
            registry=registry,
        )
        self._watermark = Gauge(
            "eventsink_watermark_seconds",
            "Event time (Unix) up to which the agent's group believes to have seen everything.",
            ["agent"],
            registry=registry,
        )
        self._checkpoint = Gauge(
            "eventsink_checkpoint_age_seconds",
            "Time since the agent's position was saved; grows while the store of rows is away.",
            ["agent"],
            registry=registry,
        )
        self._sink_writes = Counter(
            "eventsink_sink_writes",
            "Values written to, or refused by, a sink; unavailable counts tries.",
            ["sink", "outcome"],
            registry=registry,
        )
        self._sink_pending = Gauge(
            "eventsink_sink_pending",
            "Values that wait for the sink; see its own log when this grows.",
            ["sink"],
            registry=registry,
        )
        self._over_budget = Counter(
            "eventsink_keys_over_budget",
            "Keys of a rollup that were folded into `other`; look at who sends so many values, or raise the budget.",
            ["rollup", "tag"],
            registry=registry,
        )
        self._jobs_open = Gauge(
            "eventsink_jobs_open_over_a_day",
            "Jobs of extractors that began over a day before the watermark and have not ended; look at the extractors.",
            ["rollup"],
            registry=registry,
        )
        self._forwarded = Counter(
            "eventsink_forwarded_events",
            "Events by vendor's agent: sent, or doubtful, which may have arrived and are not sent twice.",
            ["agent", "result"],
            registry=registry,
        )
        self._forward_ignored = Counter(
            "eventsink_forward_ignored_events",
            "Events that were not sent: of another type, left out by the sample, without consent, too old.",
            ["agent", "reason"],
            registry=registry,
        )
        self._forward_requests = Counter(
            "eventsink_forward_requests",
            "Requests to a vendor by what its answer meant; look at the log when later or stopped rise.",
            ["agent", "verdict"],
            registry=registry,
        )
        self._forward_held = Counter(
            "eventsink_forward_held_events",
            "Events that wait because the vendor throttles their user; those of others go on.",
            ["agent"],
            registry=registry,
        )
        self._forward_pending = Gauge(
            "eventsink_forward_pending_events",
            "Events on their way to a vendor; at 20 000 the agent reads no further.",
            ["agent"],
            registry=registry,
        )
        self._breaker_open = Gauge(
            "eventsink_forward_breaker_open",
            "1 while a vendor failed so often that it is only tried now and then.",
            ["agent"],
            registry=registry,
        )
        self._imbalance = Gauge(
            "eventsink_ledger_imbalance_events",
            "Received minus the sum of outcomes of an agent; anything but 0 is a fault of eventsink.",
            ["agent"],
            registry=registry,
        )

    def received(self, group: str, events: int) -> None:
        self._received.labels(group).inc(events)

    def outcomes(self, group: str, agent: str, events: Mapping[Outcome, int]) -> None:
        for outcome, count in events.items():
            self._events.labels(group, agent, outcome).inc(count)

    def skewed(self, group: str, events: int) -> None:
        self._skewed.labels(group).inc(events)

    def doubled(self, group: str, downloads: int) -> None:
        self._doubled.labels(group).inc(downloads)

    def cut(self, group: str, messages: int) -> None:
        self._cut.labels(group).inc(messages)

    def lag(self, agent: str, *, events: int, seconds: float) -> None:
        self._lag_events.labels(agent).set(events)
        self._lag_seconds.labels(agent).set(seconds)

    def up(self, agent: str, *, running: bool) -> None:
        self._up.labels(agent).set(running)

    def watermark(self, agent: str, seconds: float) -> None:
        self._watermark.labels(agent).set(seconds)

    def checkpoint_age(self, agent: str, seconds: Callable[[], float]) -> None:
        self._checkpoint.labels(agent).set_function(seconds)

    def sink_write(self, sink: str, outcome: Written, values: int = 1) -> None:
        self._sink_writes.labels(sink, outcome).inc(values)

    def sink_pending(self, sink: str, values: int) -> None:
        self._sink_pending.labels(sink).set(values)

    def over_budget(self, rollup: str, tag: str) -> None:
        self._over_budget.labels(rollup, tag).inc()

    def forwarded(self, agent: str, result: Forwarded, events: int) -> None:
        self._forwarded.labels(agent, result).inc(events)

    def forward_ignored(self, agent: str, reason: str) -> None:
        self._forward_ignored.labels(agent, reason).inc()

    def forward_request(self, agent: str, verdict: str) -> None:
        self._forward_requests.labels(agent, verdict).inc()

    def forward_held(self, agent: str, events: int) -> None:
        self._forward_held.labels(agent).inc(events)

    def forward_pending(self, agent: str, events: int) -> None:
        self._forward_pending.labels(agent).set(events)

    def breaker_open(self, agent: str, *, is_open: bool) -> None:
        self._breaker_open.labels(agent).set(is_open)

    def jobs_open(self, rollup: str, jobs: int) -> None:
        self._jobs_open.labels(rollup).set(jobs)

    def ledger(self, agent: str, received: int, accounted: int) -> None:
        self._imbalance.labels(agent).inc(received - accounted)
