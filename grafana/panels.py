"""What dashboards are made of: data sources by variable, queries, panels, and where they stand.

A panel is Grafana's own JSON, as far as it is not a default. Nothing here knows what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

#: A panel names its data source by a variable of the dashboard, whose default is the one that is provisioned.
INFLUXDB: Json = {"type": "influxdb", "uid": "${influxdb}"}
PROMETHEUS: Json = {"type": "prometheus", "uid": "${prometheus}"}

#: Grafana's grid is so wide.
COLUMNS = 24
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"


@dataclass(frozen=True, slots=True)
class Influxql:
    """One InfluxQL query. ``alias`` names its series (``$tag_region``, ``$col``); None: they are a table."""

    query: str
    alias: str | None = None

    def target(self, ref: str) -> Json:
        shape: Json = (
            {"resultFormat": "table"}
            if self.alias is None
            else {"resultFormat": "time_series", "alias": self.alias}
        )
        return {"refId": ref, "datasource": INFLUXDB, "query": self.query, "rawQuery": True, **shape}


@dataclass(frozen=True, slots=True)
class Promql:
    """One PromQL query; ``instant``: its present value alone."""

    expr: str
    legend: str
    instant: bool = False

    def target(self, ref: str) -> Json:
        return {
            "refId": ref,
            "datasource": PROMETHEUS,
            "expr": self.expr,
            "legendFormat": self.legend,
            "editorMode": "code",
            "instant": self.instant,
            "range": not self.instant,
        }


Query: TypeAlias = Influxql | Promql


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel without its place. ``width`` of 24 columns. ``steps`` are values from which a colour holds, the first
    colour holds below all of them."""

    kind: str
    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int
    options: Json
    custom: Json = field(default_factory=dict)
    color: str = "palette-classic"
    base: str = GREEN
    steps: Sequence[tuple[float, str]] = ()
    decimals: int | None = None
    least: float | None = None
    most: float | None = None
    interval: str | None = None
    nothing: str | None = None
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()

    def json(self, number: int, *, x: int, y: int, height: int) -> Json:
        sources = {type(query) for query in self.queries}
        assert len(sources) == 1, self.title  # noqa: S101 - of who writes a dashboard
        defaults: Json = {
            "unit": self.unit,
            "color": {"mode": self.color},
            "thresholds": {
                "mode": "absolute",
                "steps": [
                    {"value": None, "color": self.base},
                    *({"value": value, "color": color} for value, color in self.steps),
                ],
            },
            "custom": self.custom,
        }
        for name, value in (("decimals", self.decimals), ("min", self.least), ("max", self.most)):
            if value is not None:
                defaults[name] = value
        if self.nothing is not None:
            defaults["noValue"] = self.nothing
        panel: Json = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": INFLUXDB if sources == {Influxql} else PROMETHEUS,
            "gridPos": {"h": height, "w": self.width, "x": x, "y": y},
            "targets": [query.target(chr(ord("A") + at)) for at, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            "options": self.options,
        }
        if self.interval is not None:
            panel["interval"] = self.interval
        if self.transformations:
            panel["transformations"] = list(self.transformations)
        return panel


def stat(title: str, description: str, unit: str, query: Query, *, width: int = 4, **more: Any) -> Panel:
    """One number, coloured by its thresholds."""
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        queries=[query],
        width=width,
        color="thresholds",
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "orientation": "auto",
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "textMode": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        },
        **more,
    )


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    bars: bool = False,
    joined_ms: int | None = None,
    **more: Any,
) -> Panel:
    """Values over time; ``bars``: stacked, for what adds up. ``joined_ms``: values closer than this are joined over the
    nulls between them, others never."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 60 if bars else 10,
        "showPoints": "auto",
        # A null is a gap. A query that gives no row for what is not there would have its points joined (tests/grafana).
        "spanNulls": joined_ms if joined_ms is not None else False,
        "stacking": {"mode": "normal" if bars else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if more.get("steps") else "off"},
    }
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        custom=custom,
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        **more,
    )


def timeline(title: str, description: str, unit: str, *queries: Query, width: int = 24, **more: Any) -> Panel:
    """A band for each series, coloured by its thresholds."""
    return Panel(
        kind="state-timeline",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        color="thresholds",
        custom={"lineWidth": 0, "fillOpacity": 80},
        options={
            "showValue": "never",
            "rowHeight": 0.9,
            "mergeValues": False,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
        **more,
    )


def table(
    title: str,
    description: str,
    *queries: Influxql,
    columns: Sequence[str],
    sort: str,
    units: dict[str, str],
    unit: str = "short",
    width: int = 24,
) -> Panel:
    """Rows, the largest in ``sort`` first, ``columns`` from left to right, without the time. ``units`` of columns that
    differ from ``unit``. Of several queries, rows with the same tags and time are one."""
    return Panel(
        kind="table",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "frameIndex": 0,
            "sortBy": [{"displayName": sort, "desc": True}],
        },
        overrides=[_override(name, {"unit": unit}) for name, unit in units.items()],
        transformations=[
            *([{"id": "merge", "options": {}}] if len(queries) > 1 else []),
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "indexByName": {name: place for place, name in enumerate(columns)},
                    "renameByName": {},
                },
            },
        ],
    )


def _override(column: str, properties: Json) -> Json:
    return {
        "matcher": {"id": "byName", "options": column},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and panels below it: as many beside one another as fit, all of one height."""

    title: str
    height: int
    panels: Sequence[Panel]


def placed(rows: Sequence[Row]) -> list[Json]:
    """All panels with numbers and places, none over another."""
    made: list[Json] = []
    y = 0
    for row in rows:
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        x = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + row.height
            made.append(panel.json(len(made) + 1, x=x, y=y, height=row.height))
            x += panel.width
        y += row.height
    return made
