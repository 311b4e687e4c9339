"""Every metric of every process, with its kind, labels, meaning and remedy. Names are part of the contract.

``docs/metrics.md`` is made of this module (``make metrics-page``). It imports nothing of ours, so that a monitor, which
knows of no log and no broker, can use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from topology.instruments import Instruments, counter, gauge, histogram

Outcome: TypeAlias = Literal["folded", "ignored", "duplicate", "late", "dead"]
OUTCOMES: Sequence[Outcome] = get_args(Outcome)
Forwarded: TypeAlias = Literal["sent", "doubtful"]
Written: TypeAlias = Literal["written", "unavailable", "refused"]
WRITTEN: Sequence[Written] = get_args(Written)
Result: TypeAlias = Literal["up", "down", "measured", "unknown"]
Restart: TypeAlias = Literal["hung", "crashed"]

#: Seconds that an agent has one batch in hand: of one event on a quiet log it is a millisecond, of two thousand some
#: tens; what is longer waits for a store.
BATCH_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

#: What bounds the values of each label.
LABELS: Mapping[str, str] = {
    "agent": "the agents of `agents/`: five that fold, the archive, one for each forwarder that is set",
    "code": "status codes of HTTP; `none` where there was no answer",
    "dependency": "the servers and files of this process's settings",
    "group": "`rollups`, `archive`, and one for each forwarder that is set",
    "kind": "the kinds of probe: `ping`, `healthz`, `port`, `page`, `connections`, `queue`",
    "outcome": "of events: `folded`, `ignored`, `duplicate`, `late`, `dead`; of writes: `written`, `unavailable`, "
    "`refused`",
    "reason": "a fixed set of words",
    "region": "regions of the monitors that report, and `all`; services times regions are at most 1000",
    "result": "of checks: `up`, `down`, `measured`, `unknown`; of forwarding: `sent`, `doubtful`",
    "rollup": "the rollups of the contract",
    "service": "of a monitor: those of its configuration; of an agent: those that are reported, at most 1000 with "
    "their regions",
    "sink": "the kinds of sink",
    "tag": "the key tags of the rollup",
    "verdict": "what an answer can mean: `delivered`, `rejected`, `halve`, `held`, `later`, `doubtful`, `stopped`",
    "why": "`hung`, `crashed`",
}


class Metrics(Instruments):
    """The agents: what became of events, how far each agent is, what waits for a sink."""

    shown_by = ("up", "worker")

    # -- events --

    @counter(
        remedy="Of dead ones see `eventsink dead list`; of late and duplicate ones look at who sends them."
    )
    def events(self, *, group: str, agent: str, outcome: Outcome) -> None:
        """Events by what became of them, each once for each agent."""

    @counter(remedy="None. The sum of an agent's outcomes follows it.")
    def events_received(self, *, group: str) -> None:
        """Events that a group read, whatever became of them."""

    @gauge(remedy="Report it: anything but 0 is a fault of eventsink.")
    def ledger_imbalance_events(self, *, agent: str) -> None:
        """Events that an agent received, less the sum of its outcomes."""

    @counter(remedy="Set the clock of whoever sends them.")
    def events_skewed(self, *, group: str) -> None:
        """Events from more than five minutes ahead, which are placed at their arrival."""

    @counter(remedy="None: Clowder logs a download twice, and EVENTSINK_DOUBLED_DOWNLOADS_ONCE is set.")
    def downloads_doubled(self, *, group: str) -> None:
        """Downloads that were logged twice and are counted once, among the duplicates."""

    @counter(
        remedy="Run the worker, and keep the log longer: embedded by EVENTSINK_LOG_MAX_AGE and "
        "EVENTSINK_LOG_MAX_BYTES, on RabbitMQ by a policy for its queue (see LogCut in the runbook)."
    )
    def log_messages_cut(self, *, group: str) -> None:
        """Messages, at most, that retention took out of the log before the group read them."""

    @counter(remedy="Look at who sends so many values, or raise EVENTSINK_KEY_BUDGET.")
    def keys_over_budget(self, *, rollup: str, tag: str) -> None:
        """Keys with a value beyond the day's budget of the tag, which were folded into `other`."""

    @gauge(remedy="Look at the extractors: they took jobs and do not tell how those end.")
    def jobs_open_over_a_day(self, *, rollup: str) -> None:
        """Jobs of extractors that began over a day before the watermark and have not ended. Counted once a minute."""

    # -- agents --

    @gauge(remedy="At 0 look at the log: a vendor refuses everything, or the process stops with an error.")
    def agent_up(self, *, agent: str) -> None:
        """1 while the agent runs."""

    @gauge(
        remedy="Look for the line with the stack of its tasks in the log, restart the worker, and report it."
    )
    def agent_stuck(self, *, agent: str) -> None:
        """1 while the agent has made no progress for 45 s though the log goes on and nothing that it needs is away."""

    @gauge(
        remedy="If it grows, see whether a store is away or slow, or run the group in a worker of its own."
    )
    def agent_lag_events(self, *, agent: str) -> None:
        """Events in the log that the agent is not done with. Exact for what the group has read; a message that is not
        read yet counts as the mean of those that were, since nobody knows how many events are in it, and as one at
        first."""

    @gauge(remedy="As for `eventsink_agent_lag_events`.")
    def agent_lag_seconds(self, *, agent: str) -> None:
        """Age of the newest event in the batch that the agent folded last, 0 when it is at the end of the log. In a
        backlog of old events it is their age."""

    @gauge(remedy="If it stands still while events come, so does an agent of the group.")
    def watermark_seconds(self, *, agent: str) -> None:
        """Event time (Unix) up to which the agent's group believes to have seen everything."""

    @gauge(remedy="If it grows, the store of rows is away or slow: see `/readyz`.")
    def checkpoint_age_seconds(self, *, agent: str) -> None:
        """Time since the agent's position was saved; as old as the process before the first time."""

    @histogram(buckets=BATCH_BUCKETS_S, remedy="If it is long, the store of rows or the archive is slow.")
    def agent_batch_seconds(self, *, agent: str) -> None:
        """How long the agent had a batch in hand, as Faust's sensors see it. Its count is the number of batches."""

    @counter(remedy="None by itself: it says which groups are slower than what comes.")
    def group_buffer_full(self, *, group: str) -> None:
        """How often reading waited because an agent of the group had two batches waiting, as Faust's sensors see it."""

    # -- sinks and stores --

    @counter(
        remedy="See the log of the sink; a value that is refused is a dead letter: `eventsink dead list`."
    )
    def sink_writes(self, *, sink: str, outcome: Written) -> None:
        """Values written to, or refused by, a sink; of `unavailable`, tries."""

    @gauge(remedy="If it grows, the sink is away or slow: see its own log.")
    def sink_pending(self, *, sink: str) -> None:
        """Values that wait for the sink."""

    @gauge(remedy="Bring it back; nothing is lost meanwhile. `/readyz` says what it answered.")
    def dependency_away(self, *, dependency: str) -> None:
        """1 while a server or a file that the agents need does not answer, 0 while it does."""

    # -- services that monitors watch --

    @gauge(remedy="Look at the service, first in the regions that say 0.")
    def service_up(self, *, service: str, region: str) -> None:
        """1 if the results that hold now say up, 0 if any says down; region `all` is the majority of those known. Not
        exported while nothing is known, nor in maintenance."""

    @gauge(remedy="None. At 0 without `eventsink_service_up` no monitor reports any more.")
    def service_in_maintenance(self, *, service: str) -> None:
        """1 in announced maintenance, else 0; of services with a result in the last day."""

    # -- forwarders --

    @counter(remedy="Doubtful ones may have arrived, and are not sent twice: see the log for why.")
    def forwarded_events(self, *, agent: str, result: Forwarded) -> None:
        """Events that went to a vendor."""

    @counter(remedy="None: look at the selection and the sample of the forwarder if it is not what you want.")
    def forward_ignored_events(self, *, agent: str, reason: str) -> None:
        """Events that were not sent: of another type, left out by the sample, without consent, too old."""

    @counter(remedy="Look at the log when `later` or `stopped` rise.")
    def forward_requests(self, *, agent: str, verdict: str) -> None:
        """Requests to a vendor by what its answer meant."""

    @counter(remedy="None: the vendor throttles some user, the events of others go on.")
    def forward_held_events(self, *, agent: str) -> None:
        """Events that wait because the vendor throttles their user."""

    @gauge(remedy="If it stays at 20 000 (google: 1000) the vendor is slow: the agent reads no further.")
    def forward_pending_events(self, *, agent: str) -> None:
        """Events on their way to a vendor."""

    @gauge(remedy="See whether the vendor is reachable from here; its events are kept.")
    def forward_breaker_open(self, *, agent: str) -> None:
        """1 while a vendor failed so often that it is only tried now and then."""


class IngestMetrics(Instruments):
    """The emergency ingest: `POST /v1/events` and `POST /service`."""

    shown_by = ("up", "web")

    @counter(remedy="503: log and spool are away or full; 401: a wrong key; 429: a key that asks too often.")
    def ingest_requests(self, *, code: str) -> None:
        """Requests that brought events, by status."""

    @counter(remedy="Many `unknown`, or any `limited`: see who tries. `scope`: make the key that is needed.")
    def ingest_refused_keys(self, *, reason: str) -> None:
        """Requests that were not let in, by what is wrong with their key."""


class SpoolMetrics(Instruments):
    """What waits on the disk of the ingest for the broker. Not where the log is embedded."""

    shown_by = ("up", "web")

    @gauge(remedy="If they stay, bring the broker back.")
    def spool_events(self) -> None:
        """Accepted events that wait in the spool for the broker."""

    @gauge(
        remedy="Near `eventsink_spool_limit_bytes` bring the broker back or raise EVENTSINK_SPOOL_MAX_BYTES."
    )
    def spool_bytes(self) -> None:
        """Bytes of its file that the spool uses."""

    @gauge(remedy="None: it is EVENTSINK_SPOOL_MAX_BYTES.")
    def spool_limit_bytes(self) -> None:
        """Bytes at which the spool takes nothing more, and the ingest answers 503."""

    @gauge(remedy="As for `eventsink_spool_events`.")
    def spool_oldest_seconds(self) -> None:
        """How long the oldest event in the spool has waited; 0 where none does."""

    @gauge(remedy="Raise the broker's max_message_size and restart.")
    def spool_refused_events(self) -> None:
        """Accepted events that the broker never takes; they are kept in spool.db."""


class ConnectionMetrics(Instruments):
    """Connections of HTTP."""

    shown_by = ("up", "worker", "web", "monitor")

    @gauge(remedy="At EVENTSINK_WEB_MAX_CONNECTIONS further ones are refused.")
    def web_connections(self) -> None:
        """Connections to this process."""

    @counter(remedy="Raise EVENTSINK_WEB_MAX_CONNECTIONS, or see who holds them.")
    def web_connections_refused(self) -> None:
        """Connections answered with 503 because there were too many."""


class MonitorMetrics(Instruments):
    """A monitor: its checks, and what waits for the ingest."""

    shown_by = ("monitor",)

    @counter(remedy="Many `unknown`: the monitor lacks something, its log says what.")
    def monitor_checks(self, *, kind: str, service: str, result: Result) -> None:
        """Checks by result."""

    @gauge(remedy="At 0 look at the service.")
    def monitor_service_up(self, *, kind: str, service: str) -> None:
        """1 if the last check that could tell found the service up, 0 if down."""

    @gauge(remedy="Renew the certificate.")
    def monitor_certificate_days_left(self, *, kind: str, service: str) -> None:
        """Whole days until the certificate that the service shows ends; below 0 it has ended."""

    @counter(remedy="Report what the log says of them.")
    def monitor_probe_restarts(self, *, kind: str, service: str, why: Restart) -> None:
        """Probes that were built anew because they hung or crashed."""

    @counter(remedy="`none`: it does not answer; 401 and 403: mend the key; 5xx: see the ingest.")
    def monitor_posts(self, *, code: str) -> None:
        """Requests to the endpoint, by status."""

    @gauge(remedy="If they stay, bring the endpoint back or mend the key.")
    def monitor_outbox_events(self) -> None:
        """Results that wait for the endpoint."""

    @gauge(
        remedy="Near `eventsink_monitor_outbox_limit_bytes` bring the endpoint back or raise outbox_max_bytes."
    )
    def monitor_outbox_bytes(self) -> None:
        """Bytes of its file that the outbox uses."""

    @gauge(remedy="None: it is outbox_max_bytes.")
    def monitor_outbox_limit_bytes(self) -> None:
        """Bytes at which results are dropped."""

    @gauge(remedy="As for `eventsink_monitor_outbox_events`.")
    def monitor_outbox_oldest_seconds(self) -> None:
        """Age of the oldest result in the outbox, 0 where there is none."""

    @gauge(remedy="Raise outbox_max_bytes, or bring the endpoint back sooner.")
    def monitor_outbox_dropped_events(self) -> None:
        """Results dropped because the outbox was full, since its file was made."""

    @gauge(remedy="The monitor's log says why.")
    def monitor_outbox_refused_events(self) -> None:
        """Results that the endpoint will never take, since the file was made."""


#: All there are, in the order of the page.
EVERYTHING: Sequence[type[Instruments]] = (
    Metrics,
    IngestMetrics,
    SpoolMetrics,
    ConnectionMetrics,
    MonitorMetrics,
)
