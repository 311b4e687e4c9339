"""Jobs: one end each, told from events in any order; and the minutes in which they end."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.extractions import extractor_runtime
from schemas.events import (
    Extraction,
    ExtractionFailed,
    ExtractionProgressed,
    ExtractionRetried,
    ExtractionSkipped,
    ExtractionStarted,
    ExtractionSubmitted,
    ExtractionSucceeded,
)
from topology.jobs.job import (
    MOST_STARTS,
    OUTCOMES,
    Entry,
    Job,
    JobTable,
    Placed,
    begins_another,
    entry,
    entry_id,
    job_key,
    new_job,
    with_event,
)
from topology.jobs.minutes import NOTHING, JobMinute, JobMinuteTable, fields, merge, summary
from topology.position import NOWHERE, position

#: A midnight.
MIDNIGHT_S = 1_795_478_400

Told: TypeAlias = tuple[float, Extraction]


def event(kind: type[Extraction], at: float, *, clock: float | None = None, **fields: Any) -> Told:
    """``at`` and ``clock`` in seconds after midnight."""
    clock_ms = None if clock is None else ms(clock)
    given = {"job_id": "j", "extractor": "e"} | fields
    return at, kind(time=ms(at), clock_ms=clock_ms, **given)


def ms(seconds: float) -> int:
    return MIDNIGHT_S * 1000 + round(seconds * 1000)


def submitted(at: float, **fields: Any) -> Told:
    return event(ExtractionSubmitted, at, **fields)


def started(at: float, **fields: Any) -> Told:
    return event(ExtractionStarted, at, **fields)


def succeeded(at: float, **fields: Any) -> Told:
    return event(ExtractionSucceeded, at, **fields)


def failed(at: float, **fields: Any) -> Told:
    return event(ExtractionFailed, at, **fields)


def skipped(at: float, **fields: Any) -> Told:
    return event(ExtractionSkipped, at, **fields)


def job_of(events: Iterable[Told], *, named: bool = True) -> Job:
    job = new_job(position(0, 0), named=named)
    for at, each in events:
        job = with_event(extractor_runtime, job, each, ms(at), each.extractor)
    return job


def told(events: Sequence[Told]) -> tuple[str, float | None, float | None, float] | None:
    """(outcome, runtime in s, wait in s, second of the end) in the order given and backwards."""
    job = job_of(events)
    assert job_of(events[::-1]) == job
    it, end = entry(job), job.end
    if it is None or end is None:
        assert it is None
        assert end is None
        return None
    runtime_s, wait_s = (None if us is None else us / 1e6 for us in (it.runtime_us, it.wait_us))
    return OUTCOMES[it.outcome], runtime_s, wait_s, (end.time_ms - ms(0)) / 1000


JOBS = [
    # s submitted   > started   r retried   . progressed   + succeeded   - failed   ~ skipped
    #
    # 0   5      12
    # s---|      |        wait 5
    #     >------+        runtime 7
    ("a job", [submitted(0), started(5), succeeded(12)], ("succeeded", 7, 5, 12)),
    ("one that fails", [submitted(0), started(5), failed(12)], ("failed", 7, 5, 12)),
    # s---.---r---.       it has no end, so it is counted nowhere
    (
        "one that is at work",
        [submitted(0), event(ExtractionProgressed, 1), event(ExtractionRetried, 2), started(3)],
        None,
    ),
    # s   >   >---+       from the last start, from the first submission to the first start
    (
        "one that was tried again",
        [submitted(0), started(4), started(9), succeeded(12)],
        ("succeeded", 3, 4, 12),
    ),
    # >   +   >           a start after the end is none of this attempt
    (
        "one that was started after its end",
        [started(4), succeeded(9), started(12)],
        ("succeeded", 5, None, 9),
    ),
    # >---->              at the time of the end it is: 0 s
    ("one that took no time", [started(4), succeeded(4)], ("succeeded", 0, None, 4)),
    # >---~  +            the skip is its end, done follows and changes nothing
    ("one that is skipped, then done", [started(4), skipped(7), succeeded(8)], ("skipped", 3, None, 7)),
    # +   ~               even a later one
    ("one that is done, then skipped", [started(4), succeeded(7), skipped(9)], ("skipped", 5, None, 9)),
    # ~  ~                and the first one
    ("one that is skipped twice", [skipped(7), skipped(9)], ("skipped", None, None, 7)),
    # >---+  +            the last success or failure
    ("one that succeeds twice", [started(4), succeeded(7), succeeded(9)], ("succeeded", 5, None, 9)),
    # >---+  -            the success is taken back
    ("one that fails after it succeeded", [started(4), succeeded(7), failed(9)], ("failed", 5, None, 9)),
    # >---=               a success outranks a failure of the same time
    ("one that does both at once", [started(4), failed(9), succeeded(9)], ("succeeded", 5, None, 9)),
    # s  s  >             the first submission
    ("one that is submitted twice", [submitted(0), submitted(2), started(5), failed(6)], ("failed", 1, 5, 6)),
    # >s                  a start is told in whole seconds, a submission in milliseconds
    ("one that starts before it is submitted", [submitted(4.4), started(4), failed(6)], ("failed", 2, 0, 6)),
    # s        +          what is not known is not counted
    ("one that nobody saw start", [submitted(0), succeeded(9)], ("succeeded", None, None, 9)),
    # time    s4   >5      +20
    # clock        >1005   +1012                  the producer's own clock tells 7 s
    (
        "one whose producer has a clock",
        [started(5, clock=1005), succeeded(20, clock=1012)],
        ("succeeded", 7, None, 20),
    ),
    # only one of both: by time
    (
        "one that has a clock at its end only",
        [started(5), succeeded(20, clock=1012)],
        ("succeeded", 15, None, 20),
    ),
]


@pytest.mark.parametrize(("events", "expected"), [case[1:] for case in JOBS], ids=[case[0] for case in JOBS])
def test_a_job(events: list[Told], expected: tuple[str, float, float, float] | None) -> None:
    assert told(events) == expected


EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from(sorted(extractor_runtime.types, key=str)),
        st.integers(0, 20),
        clock=st.none() | st.integers(1000, 1010),
        extractor=st.sampled_from("ef"),
    ),
    max_size=12,
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_what_is_known_of_a_job_does_not_depend_on_order_or_repetition(
    events: list[Told], shuffle: random.Random
) -> None:
    job = job_of(events)
    shuffled = [*events, *events[:3]]
    shuffle.shuffle(shuffled)
    other = job_of(shuffled)
    assert other == job
    assert entry(other) == entry(job)
    table = JobTable()
    assert table.unpack(table.pack(job)) == job


def test_the_end_that_counts_says_where_the_job_is_placed() -> None:
    #        0        60       120
    # e      |   +    |        |        placed in minute 0 under e
    # e2     |        |    -   |        then in minute 1 under e2
    job = job_of([succeeded(30)])
    assert job.placed == Placed(MIDNIGHT_S, "e")
    job = with_event(extractor_runtime, job, failed(90, extractor="e2")[1], ms(90), "e2")
    assert job.placed == Placed(MIDNIGHT_S + 60, "e2")


def test_a_job_with_an_id_is_the_same_whatever_comes_after_its_end() -> None:
    job = job_of([succeeded(9)])
    assert not begins_another(extractor_runtime, job, ExtractionStarted)


def test_without_an_id_a_start_or_a_submission_after_an_end_begins_the_next_job() -> None:
    # +  >    and  +  s,   but not  >  >,   nor  +  -
    ended = job_of([started(1), succeeded(9)], named=False)
    begins = {
        kind.__name__ for kind in extractor_runtime.types if begins_another(extractor_runtime, ended, kind)
    }
    assert begins == {"ExtractionStarted", "ExtractionSubmitted"}
    assert not begins_another(extractor_runtime, job_of([started(1)], named=False), ExtractionStarted)


def test_jobs_are_told_apart_by_their_id_else_by_resource_and_extractor() -> None:
    def key(**fields: Any) -> tuple[str, bool]:
        return job_key(started(0, **fields)[1], "e")

    assert key() == key(resource_id="r")
    assert key() != key(job_id="k")
    assert key(job_id=None, resource_id="r") != key(job_id="r")
    assert key(job_id=None, resource_id="r") != key(job_id=None, resource_id="q")
    assert [key()[1], key(job_id=None)[1]] == [True, False]


def test_entries_of_jobs_without_an_id_are_told_apart_by_their_first_event() -> None:
    jobs = [new_job(position(0, offset), named=named) for named in (True, False) for offset in (1, 2)]
    named, also_named, one, other = (entry_id("key", job) for job in jobs)
    assert named == also_named
    assert len({named, one, other}) == 3


def test_a_job_is_open_while_it_has_no_end_and_somebody_is_at_it() -> None:
    assert job_of([submitted(0)]).open
    assert not job_of([submitted(0), failed(1)]).open
    # Extractors that name their jobs follow a submission without an id by nothing.
    assert not job_of([submitted(0)], named=False).open
    assert job_of([submitted(0), started(1)], named=False).open


def test_of_many_starts_the_first_and_the_last_ones_are_kept() -> None:
    job = job_of([started(at) for at in range(MOST_STARTS + 5)])
    assert len(job.starts) == MOST_STARTS
    assert job.starts[0].time_ms == ms(0)
    assert job.starts[-1].time_ms == ms(MOST_STARTS + 4)
    assert JobTable().weight(job) > 100_000


def test_a_job_of_which_nothing_is_stored_is_none() -> None:
    table = JobTable()
    assert table.unpack(table.pack(None)) is None
    assert new_job(NOWHERE, named=True).end is None


# -- minutes --

ENTRIES = st.builds(
    Entry,
    st.integers(0, 2),
    st.none() | st.integers(0, 10**10),
    st.none() | st.integers(0, 10**10),
)
MINUTES = st.lists(
    st.builds(
        JobMinute,
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
        st.dictionaries(st.binary(min_size=12, max_size=12), ENTRIES, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@given(MINUTES, st.randoms(use_true_random=False))
def test_minutes_merge_to_what_one_minute_of_all_of_it_is(
    minutes: list[JobMinute], shuffle: random.Random
) -> None:
    table = JobMinuteTable()
    everything = JobMinute(
        (
            sum(minute.counted[0] for minute in minutes),
            sum(minute.counted[1] for minute in minutes),
            sum(minute.counted[2] for minute in minutes),
        ),
        {bytes([at]) + name: it for at, minute in enumerate(minutes) for name, it in minute.entries.items()},
    )
    parts = [summary(table.unpack(table.pack(minute))) for minute in minutes]
    shuffle.shuffle(parts)
    nested = merge([merge(parts[:2]), *parts[2:]])
    assert fields(merge(parts)) == fields(nested) == fields(summary(everything))


def test_of_nothing_there_is_no_smallest_and_no_quantile() -> None:
    counts = ["submitted", "started", "succeeded", "failed", "skipped", "retried"]
    of_times = ["runtime_s_count", "runtime_s_sum", "wait_s_count", "wait_s_sum"]
    assert fields(summary(NOTHING)) == dict.fromkeys([*counts, *of_times], 0)


def test_a_minute_tells_its_jobs() -> None:
    # runtimes 1 s, 2 s, 4 s, of a fourth job it is not known; index ⌊0.5 · 2⌋ = 1 of three
    runtimes_us = [1_000_000, 4_000_000, None, 2_000_000]
    entries = {bytes([at]) * 12: Entry(at % 3, us, None) for at, us in enumerate(runtimes_us)}
    row = fields(summary(JobMinute((4, 5, 6), entries)))
    assert [row[name] for name in ("submitted", "started", "retried")] == [4, 5, 6]
    assert [row[name] for name in ("succeeded", "failed", "skipped")] == [2, 1, 1]
    assert [row[f"runtime_s_{name}"] for name in ("count", "sum", "min", "max")] == [3, 7, 1, 4]
    assert row["runtime_s_p50"] == pytest.approx(2, rel=0.01)
    assert row["runtime_s_p99"] == pytest.approx(2, rel=0.01)  # index ⌊0.99 · 2⌋ = 1
    assert row["wait_s_count"] == 0
