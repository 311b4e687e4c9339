"""What ended in a minute, by job, and what such minutes add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from topology.jobs.job import Entry
from topology.rollups.quantiles import EMPTY, Sketch, merged, quantile, sketch
from topology.sinks import Value


class JobMinute(msgspec.Struct, frozen=True, array_like=True):
    """``counted``: submitted, started, retried. An entry can be taken back, so each job is kept by itself."""

    counted: tuple[int, int, int] = (0, 0, 0)
    entries: dict[bytes, Entry] = {}

    @property
    def events(self) -> int:
        """At least so many events are in it."""
        return sum(self.counted) + len(self.entries)


NOTHING = JobMinute()
#: Of an entry in a dict (measured with tracemalloc).
_ENTRY_WEIGHT_BYTES = 260


class JobMinuteTable:
    """How minutes of jobs are stored."""

    _encode = msgspec.msgpack.Encoder().encode
    _decode = msgspec.msgpack.Decoder(JobMinute).decode

    def empty(self) -> JobMinute:
        return NOTHING

    def pack(self, minute: JobMinute) -> bytes:
        return self._encode(minute)

    def unpack(self, packed: bytes) -> JobMinute:
        return self._decode(packed)

    def weight(self, minute: JobMinute) -> int:
        return 300 + _ENTRY_WEIGHT_BYTES * len(minute.entries)


class Times(NamedTuple):
    """Durations, as they merge. ``sum_us`` is of integers: it does not depend on order."""

    number: int = 0
    sum_us: int = 0
    min_us: int | None = None
    max_us: int | None = None
    seconds: Sketch = EMPTY


class JobSummary(NamedTuple):
    """What a window of any size is told by."""

    counted: tuple[int, ...]
    outcomes: tuple[int, ...]
    runtime: Times
    wait: Times


def summary(minute: JobMinute) -> JobSummary:
    """Of one minute."""
    entries = minute.entries.values()
    outcomes = [0, 0, 0]
    for each in entries:
        outcomes[each.outcome] += 1
    return JobSummary(
        minute.counted,
        tuple(outcomes),
        _times([each.runtime_us for each in entries]),
        _times([each.wait_us for each in entries]),
    )


def merge(many: Sequence[JobSummary]) -> JobSummary:
    """Of several."""
    return JobSummary(
        tuple(map(sum, zip(*(each.counted for each in many), strict=True))),
        tuple(map(sum, zip(*(each.outcomes for each in many), strict=True))),
        _merged([each.runtime for each in many]),
        _merged([each.wait for each in many]),
    )


def fields(window: JobSummary) -> Mapping[str, Value]:
    """What the sink is told. The smallest, the largest and the quantiles of nothing are left out."""
    submitted, started, retried = window.counted
    succeeded, failed, skipped = window.outcomes
    runtime, wait = window.runtime, window.wait
    told: dict[str, Value | None] = {
        "submitted": submitted,
        "started": started,
        "succeeded": succeeded,
        "failed": failed,
        "skipped": skipped,
        "retried": retried,
        "runtime_s_count": runtime.number,
        "runtime_s_sum": runtime.sum_us / 1e6,
        "runtime_s_min": None if runtime.min_us is None else runtime.min_us / 1e6,
        "runtime_s_max": None if runtime.max_us is None else runtime.max_us / 1e6,
        "runtime_s_p50": _quantile(runtime, 50),
        "runtime_s_p95": _quantile(runtime, 95),
        "runtime_s_p99": _quantile(runtime, 99),
        "wait_s_count": wait.number,
        "wait_s_sum": wait.sum_us / 1e6,
        "wait_s_p50": _quantile(wait, 50),
        "wait_s_p95": _quantile(wait, 95),
    }
    return {name: value for name, value in told.items() if value is not None}


def _quantile(times: Times, per_cent: int) -> float | None:
    found = quantile(times.seconds, per_cent)
    if found is None or times.min_us is None or times.max_us is None:
        return None
    # A sketch is off by up to 1 %. A median below the minimum, beside it, looks like a fault.
    return min(max(found, times.min_us / 1e6), times.max_us / 1e6)


def _times(durations: Sequence[int | None]) -> Times:
    known = [us for us in durations if us is not None]
    if not known:
        return Times()
    return Times(len(known), sum(known), min(known), max(known), sketch(us / 1e6 for us in known))


def _merged(many: Sequence[Times]) -> Times:
    some = [each for each in many if each.number]
    if len(some) < 2:
        return some[0] if some else Times()
    return Times(
        sum(each.number for each in some),
        sum(each.sum_us for each in some),
        min(each.min_us for each in some if each.min_us is not None),
        max(each.max_us for each in some if each.max_us is not None),
        merged([each.seconds for each in some]),
    )
