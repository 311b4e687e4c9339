"""A report as Markdown (GitHub's tables), with sparklines for charts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cli.reports.findings import Courses, Findings, Line
from cli.reports.sections import (
    ACTIVITY,
    EXTRACTORS,
    SPACES,
    TRAFFIC,
    UPTIME,
    Columns,
    cells,
    headline,
    range_said,
    said,
)
from cli.units import sparkline

BLOCKS = 48

#: What Markdown or HTML in it would take for markup.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")


def markdown(findings: Findings, *, title: str, made: str) -> str:
    """The whole text. ``made``: when."""
    lines = [f"# {_plain(title)}", "", range_said(findings), ""]
    if findings.empty:
        lines += ["Nothing was counted in this range.", ""]
    else:
        lines += [*_sections(findings)]
    lines.append(
        f"Made {made} by eventsink from windows of {findings.window} that begin in the range. Times are in UTC."
    )
    return "\n".join(lines) + "\n"


def _sections(findings: Findings) -> Iterable[str]:
    for each in headline(findings):
        yield f"- **{_plain(each.value)}** {_plain(each.words)}"
    yield ""
    if findings.services:
        yield from _table("Uptime", UPTIME, findings.services)
    if findings.storage:
        rest = [] if findings.rest is None else [Line(("all others",), findings.rest)]
        courses = {
            "added": findings.storage_course["bytes_added"],
            "removed": findings.storage_course["bytes_removed"],
        }
        yield from _table("Storage", SPACES, [*findings.spaces, *rest], courses)
    if findings.traffic:
        courses = {said(name): course for name, course in findings.traffic_course.items()}
        yield from _table("Traffic", TRAFFIC, findings.traffic, courses)
    if findings.extractors:
        yield from _table("Extractors", EXTRACTORS, findings.extractors, findings.extractors_course)
    if findings.activity:
        yield from _table("Activity", ACTIVITY, findings.activity)


def _table(
    heading: str, columns: Columns, lines: Sequence[Line], courses: Courses | None = None
) -> Iterable[str]:
    yield f"## {heading}"
    yield ""
    if courses:
        widest = max(map(len, courses))
        yield "```"
        for name, course in courses.items():
            yield f"{name:<{widest}}  {sparkline(course, width=BLOCKS)}"
        yield "```"
        yield ""
    headings = [*columns.names, *(column.heading for column in columns.numbers)]
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(columns.names)}{'---:|' * len(columns.numbers)}"
    for line in lines:
        names, numbers = cells(columns, line)
        yield f"| {' | '.join(map(_plain, [*names, *numbers]))} |"
    yield ""


def _plain(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
