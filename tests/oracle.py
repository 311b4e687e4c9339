"""Every rollup, recomputed from all events at once, in the plainest way: what the engine is judged by.

It knows the events and nothing of the engine. Everything is exact: integers and fractions until a value is
handed out, instants at millisecond resolution. The budget of key tags is ignored.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias, TypeVar

from schemas.events import (
    ConnectionsCounted,
    Event,
    Extraction,
    ExtractionFailed,
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
    PageFetched,
    PageViewed,
    Pinged,
    QueueMeasured,
    ResourceCreated,
    ResourceDownloaded,
    ResourceViewed,
    SignedUp,
)
from tests.time_in_state import Maintenance, Region, Result, time_in_state

WINDOWS_MS = {"1m": 60_000, "1h": 3_600_000, "1d": 86_400_000}
MAX_SUM = 2**63 - 1

Tags: TypeAlias = tuple[str, ...]
RawTags: TypeAlias = tuple[str | None, ...]
#: Start of the window in epoch seconds, values of the key tags.
RowKey: TypeAlias = tuple[int, Tags]
Fields: TypeAlias = dict[str, int | float]
Rows: TypeAlias = dict[RowKey, Fields]
#: By name of the rollup and of the window.
Rollups: TypeAlias = dict[tuple[str, str], Rows]
T = TypeVar("T")

Ending: TypeAlias = ExtractionSkipped | ExtractionFailed | ExtractionSucceeded


class Placed(NamedTuple):
    """One event, with its place in the log and in time."""

    position: int
    time_ms: int
    """Where it counts."""
    event: Event


def placed(events: Iterable[Event]) -> list[Placed]:
    """In the order of the log, each at its own ``time``, which it must have."""
    found = []
    for position, event in enumerate(events):
        assert event.time is not None, event
        found.append(Placed(position, event.time, event))
    return found


def rollups(events: Sequence[Placed], *, watermark_ms: int) -> Rollups:
    """All eight rollups in all windows, of these events in any order."""
    counted = _without_repeats(events)
    jobs = _ended_jobs(counted)
    found: Rollups = {}
    for name, size in WINDOWS_MS.items():
        found["space_storage", name] = _space_storage(counted, size)
        found["extractor_runtime", name] = _extractor_runtime(counted, jobs, size)
        found["service_uptime", name] = _service_uptime(counted, size, watermark_ms)
        found["service_page", name] = _service_page(counted, size)
        found["service_connections", name] = _service_connections(counted, size)
        found["queue_length", name] = _queue_length(counted, size)
        found["resource_traffic", name] = _resource_traffic(counted, size)
        found["user_activity", name] = _user_activity(counted, size)
    return found


def _without_repeats(events: Iterable[Placed]) -> list[Placed]:
    """In the order of the log, each event once: the same source, id and time are the same event."""
    seen: set[tuple[str | None, str, int]] = set()
    counted = []
    for placed in sorted(events, key=lambda placed: placed.position):
        event = placed.event
        if event.id is not None and event.time is not None:
            identity = (event.source, event.id, event.time)
            if identity in seen:
                continue
            seen.add(identity)
        counted.append(placed)
    return counted


# -- what several rollups need --


def tag(value: str | None) -> str:
    """A key value as a tag: ``unknown`` if missing or empty, no control characters, no backslash, at most 256."""
    if not value:
        return "unknown"
    fit = (
        "_" if unicodedata.category(character) == "Cc" or character == "\\" else character
        for character in value
    )
    return "".join(fit)[:256]


def _windowed(items: Iterable[tuple[int, Tags, T]], size_ms: int) -> dict[RowKey, list[T]]:
    """Items (time in ms, tags, item), put together by window and tags."""
    rows: defaultdict[RowKey, list[T]] = defaultdict(list)
    for time_ms, tags, item in items:
        rows[time_ms // size_ms * size_ms // 1000, tags].append(item)
    return rows


def _events_of(
    events: Iterable[Placed], size_ms: int, tags: Callable[[Any], RawTags], *types: type[Event]
) -> dict[RowKey, list[Any]]:
    """The events of these types, put together by window and tags."""
    found = [(at, event) for _, at, event in events if isinstance(event, types)]
    return _windowed(((at, tuple(map(tag, tags(event))), event) for at, event in found), size_ms)


def _total(numbers: Iterable[int]) -> int:
    return min(sum(numbers), MAX_SUM)


def _mean(numbers: Sequence[int | float]) -> float:
    return float(sum(map(Fraction, numbers), Fraction(0)) / len(numbers))


def _quantile(percent: int, numbers: Iterable[T]) -> T:
    ordered: list[Any] = sorted(numbers)
    found: T = ordered[percent * (len(ordered) - 1) // 100]
    return found


def _given(numbers: Iterable[T | None]) -> list[T]:
    return [number for number in numbers if number is not None]


def _people(events: Iterable[Event]) -> int:
    return len({event.user_id for event in events if event.user_id})


# -- sums and counts --


def _space_storage(events: Sequence[Placed], size_ms: int) -> Rows:
    rows: Rows = {}
    files = _events_of(events, size_ms, lambda event: (event.space_id,), FileUploaded, FileDeleted)
    for key, found in files.items():
        added = [event.bytes for event in found if isinstance(event, FileUploaded)]
        removed = [event.bytes for event in found if isinstance(event, FileDeleted)]
        rows[key] = {
            "bytes_added": _total(added),
            "bytes_removed": _total(removed),
            "files_added": len(added),
            "files_removed": len(removed),
        }
    return rows


def _resource_traffic(events: Sequence[Placed], size_ms: int) -> Rows:
    actions: dict[type[Event], str] = {
        ResourceViewed: "viewed",
        ResourceDownloaded: "downloaded",
        PageViewed: "page_viewed",
    }

    def tags(event: Any) -> RawTags:
        seen = (None, None) if isinstance(event, PageViewed) else (event.resource_type, event.space_id)
        return (actions[type(event)], *seen)

    rows: Rows = {}
    for key, found in _events_of(events, size_ms, tags, *actions).items():
        downloads = [event for event in found if isinstance(event, ResourceDownloaded)]
        rows[key] = {
            "events": len(found),
            "bytes": _total(_given(event.bytes for event in downloads)),
            "items": _total(_given(event.items for event in downloads)),
            "unique_users": _people(found),
        }
    return rows


def _user_activity(events: Sequence[Placed], size_ms: int) -> Rows:
    actions: dict[type[Event], str] = {
        SignedUp: "signed_up",
        LoggedIn: "logged_in",
        ResourceCreated: "resource_created",
    }
    done = _events_of(events, size_ms, lambda event: (actions[type(event)],), *actions)
    return {key: {"events": len(found), "unique_users": _people(found)} for key, found in done.items()}


# -- measurements --


def _service_page(events: Sequence[Placed], size_ms: int) -> Rows:
    rows: Rows = {}
    pages = _events_of(events, size_ms, lambda event: (event.service, event.region), PageFetched)
    for key, found in pages.items():
        row = rows[key] = {"fetches": len(found), "failures": sum(not event.up for event in found)}
        if sizes := _given(event.bytes for event in found):
            row["bytes_mean"] = _mean(sizes)
        if elapsed := _given(event.elapsed_ms for event in found):
            row["elapsed_ms_mean"] = _mean(elapsed)
            row["elapsed_ms_max"] = float(max(elapsed))
            row["elapsed_ms_p95"] = float(_quantile(95, elapsed))
    return rows


def _service_connections(events: Sequence[Placed], size_ms: int) -> Rows:
    found = _events_of(events, size_ms, lambda event: (event.service, event.region), ConnectionsCounted)
    numbers = {key: [event.connections for event in counts] for key, counts in found.items()}
    return {
        key: {"connections_mean": _mean(counts), "connections_max": max(counts)}
        for key, counts in numbers.items()
    }


def _queue_length(events: Sequence[Placed], size_ms: int) -> Rows:
    found = _events_of(events, size_ms, lambda event: (event.service, event.queue), QueueMeasured)
    numbers = {key: [event.messages for event in lengths] for key, lengths in found.items()}
    return {
        key: {"messages_mean": _mean(lengths), "messages_max": max(lengths)}
        for key, lengths in numbers.items()
    }


# -- jobs --


class _Ended(NamedTuple):
    """A job at its end."""

    time_ms: int
    extractor: str
    outcome: str
    runtime_ms: int | None
    wait_ms: int | None


def _extractor_runtime(events: Sequence[Placed], jobs: Sequence[_Ended], size_ms: int) -> Rows:
    counted = {ExtractionSubmitted: "submitted", ExtractionStarted: "started", ExtractionRetried: "retried"}
    happened: list[tuple[int, Tags, str | _Ended]] = [
        (at, (tag(event.extractor),), name)
        for _, at, event in events
        for kind, name in counted.items()
        if isinstance(event, Extraction) and isinstance(event, kind)
    ]
    happened += [(job.time_ms, (tag(job.extractor),), job) for job in jobs]
    rows: Rows = {}
    for key, found in _windowed(happened, size_ms).items():
        ended = [job for job in found if isinstance(job, _Ended)]
        row: Fields = {name: found.count(name) for name in counted.values()}
        for outcome in ("succeeded", "failed", "skipped"):
            row[outcome] = sum(job.outcome == outcome for job in ended)
        runtimes = _given(job.runtime_ms for job in ended)
        row |= _seconds("runtime_s", runtimes, (50, 95, 99))
        if runtimes:
            row["runtime_s_min"] = min(runtimes) / 1000
            row["runtime_s_max"] = max(runtimes) / 1000
        rows[key] = row | _seconds("wait_s", _given(job.wait_ms for job in ended), (50, 95))
    return rows


def _seconds(field: str, durations_ms: Sequence[int], percents: Sequence[int]) -> Fields:
    row: Fields = {f"{field}_count": len(durations_ms), f"{field}_sum": sum(durations_ms) / 1000}
    if durations_ms:
        row |= {f"{field}_p{percent}": _quantile(percent, durations_ms) / 1000 for percent in percents}
    return row


def _ended_jobs(events: Iterable[Placed]) -> list[_Ended]:
    ended = (_ended(job) for job in _jobs(events))
    return [job for job in ended if job is not None]


def _jobs(events: Iterable[Placed]) -> list[list[Placed]]:
    """What belongs to one job each. ``events``: in the order of the log, which only jobs without id depend on."""
    by_id: defaultdict[str, list[Placed]] = defaultdict(list)
    by_resource: defaultdict[tuple[str | None, str], list[list[Placed]]] = defaultdict(lambda: [[]])
    for placed in events:
        event = placed.event
        if not isinstance(event, Extraction):
            continue
        if event.job_id is not None:
            by_id[event.job_id].append(placed)
            continue
        jobs = by_resource[event.resource_id, event.extractor]
        begins = isinstance(event, ExtractionSubmitted | ExtractionStarted)
        if begins and any(isinstance(earlier.event, Ending) for earlier in jobs[-1]):
            jobs.append([])
        jobs[-1].append(placed)
    return [*by_id.values(), *(job for jobs in by_resource.values() for job in jobs)]


def _ended(job: Sequence[Placed]) -> _Ended | None:
    """The one end that a job has: its first skip, else its last success or failure; None while it has none."""
    submissions = [placed for placed in job if isinstance(placed.event, ExtractionSubmitted)]
    starts = [placed for placed in job if isinstance(placed.event, ExtractionStarted)]
    skips = [placed for placed in job if isinstance(placed.event, ExtractionSkipped)]
    successes = [placed for placed in job if isinstance(placed.event, ExtractionSucceeded)]
    failures = [placed for placed in job if isinstance(placed.event, ExtractionFailed)]
    if skips:
        outcome, end = "skipped", min(skips, key=lambda placed: placed.time_ms)
    elif successes or failures:
        # Among equal times `max` keeps the first that it is shown: a success outranks a failure.
        end = max([*successes, *failures], key=lambda placed: placed.time_ms)
        outcome = "succeeded" if isinstance(end.event, ExtractionSucceeded) else "failed"
    else:
        return None
    assert isinstance(end.event, Extraction)
    runtimes = [elapsed for start in starts if (elapsed := _elapsed_ms(start, end)) >= 0]
    wait_ms = None
    if submissions and starts:
        # The first start is the one nearest to a submission, the first submission the one farthest from it.
        waits = (min(_elapsed_ms(submission, start) for start in starts) for submission in submissions)
        wait_ms = max(0, *waits)
    return _Ended(end.time_ms, end.event.extractor, outcome, min(runtimes, default=None), wait_ms)


def _elapsed_ms(earlier: Placed, later: Placed) -> int:
    """By the clock of the extractor where both tell it, else by where they count."""
    since, until = (getattr(placed.event, "clock_ms", None) for placed in (earlier, later))
    if since is None or until is None:
        return later.time_ms - earlier.time_ms
    return int(until - since)


# -- uptime --


def _service_uptime(events: Sequence[Placed], size_ms: int, watermark_ms: int) -> Rows:
    results: defaultdict[str, defaultdict[str, list[tuple[int, Result]]]]
    results = defaultdict(lambda: defaultdict(list))
    announced: defaultdict[str, list[tuple[int, bool]]] = defaultdict(list)
    for placed in events:
        event = placed.event
        if isinstance(event, Pinged | PageFetched):
            results[tag(event.service)][tag(event.region)].append((placed.time_ms, event))
        elif isinstance(event, MaintenanceStarted | MaintenanceEnded):
            announced[tag(event.service)].append((placed.time_ms, isinstance(event, MaintenanceEnded)))
    rows: Rows = {}
    for service, found in results.items():
        maintenance = Maintenance(announced[service])
        regions = {region: Region(of_region) for region, of_region in found.items()}
        for region, one in regions.items():
            for start_s, row in time_in_state([one], maintenance, size_ms, watermark_ms).items():
                rows[start_s, (service, region)] = row | {"checks": 0, "failures": 0}
            for (start_s, _), checks in _windowed(
                ((at, (), event) for at, event in one.results), size_ms
            ).items():
                if (start_s, (service, region)) in rows:
                    rows[start_s, (service, region)] |= _checks(checks)
        for start_s, row in time_in_state([*regions.values()], maintenance, size_ms, watermark_ms).items():
            rows[start_s, (service, "all")] = row
    return rows


def _checks(results: Sequence[Result]) -> Fields:
    row: Fields = {"checks": len(results), "failures": sum(not event.up for event in results)}
    times = _given(event.response_ms for event in results if isinstance(event, Pinged))
    if averages := _given(response.avg for response in times):
        row["response_ms_mean"] = _mean(averages)
        row["response_ms_p95"] = float(_quantile(95, averages))
    if highest := _given(response.max for response in times):
        row["response_ms_max"] = float(max(highest))
    return row


# -- comparing --

#: What CONTRACT makes an integer, beside ``*_count``; every other field may come as either kind of number.
_INTEGERS = re.compile(
    "(bytes|files)_(added|removed)|bytes|items|events|unique_users|checks|failures|fetches|submitted|started|"
    "succeeded|failed|skipped|retried|(messages|connections)_max|.*_count"
)


def same(ours: Mapping[tuple[str, str], Rows], theirs: Mapping[tuple[str, str], Rows]) -> list[str]:
    """How two sets of rollups differ, a line each; nothing if they are equal as far as CONTRACT promises.

    A row of ``extractor_runtime`` in which nothing is counted is as good as none: where the end of a job moved
    to another window, depending on the order of arrival it was counted here for a while, and a correction
    writes zeros.
    """
    differences = []
    for table in sorted({*ours, *theirs}):
        one, other = (_with_content(table[0], side.get(table, {})) for side in (ours, theirs))
        for key in sorted({*one, *other}):
            row = f"{table[0]} {table[1]} {key[0]} {','.join(key[1])}"
            if key not in one or key not in other:
                whose = "theirs" if key in other else "ours"
                differences.append(f"{row}: only {whose} has it: {one.get(key) or other.get(key)}")
                continue
            for field in sorted({*one[key], *other[key]}):
                a, b = one[key].get(field), other[key].get(field)
                if a is None or b is None or not _equal(field, a, b):
                    differences.append(f"{row} {field}: {a} (ours), {b} (theirs)")
    return differences


def _with_content(rollup: str, rows: Rows) -> Rows:
    if rollup != "extractor_runtime":
        return rows
    return {
        key: row
        for key, row in rows.items()
        if any(number for field, number in row.items() if _INTEGERS.fullmatch(field))
    }


def _equal(field: str, a: int | float, b: int | float) -> bool:
    if _INTEGERS.fullmatch(field):
        if not (isinstance(a, int) and isinstance(b, int)):
            return False
        return abs(a - b) <= 0.03 * a if field == "unique_users" and a > 1000 else a == b
    if field.endswith(("_p50", "_p95", "_p99")):
        return math.isclose(a, b, rel_tol=0.02, abs_tol=1e-6)
    if field.endswith(("_min", "_max")):
        return a == b
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-3 if field.endswith("_ms_mean") else 1e-6)
