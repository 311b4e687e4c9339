"""Streams of canonical events for hypothesis: small ones in which everything odd happens close together.

Times lie in any order, on edges of windows, at the same millisecond, days late. An event that says source, id and
time may be repeated, and no other event has the same three. Ends, starts and their clocks are made so that
the numbers of a job with an id do not depend on the order of its events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st

from schemas.events import (
    MAX_COUNT,
    ConnectionsCounted,
    Event,
    Extraction,
    ExtractionFailed,
    ExtractionProgressed,
    ExtractionRetried,
    ExtractionSkipped,
    ExtractionStarted,
    ExtractionSubmitted,
    ExtractionSucceeded,
    FileDeleted,
    FileUploaded,
    LoggedIn,
    MaintenanceEnded,
    MaintenanceStarted,
    OutageStarted,
    PageFetched,
    PageViewed,
    Pinged,
    QueueMeasured,
    ResourceCreated,
    ResourceDownloaded,
    ResourceViewed,
    ResponseTimes,
    SignedUp,
)
from schemas.times import from_rfc3339

Strategy: TypeAlias = st.SearchStrategy[Any]

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000

#: Where streams may begin: before a leap second, at both changes of European summer time, on a leap day, at a
#: turn of the year, and on an ordinary day.
STARTS_MS = tuple(
    ms
    for text in (
        "2026-11-24T09:30:00Z",
        "2016-12-31T23:59:59Z",
        "2025-03-30T01:00:00Z",
        "2025-10-26T00:59:59.999Z",
        "2024-02-29T12:00:00Z",
        "2024-12-31T23:58:00Z",
    )
    if (ms := from_rfc3339(text)) is not None
)

# What is missing, empty, unfit or too long shows how tags are made: the three `a…b` are one tag, and so are the `x`.
_SPACES = [None, "", "s1", "s2", "a\\b", "a_b", "a\tb", "x" * 300, "x" * 256]
_SERVICES = ["clowder", "mongo"]
_REGIONS = ["eu", "us", "ap"]
_USERS = [None, "u1", "u2", "u3", "0" * 24]
_EXTRACTORS = ["wordcount", "digest"]
_ENDS = (ExtractionSucceeded, ExtractionFailed, ExtractionSkipped)
_HAS_CLOCK = "clock_ms" in Extraction.__struct_fields__


def starts() -> st.SearchStrategy[int]:
    """One of ``STARTS_MS``."""
    return st.sampled_from(STARTS_MS)


def streams(
    start_ms: int, *, wide: bool = False, jobs_without_id: bool = True
) -> st.SearchStrategy[list[Event]]:
    """Lists of at most 40 events, or 400 if ``wide``, most of them within minutes of ``start_ms``.

    ``jobs_without_id`` false leaves out the events whose order matters: then any permutation of a list must
    give the same rows.
    """
    most, repeats = (300, 100) if wide else (30, 10)

    def of_size(least: int) -> st.SearchStrategy[list[Event]]:
        themes = _events(start_ms, jobs_without_id=jobs_without_id)
        return st.one_of([st.lists(events, min_size=least, max_size=most) for events in themes])

    # Left alone, hypothesis makes short lists, in which little meets.
    sizes = st.integers(0, most).flatmap(of_size)
    return sizes.flatmap(lambda events: _repeated(_told_apart(events), at_most=repeats))


def _told_apart(events: Iterable[Event]) -> list[Event]:
    """Without an event that claims to be another one."""
    seen: set[tuple[str | None, str, int | None]] = set()
    kept = []
    for event in events:
        if event.id is not None:
            if (event.source, event.id, event.time) in seen:
                continue
            seen.add((event.source, event.id, event.time))
        kept.append(event)
    return kept


def _repeated(events: list[Event], *, at_most: int) -> st.SearchStrategy[list[Event]]:
    """The same, with some of those that have an id inserted again anywhere."""
    with_id = [event for event in events if event.id is not None]
    if not with_id:
        return st.just(events)
    repeats = st.lists(
        st.tuples(st.integers(0, len(events)), st.sampled_from(with_id)), max_size=min(at_most, len(events))
    )

    def with_repeats(chosen: list[tuple[int, Event]]) -> list[Event]:
        result = list(events)
        for at, event in sorted(chosen, key=lambda pair: -pair[0]):
            result.insert(at, event)
        return result

    return repeats.map(with_repeats)


# -- time --


def _times(start_ms: int, *, days_late: int, day_edges: bool = True) -> st.SearchStrategy[int]:
    """Mostly within two minutes on a grid that makes equal times likely; edges of windows, and late ones."""

    def edges(size_ms: int, before: int, after: int) -> st.SearchStrategy[int]:
        return st.builds(
            lambda window, offset: start_ms // size_ms * size_ms + window * size_ms + offset,
            st.integers(-before, after),
            st.sampled_from([0, -1, 1]),
        )

    def after(instant_ms: int) -> st.SearchStrategy[int]:
        return st.integers(0, 24).map(lambda steps: instant_ms + 5000 * steps)

    choices = [
        after(start_ms),
        after(start_ms),
        st.integers(0, 5 * MINUTE_MS).map(lambda ms: start_ms + ms),
        edges(MINUTE_MS, 2, 5),
        edges(HOUR_MS, 1, 2),
    ]
    if day_edges:
        choices.append(edges(DAY_MS, 0, 1))
    if days_late:
        choices.append(st.integers(1, days_late).flatmap(lambda days: after(start_ms - days * DAY_MS)))
    return st.one_of(choices)


# -- events --


def _events(start_ms: int, *, jobs_without_id: bool) -> Sequence[st.SearchStrategy[Event]]:
    """What a stream may be about: everything, or what meets only if there is enough of it."""
    far, near = _times(start_ms, days_late=5), _times(start_ms, days_late=0)
    # Each day between the first result and the last is 1440 rows a region: only now and then is it that far.
    close, a_day_away = _times(start_ms, days_late=0, day_edges=False), _times(start_ms, days_late=1)
    results = st.integers(0, 9).flatmap(lambda one: a_day_away if one == 9 else close)
    health = st.one_of(_results(results), _results(close), _results(close), _maintenance(far))
    jobs = st.one_of([_jobs(times, jobs_without_id=jobs_without_id) for times in (near, near, far)])
    rest = st.one_of(_files(far), _traffic(far), _activity(far), _measurements(far))
    return [st.one_of(rest, jobs, health), jobs, jobs, health, health, rest]


def _event(kind: type[Event], times: st.SearchStrategy[int], **fields: Strategy) -> st.SearchStrategy[Event]:
    ids = st.sampled_from([None, None, "1", "2", "3", "4", "5", "6"])
    common: dict[str, Strategy] = {"time": times, "id": ids, "source": st.sampled_from([None, "there"])}
    return st.builds(kind, **common, **fields)


def _counts() -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([0, 1, MAX_COUNT]), st.integers(0, 10**6), st.integers(0, MAX_COUNT))


def _milliseconds() -> st.SearchStrategy[float]:
    """Whole microseconds."""
    return st.integers(0, 5_000_000).map(lambda microseconds: microseconds / 1000)


def _files(times: st.SearchStrategy[int]) -> st.SearchStrategy[Event]:
    fields = {"file_id": st.just("f"), "space_id": st.sampled_from(_SPACES), "bytes": _counts()}
    return _event(FileUploaded, times, **fields) | _event(FileDeleted, times, **fields)


def _traffic(times: st.SearchStrategy[int]) -> st.SearchStrategy[Event]:
    users = st.sampled_from(_USERS)
    resource = {
        "resource_type": st.sampled_from(["file", "dataset", ""]),
        "resource_id": st.just("r"),
        "space_id": st.sampled_from(_SPACES[:4]),
        "user_id": users,
    }
    sizes = {"bytes": st.none() | _counts(), "items": st.none() | _counts()}
    return st.one_of(
        _event(PageViewed, times, url=st.just("/"), user_id=users),
        _event(ResourceViewed, times, **resource),
        _event(ResourceDownloaded, times, **resource, **sizes),
    )


def _activity(times: st.SearchStrategy[int]) -> st.SearchStrategy[Event]:
    users = st.sampled_from(_USERS)
    made = {"resource_type": st.just("dataset"), "resource_id": st.just("r")}
    return st.one_of(
        _event(SignedUp, times, user_id=users),
        _event(LoggedIn, times, user_id=users),
        _event(ResourceCreated, times, user_id=users, **made),
    )


def _jobs(times: st.SearchStrategy[int], *, jobs_without_id: bool) -> st.SearchStrategy[Event]:
    jobs = ["plain", "shifted", "clocked", "partly clocked"]
    return st.builds(
        _of_job,
        st.sampled_from(
            [
                *[ExtractionSubmitted] * 3,
                *[ExtractionStarted] * 4,
                *[ExtractionSucceeded] * 2,
                ExtractionFailed,
                ExtractionSkipped,
                ExtractionRetried,
                ExtractionProgressed,
            ]
        ),
        st.sampled_from([*jobs, None]) if jobs_without_id else st.sampled_from(jobs),
        st.sampled_from(_EXTRACTORS),
        st.sampled_from(["f1", "f1", None]),
        times,
        st.sampled_from([None, None, "1", "2", "3"]),
    )


def _of_job(
    kind: type[Extraction],
    job_id: str | None,
    extractor: str,
    resource_id: str | None,
    time: int,
    id: str | None,
) -> Event:
    if job_id is not None and issubclass(kind, _ENDS):
        # Which of two ends at the same instant names the extractor is nobody's promise.
        extractor = _EXTRACTORS[len(job_id) % 2]
    fields: dict[str, Any] = {"job_id": job_id, "extractor": extractor, "resource_id": resource_id}
    clock_ms = _clock_ms(kind, job_id, time)
    if _HAS_CLOCK and clock_ms is not None:
        fields["clock_ms"] = clock_ms
    return kind(time=time, id=id, **fields)


def _clock_ms(kind: type[Extraction], job_id: str | None, time: int) -> int | None:
    """What the extractor's clock said: a matter of job, kind and time, so that no two like events disagree.

    ``shifted``: the right time in a wrong zone. ``clocked``: starts and ends came with different delays, so that
    their order by clock is not that of their times; ``partly clocked``: some of them do not say.
    """
    if job_id == "shifted":
        return time + 5 * HOUR_MS
    told = job_id == "clocked" or (job_id == "partly clocked" and time % 2 == 0)
    if not told or not issubclass(kind, (ExtractionStarted, *_ENDS)):
        return None
    delay_ms = (time // 1000 * 7919 + len(kind.__name__) * 4_001) % 20_000
    return (time - delay_ms) // 1000 * 1000 + HOUR_MS // 2


def _results(times: st.SearchStrategy[int]) -> st.SearchStrategy[Event]:
    where = {
        "service": st.sampled_from(_SERVICES[:1] * 3 + _SERVICES[1:]),
        "region": st.sampled_from(_REGIONS),
    }
    valid_for_s = st.sampled_from([120.0, 1.0, 2.5, 60.0, 3600.0]) | st.integers(1, 3600).map(float)
    optional = st.none() | _milliseconds()
    response_ms = st.none() | st.builds(ResponseTimes, min=optional, avg=optional, max=optional)
    common = {**where, "up": st.booleans(), "valid_for_s": valid_for_s}
    checks = st.sampled_from([None, "ping", "healthz", "port"])
    pages = {"status": st.none() | st.just(200), "bytes": st.none() | _counts(), "elapsed_ms": optional}
    return st.one_of(
        _event(Pinged, times, **common, check=st.none(), response_ms=response_ms),
        _event(Pinged, times, **common, check=checks, response_ms=response_ms),
        _event(PageFetched, times, **common, **pages),
    )


def _maintenance(times: st.SearchStrategy[int]) -> st.SearchStrategy[Event]:
    services = st.sampled_from(_SERVICES)
    kinds = (MaintenanceStarted, MaintenanceEnded, OutageStarted)
    return st.one_of([_event(kind, times, service=services) for kind in kinds])


def _measurements(times: st.SearchStrategy[int]) -> st.SearchStrategy[Event]:
    services = st.sampled_from(_SERVICES)
    regions = st.sampled_from([None, *_REGIONS[:2]])
    queues = st.sampled_from(["extractors", ""])
    return st.one_of(
        _event(ConnectionsCounted, times, service=services, region=regions, connections=_counts()),
        _event(QueueMeasured, times, service=services, queue=queues, messages=_counts()),
    )
