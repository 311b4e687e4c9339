"""Panels that several dashboards have. ``rows`` chooses of what: it is the query from ``FROM`` on."""

from __future__ import annotations

from grafana.panels import BLUE, ORANGE, RED, Influxql, Panel, lines, stat

#: Of what adds up: as many windows together as one point shows.
STEP = "GROUP BY time($__interval)"
NET_BYTES = 'sum("bytes_added") - sum("bytes_removed")'


def rows_of(rollup: str, *also: str) -> str:
    """All rows of a rollup in the windows and the span that the reader chose."""
    return " AND ".join((f'FROM "{rollup}" WHERE "window" = \'$window\'', *also, "$timeFilter"))


def downloaded(rows: str) -> Panel:
    return stat(
        "Downloaded",
        "Bytes of all downloads.",
        "bytes",
        Influxql(f'SELECT sum("bytes") AS "downloaded" {rows} AND "action" = \'downloaded\'', "$col"),
        base=BLUE,
        nothing="0 B",
    )


def net_growth(title: str, description: str, rows: str) -> Panel:
    return stat(
        title,
        description,
        "bytes",
        Influxql(f'SELECT {NET_BYTES} AS "net" {rows}', "$col"),
        base=ORANGE,
        steps=[(0, BLUE)],
        nothing="0 B",
    )


def failures(title: str, description: str, rows: str) -> Panel:
    return stat(
        title,
        description,
        "percentunit",
        Influxql(
            f'SELECT sum("failed") / (sum("failed") + sum("succeeded")) AS "failed" {rows} '
            'AND ("failed" > 0 OR "succeeded" > 0)',
            "$col",
        ),
        decimals=1,
        steps=[(0.01, ORANGE), (0.05, RED)],
        nothing="no run",
    )


def bytes_added_and_removed(rows: str) -> Panel:
    return _bars(
        "Bytes added and removed",
        "Removed bytes are drawn below the line.",
        "bytes",
        f'SELECT sum("bytes_added") AS "added", sum("bytes_removed") * -1 AS "removed" {rows} {STEP}',
        "$col",
    )


def events_by_action(title: str, description: str, rows: str) -> Panel:
    return _bars(
        title,
        description,
        "short",
        f'SELECT sum("events") AS "events" {rows} {STEP}, "action"',
        "$tag_action",
    )


def bytes_downloaded(rows: str) -> Panel:
    return _bars(
        "Bytes downloaded",
        "By type of what was downloaded.",
        "bytes",
        f'SELECT sum("bytes") AS "bytes" {rows} AND "action" = \'downloaded\' {STEP}, "resource_type"',
        "$tag_resource_type",
    )


def runs(title: str, description: str, rows: str) -> Panel:
    return _bars(
        title,
        description,
        "short",
        f'SELECT sum("succeeded") AS "succeeded", sum("failed") AS "failed", sum("skipped") AS "skipped" {rows} {STEP}',
        "$col",
    )


def _bars(title: str, description: str, unit: str, query: str, alias: str) -> Panel:
    """What adds up. Where there is no row, nothing happened."""
    return lines(title, description, unit, Influxql(f"{query} fill(0)", alias), bars=True, interval="$window")
