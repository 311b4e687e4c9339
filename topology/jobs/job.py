"""Jobs: what extractors do, joined from events that come in any order.

    submitted ──▶ started ──▶ … ──▶ started ──▶ skipped | succeeded | failed
        │  wait      │ (retries)       │  runtime                │
        └────────────┘                 └─────────────────────────┘

A job has one end: the first skip, else the last success or failure. Its runtime is from the last start that is not
after the end, its wait from the first submission to the first start. What is kept of a job does not depend on the
order of its events, but for jobs without an id: those are told apart by what comes after what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from topology.position import Position
from topology.rollups.combining import QUANTILES, Combining
from topology.rollups.measures import EventType
from topology.rollups.tags import SEPARATOR
from topology.windows import WINDOWS, Tumbling

#: Starts that are kept of one job. Beyond, its runtime may come to depend on their order.
MOST_STARTS = 1000

OUTCOMES = ("succeeded", "failed", "skipped")

#: What the sink is told of a window, in this order.
FIELDS = (
    "submitted",
    "started",
    "succeeded",
    "failed",
    "skipped",
    "retried",
    "runtime_s_count",
    "runtime_s_sum",
    "runtime_s_min",
    "runtime_s_max",
    "runtime_s_p50",
    "runtime_s_p95",
    "runtime_s_p99",
    "wait_s_count",
    "wait_s_sum",
    "wait_s_p50",
    "wait_s_p95",
)


COMBINING: Mapping[str, Combining] = {
    **dict.fromkeys(FIELDS, QUANTILES),
    **{field: "sum" for field in FIELDS if field.endswith(("_count", "_sum")) or "_s_" not in field},
    "runtime_s_min": "min",
    "runtime_s_max": "max",
}


class JobRollup:
    """A declaration: which events make the jobs of ``key``. The measures are always the same (``FIELDS``).

    Each event has ``job_id`` (or ``resource_id`` in its place), the field ``key``, and ``clock_ms``, its producer's own
    clock, which is right within one job only.
    """

    #: A job that turns out to end later is taken out of its window. Zeros are then left in the sink.
    retracts = True
    together: Mapping[str, str] = {}
    combining = COMBINING

    def __init__(
        self,
        name: str,
        *,
        key: str,
        submitted: EventType,
        started: EventType,
        retried: EventType,
        succeeded: EventType,
        failed: EventType,
        skipped: EventType,
        progressed: EventType,
    ) -> None:
        self.name = name
        self.key: tuple[str, ...] = (key,)
        self.fields: tuple[str, ...] = FIELDS
        self.windows: Mapping[str, Tumbling] = {window.name: window for window in WINDOWS}
        self.budgeted = [key]
        self.submitted = submitted
        self.started = started
        #: Those that are counted in the window of their own time, and in which column.
        self.counted: Mapping[EventType, int] = {submitted: 0, started: 1, retried: 2}
        #: Those that end a job: the outcome, and the rank among ends at the same time.
        self.ends: Mapping[EventType, int] = {succeeded: 0, failed: 1, skipped: 2}
        self.types: frozenset[EventType] = frozenset({*self.counted, *self.ends, progressed})
        #: Entries and counts by minute; what is known of each job.
        self.minutes = f"{name}/1m"
        self.jobs = f"{name}/jobs"


class Mark(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """When something happened: where it is placed in time, and its producer's own clock (-1: not given)."""

    time_ms: int
    clock_ms: int


class End(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """How and when a job ended, and the key tag under which it is counted. Ordered by time, then failed before
    succeeded."""

    time_ms: int
    rank: int
    clock_ms: int
    outcome: int
    tag: str

    @property
    def at(self) -> Mark:
        return Mark(self.time_ms, self.clock_ms)


class Placed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the entry of a job is: minute (epoch seconds), joined key tags."""

    minute: int
    key: str


class Job(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What is known of a job. ``first``: the position of its first event. ``named``: it has an id."""

    named: bool
    first: int
    latest_ms: int = 0
    submitted: Mark | None = None
    starts: tuple[Mark, ...] = ()
    ended: End | None = None
    skipped: End | None = None

    @property
    def end(self) -> End | None:
        """The one that counts."""
        return self.ended if self.skipped is None else self.skipped

    @property
    def placed(self) -> Placed | None:
        """Where its entry belongs."""
        end = self.end
        return None if end is None else Placed(end.time_ms // 60_000 * 60, end.tag)

    @property
    def open(self) -> bool:
        """Whether it is at work, or waits for it, as far as is known. A submission without an id is followed by nothing
        where extractors name their jobs."""
        return self.end is None and (self.named or bool(self.starts))


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job in the minute in which it ended. ``runtime_us`` and ``wait_us``: None where a part of it is unknown."""

    outcome: int
    runtime_us: int | None
    wait_us: int | None


class JobTable:
    """How jobs are stored."""

    _encode = msgspec.msgpack.Encoder().encode
    _decode = msgspec.msgpack.Decoder(Job | None).decode

    def empty(self) -> None:
        return None

    def pack(self, job: Job | None) -> bytes:
        return self._encode(job)

    def unpack(self, packed: bytes) -> Job | None:
        job: Job | None = self._decode(packed)
        return job

    def weight(self, job: Job | None) -> int:
        return 600 if job is None else 600 + 120 * len(job.starts)


def job_key(event: Any, tag: str) -> tuple[str, bool]:
    """By what the job of an event is known, and whether that is an id of its own."""
    if event.job_id:
        return _hashed("id", event.job_id), True
    return _hashed("resource", event.resource_id or "", tag), False


def entry_id(key: str, job: Job) -> bytes:
    """By what the entry of a job is known in its minute."""
    named = key if job.named else f"{key}{SEPARATOR}{job.first}"
    return hashlib.blake2b(named.encode(), digest_size=12).digest()


def _hashed(*parts: str) -> str:
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def begins_another(rollup: JobRollup, job: Job, kind: EventType) -> bool:
    """Whether an event of this kind belongs to the next job of the same key: where jobs have no id, a submission or a
    start that follows an end."""
    return not job.named and job.end is not None and kind in (rollup.submitted, rollup.started)


def with_event(rollup: JobRollup, job: Job, event: Any, time_ms: int, tag: str) -> Job:
    """The job with one more event in it, whose key tags are ``tag``."""
    kind = type(event)
    clock_ms = event.clock_ms
    mark = Mark(time_ms, -1 if clock_ms is None else clock_ms)
    latest = max(job.latest_ms, time_ms)
    if kind is rollup.submitted:
        first = mark if job.submitted is None else min(job.submitted, mark)
        return msgspec.structs.replace(job, latest_ms=latest, submitted=first)
    if kind is rollup.started:
        starts = job.starts if mark in job.starts else tuple(sorted((*job.starts, mark)))
        if len(starts) > MOST_STARTS:
            starts = (starts[0], *starts[2:])
        return msgspec.structs.replace(job, latest_ms=latest, starts=starts)
    outcome = rollup.ends.get(kind)
    if outcome is None:
        return msgspec.structs.replace(job, latest_ms=latest)
    end = End(time_ms, -outcome, mark.clock_ms, outcome, tag)
    if OUTCOMES[outcome] == "skipped":
        skipped = end if job.skipped is None else min(job.skipped, end)
        return msgspec.structs.replace(job, latest_ms=latest, skipped=skipped)
    ended = end if job.ended is None else max(job.ended, end)
    return msgspec.structs.replace(job, latest_ms=latest, ended=ended)


def entry(job: Job) -> Entry | None:
    """What is counted of a job in the minute of its end; None while it has none."""
    end = job.end
    if end is None:
        return None
    since = [ms for start in job.starts if (ms := _between(start, end.at)) >= 0]
    wait_ms = None
    if job.submitted is not None and job.starts:
        # A start is told in whole seconds, a submission in milliseconds: 0.4 s before it is at once.
        wait_ms = max(0, _between(job.submitted, min(job.starts)))
    return Entry(
        end.outcome,
        min(since) * 1000 if since else None,
        None if wait_ms is None else wait_ms * 1000,
    )


def _between(earlier: Mark, later: Mark) -> int:
    """Milliseconds from one to the other: by the producer's own clock where both have it."""
    if earlier.clock_ms >= 0 and later.clock_ms >= 0:
        return later.clock_ms - earlier.clock_ms
    return later.time_ms - earlier.time_ms


def new_job(position: Position, *, named: bool) -> Job:
    """A job of which nothing is known yet but the position of its first event."""
    # Jobs with an id are the same whichever of their events comes first.
    return Job(named=named, first=0 if named else position)
