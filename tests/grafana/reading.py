"""The dashboards as Grafana reads them: every query of every panel, with variables and macros filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

GRAFANA = Path(__file__).parents[2] / "grafana"
DASHBOARDS = GRAFANA / "dashboards"

#: 2026-11-20T12:34:56Z. What is shown ends here.
NOW_S = 1_795_178_096
UNIT_S = {"m": 60, "h": 3600, "d": 86_400}

#: Grafana fills these in by itself.
GIVEN = {"timeFilter", "__interval", "__rate_interval"}
#: Of an alias or a legend, not of a query: filled in from the answer.
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")

Json = dict[str, Any]


class Asked(NamedTuple):
    """One query of one panel."""

    board: str
    panel: Json
    target: Json

    def __str__(self) -> str:
        return f"{self.board}/{self.panel['title']}/{self.target['refId']}"


def boards() -> dict[str, Json]:
    """Every dashboard that is checked in, by its name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(board: Json) -> list[Json]:
    """Those that show something: rows are headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def asked(kind: str) -> Iterator[Asked]:
    """Every query to data sources of a kind."""
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                if target["datasource"]["type"] == kind:
                    yield Asked(name, panel, target)


def variables(board: Json) -> dict[str, Json]:
    """By name."""
    return {each["name"]: each for each in board["templating"]["list"]}


def chosen(board: Json) -> dict[str, str]:
    """What each variable is, as the dashboard opens."""
    values = {}
    for name, variable in variables(board).items():
        value = variable["current"]["value"]
        values[name] = variable["allValue"] if value == "$__all" else value
    return values


def span_s(board: Json) -> int:
    """How far back it looks as it opens."""
    found = re.fullmatch(r"now-(\d+)([mhd])", board["time"]["from"])
    assert found is not None
    assert board["time"]["to"] == "now"
    return int(found[1]) * UNIT_S[found[2]]


def used(text: str) -> set[str]:
    """Names of the variables in a query."""
    return set(_VARIABLE.findall(text))


def filled(text: str, values: Mapping[str, str], *, interval: str, since_s: int) -> str:
    """A query as Grafana sends it. A variable that nobody knows fails."""
    known = {
        "timeFilter": f"time >= {since_s}000ms and time <= {NOW_S}000ms",
        "__interval": interval,
        "__rate_interval": "1m",
        **values,
    }
    return _VARIABLE.sub(lambda found: known[found[1]], text)
