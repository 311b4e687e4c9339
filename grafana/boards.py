"""A whole dashboard: its rows, and the variables that its reader chooses from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana.panels import INFLUXDB, PROMETHEUS, Json, Row, placed

#: Of Grafana 11 and 12; later ones lift it by themselves.
SCHEMA_VERSION = 41
TAG = "eventsink"
#: The data sources that are provisioned (grafana/provisioning/datasources).
SOURCES = {"influxdb": "eventsink-influxdb", "prometheus": "eventsink-prometheus"}
WINDOWS = ("1m", "1h", "1d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """``name`` is the file's, and the end of the uid. ``since`` is how far back it looks (``now-7d``)."""

    name: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Json]
    since: str
    refresh: str = "1m"

    def json(self) -> Json:
        return {
            "uid": f"eventsink-{self.name}",
            "title": f"eventsink / {self.title}",
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "graphTooltip": 1,  # one crosshair through all panels
            "timezone": "utc",  # windows begin at UTC's hours and days
            "time": {"from": self.since, "to": "now"},
            "refresh": self.refresh,
            "templating": {"list": list(self.variables)},
            "annotations": {"list": []},
            "links": [
                {
                    "title": "eventsink",
                    "type": "dashboards",
                    "icon": "external link",
                    "tooltip": "",
                    "url": "",
                    "tags": [TAG],
                    "asDropdown": False,
                    "targetBlank": False,
                    "includeVars": False,
                    "keepTime": True,
                }
            ],
            "panels": placed(self.rows),
        }


def source(kind: str, label: str) -> Json:
    """Which data source of a kind the panels ask; at first the one that is provisioned."""
    return {
        "name": kind,
        "label": label,
        "type": "datasource",
        "query": kind,
        "current": {"selected": True, "text": label, "value": SOURCES[kind]},
        "hide": 0,
        "refresh": 1,
        "multi": False,
        "includeAll": False,
    }


def window(default: str) -> Json:
    """Which windows of the rollups are read."""
    return {
        "name": "window",
        "label": "Window",
        "description": "Of the rollup. A longer span is quicker to read in longer windows.",
        "type": "custom",
        "query": ",".join(WINDOWS),
        "current": {"selected": True, "text": default, "value": default},
        "options": [{"selected": name == default, "text": name, "value": name} for name in WINDOWS],
        "hide": 0,
        "multi": False,
        "includeAll": False,
    }


def tag(name: str, label: str, rollup: str) -> Json:
    """Values of one key tag of a rollup; all of them at first."""
    query = f'SHOW TAG VALUES FROM "{rollup}" WITH KEY = "{name}"'
    # An object: of a plain text Grafana's data source reads nothing.
    return _chosen(name, label, INFLUXDB, {"query": query, "refId": "values"})


def series(name: str, label: str, metric: str) -> Json:
    """Values of one label of a metric; all of them at first."""
    query = f"label_values({metric}, {name})"
    return _chosen(name, label, PROMETHEUS, {"query": query, "refId": "values", "qryType": 5})


def _chosen(name: str, label: str, datasource: Json, query: Json) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": datasource,
        "query": query,
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "current": {"selected": True, "text": "All", "value": "$__all"},
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
    }
