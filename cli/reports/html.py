"""A report as one HTML file: style and charts are in it, nothing is loaded, nothing runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import resources

from cli.reports.charts import bars, legend, strip
from cli.reports.findings import Findings, Line
from cli.reports.markup import Html, tag
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
    tick,
)
from cli.units import number, share, size

_OUTCOMES = {"succeeded": "succeeded", "failed": "failed", "skipped": "skipped"}


def html(findings: Findings, *, title: str, made: str) -> str:
    """The whole file. ``made``: when."""
    style = (resources.files(__package__) / "report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        tag("title", f"{title}, {range_said(findings)}"),
        tag("style", Html(style)),
    )
    main = tag(
        "main",
        tag("h1", title),
        tag("p", range_said(findings), class_="quiet"),
        *(_sections(findings) if not findings.empty else [_nothing()]),
        tag(
            "footer",
            f"Made {made} by eventsink from windows of {findings.window} that begin in the range. Times are in UTC.",
        ),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', main), lang='en')}\n"


def _nothing() -> Html:
    return tag(
        "p", "Nothing was counted in this range. Is `eventsink up` or a worker running, and do events arrive?"
    )


def _sections(findings: Findings) -> Iterable[Html]:
    times = [tick(findings, at) for at in findings.times]
    yield tag(
        "div", *(_tile(each.value, each.words, bad=each.bad) for each in headline(findings)), class_="tiles"
    )
    if findings.services:
        yield tag("h2", "Uptime")
        yield tag("p", "Measured in time. The quorum of all regions, then each of them.", class_="quiet")
        yield _table(UPTIME, findings.services, lambda line: strip(
            f"Uptime of {line.names[0]} in {line.names[1]}, {findings.window} a cell", times, line.course, share
        ), whole=lambda line: line.names[1] == "all")  # fmt: skip
    if findings.storage:
        yield tag("h2", "Storage")
        yield bars(
            "Bytes added and removed",
            times,
            {"added": findings.storage_course["bytes_added"]},
            size,
            down={"removed": findings.storage_course["bytes_removed"]},
        )
        yield legend({"added": "bytes added", "removed": "bytes removed"})
        rest = [] if findings.rest is None else [Line(("all others",), findings.rest)]
        yield _table(SPACES, [*findings.spaces, *rest])
    if findings.traffic:
        yield tag("h2", "Traffic")
        yield bars("Events by action", times, findings.traffic_course, number)
        yield legend({name: said(name) for name in findings.traffic_course})
        yield _table(TRAFFIC, findings.traffic)
    if findings.extractors:
        yield tag("h2", "Extractors")
        yield bars("Jobs that ended", times, findings.extractors_course, number)
        yield legend(_OUTCOMES)
        yield _table(EXTRACTORS, findings.extractors)
    if findings.activity:
        yield tag("h2", "Activity")
        yield _table(ACTIVITY, findings.activity)


def _tile(value: str, words: str, *, bad: bool) -> Html:
    return tag("div", tag("b", value), tag("span", words), class_="tile bad" if bad else "tile")


def _table(
    columns: Columns,
    lines: Sequence[Line],
    course: Callable[[Line], Html] | None = None,
    *,
    whole: Callable[[Line], bool] = lambda line: False,
) -> Html:
    """``course`` draws how a line went, ``whole`` tells which lines are of the others together."""
    head = tag(
        "tr",
        *(tag("th", name, scope="col") for name in columns.names),
        *([tag("th", columns.course or "", scope="col")] if course is not None else []),
        *(tag("th", column.heading, scope="col", class_="number") for column in columns.numbers),
    )
    body = []
    for line in lines:
        names, numbers = cells(columns, line)
        row = [
            *(tag("td", name) for name in names),
            *([tag("td", course(line))] if course is not None else []),
            *(tag("td", text, class_="number") for text in numbers),
        ]
        body.append(tag("tr", *row, class_="whole") if whole(line) else tag("tr", *row))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")
