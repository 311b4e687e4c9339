"""What the tables of a report have in common, whatever they are written in: their columns, and the headline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cli.reports.findings import ALL, Findings, Line, Numbers, failure_share, mean, runs
from cli.units import duration, in_words, number, share
from schemas.times import rfc3339
from topology.windows import DAY


class Column(NamedTuple):
    """Its heading, and what stands in it."""

    heading: str
    text: Callable[[Numbers], str]


class Columns(NamedTuple):
    """``names``: headings of what a line is of; ``course``: that of how it went, where it is drawn."""

    names: tuple[str, ...]
    numbers: tuple[Column, ...]
    course: str | None = None


class Headline(NamedTuple):
    """One number for the top of the page. ``bad``: somebody should look."""

    value: str
    words: str
    bad: bool = False


def _field(heading: str, field: str) -> Column:
    return Column(heading, lambda numbers: in_words(field, numbers.get(field)))


def _lasting(heading: str, of: str) -> Column:
    def text(numbers: Numbers) -> str:
        seconds = mean(numbers, of)
        return "" if seconds is None else duration(seconds)

    return Column(heading, text)


def _failed_share(numbers: Numbers) -> str:
    found = failure_share(numbers)
    return "" if found is None else share(found)


UPTIME = Columns(
    ("service", "region"),
    (
        _field("uptime", "uptime_ratio"),
        _field("down", "down_s"),
        _field("maintenance", "maintenance_s"),
        _field("known", "coverage"),
        _field("slowest", "response_ms_max"),
    ),
    course="over time",
)
SPACES = Columns(
    ("space",),
    (
        _field("added", "bytes_added"),
        _field("removed", "bytes_removed"),
        _field("files added", "files_added"),
        _field("files removed", "files_removed"),
    ),
)
TRAFFIC = Columns(
    ("action",), (_field("events", "events"), _field("bytes", "bytes"), _field("items", "items"))
)
EXTRACTORS = Columns(
    ("extractor",),
    (
        Column("ended", lambda numbers: number(runs(numbers))),
        _field("failed", "failed"),
        Column("failed share", _failed_share),
        _field("skipped", "skipped"),
        _lasting("mean runtime", "runtime_s"),
        _field("longest", "runtime_s_max"),
        _lasting("mean wait", "wait_s"),
    ),
)
ACTIVITY = Columns(("action",), (_field("events", "events"),))


def headline(findings: Findings) -> Sequence[Headline]:
    """What a reader in a hurry should know."""
    found: list[Headline] = []
    for line in findings.services:
        ratio = line.numbers.get("uptime_ratio")
        if line.names[1] == ALL and ratio is not None:
            found.append(Headline(share(ratio), f"uptime of {line.names[0]}", bad=ratio < 0.99))
    if findings.storage:
        added = findings.storage.get("bytes_added") or 0
        files = findings.storage.get("files_added") or 0
        found.append(Headline(in_words("bytes", added), f"added in {number(files)} {_of(files, 'file')}"))
    found += [
        Headline(number(events := line.numbers.get("events") or 0), said(line.names[0], events))
        for line in findings.traffic
    ]
    if findings.extractors:
        ended = sum(runs(line.numbers) for line in findings.extractors)
        failed = sum(int(line.numbers.get("failed") or 0) for line in findings.extractors)
        of = f", {share(failed / ended)} failed" if ended else ""
        found.append(Headline(number(ended), f"extractor {_of(ended, 'run')}{of}"))
    letters = findings.dead_letters
    found.append(Headline(number(letters), f"dead {_of(letters, 'letter')} now", bad=letters > 0))
    return found


def _of(count: float, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def said(action: str, count: float = 2) -> str:
    """``page_viewed``, in words: of so many."""
    return {
        "viewed": f"{_of(count, 'resource')} viewed",
        "downloaded": f"{_of(count, 'resource')} downloaded",
        "page_viewed": f"{_of(count, 'page')} viewed",
    }.get(action, action.replace("_", " "))


def range_said(findings: Findings) -> str:
    """From when to when."""
    return f"{_minute(findings.since_s)} to {_minute(findings.until_s)} UTC"


def tick(findings: Findings, at_s: int) -> str:
    """The start of a window, as briefly as it can be told from the others."""
    text = rfc3339(at_s * 1000)
    if findings.window == DAY.name:
        return text[:10]
    return f"{text[5:10]} {text[11:16]}"


def _minute(at_s: int) -> str:
    text = rfc3339(at_s * 1000)
    return f"{text[:10]} {text[11:16]}"


def cells(columns: Columns, line: Line) -> tuple[Sequence[str], Sequence[str]]:
    """What a line says: the names, and the numbers with their units."""
    return line.names, [column.text(line.numbers) for column in columns.numbers]
