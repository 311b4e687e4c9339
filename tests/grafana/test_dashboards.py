"""The dashboards are what the code says, and what Grafana expects."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from agents import ROLLUPS
from grafana.__main__ import BOARDS, written
from grafana.boards import SOURCES
from tests.grafana.reading import (
    DASHBOARDS,
    GIVEN,
    GRAFANA,
    Json,
    asked,
    boards,
    panels,
    span_s,
    used,
    variables,
)

ROOT = GRAFANA.parent
ALL = boards()
#: Ids of Grafana's units, as far as they are used.
UNITS = {"bytes", "eps", "ms", "percentunit", "reqps", "s", "short", "wps"}
KINDS = {"row", "stat", "timeseries", "state-timeline", "table"}

each_board = pytest.mark.parametrize("name", ALL)


def test_the_files_are_those_that_the_code_writes() -> None:
    wanted = {f"{board.name}.json": written(board) for board in BOARDS}
    found = {path.name: path.read_text("utf-8") for path in DASHBOARDS.iterdir()}
    assert found == wanted, "run `make dashboards`"


def test_there_is_one_of_each() -> None:
    assert set(ALL) == {"overview", "spaces", "extractors", "uptime", "pipeline"}
    for member in ("uid", "title"):
        assert len({board[member] for board in ALL.values()}) == len(ALL)


@each_board
def test_grafanas_own_types_know_every_member_of_it(name: str) -> None:
    register_default_plugins()
    read = Dashboard.from_json(ALL[name])
    back = json.loads(json.dumps(read, cls=JSONEncoder))
    assert list(_lost(ALL[name], back)) == []


def _lost(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """What reading and writing by Grafana's types did not keep; defaults that they add are no loss."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            word
            for name, value in ours.items()
            for word in (
                _lost(value, theirs[name], f"{where}/{name}") if name in theirs else [f"{where}/{name}"]
            )
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            word
            for at, (one, other) in enumerate(zip(ours, theirs, strict=True))
            for word in _lost(one, other, f"{where}/{at}")
        ]
    return [] if ours == theirs else [f"{where}: {ours!r} became {theirs!r}"]


def test_a_member_that_grafana_does_not_know_would_be_seen() -> None:
    register_default_plugins()
    board = json.loads(json.dumps(ALL["overview"]))
    board["panels"][1]["fieldConfig"]["defaults"]["untis"] = "bytes"
    back = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    assert _lost(board, back) == ["/panels/1/fieldConfig/defaults/untis"]


@each_board
def test_every_panel_has_a_title_a_meaning_and_a_unit(name: str) -> None:
    titles = [panel["title"] for panel in panels(ALL[name])]
    assert len(titles) == len(set(titles))
    for panel in panels(ALL[name]):
        assert panel["type"] in KINDS
        assert panel["title"][0].isupper(), panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        units = {panel["fieldConfig"]["defaults"]["unit"]} | {
            each["value"]
            for override in panel["fieldConfig"]["overrides"]
            for each in override["properties"]
            if each["id"] == "unit"
        }
        assert units <= UNITS, panel["title"]
        assert panel["targets"], panel["title"]


@each_board
def test_panels_have_numbers_of_their_own_and_no_two_stand_in_one_place(name: str) -> None:
    everything = ALL[name]["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= 24
    for one, other in combinations(everything, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (one["title"], other["title"])


@each_board
def test_rows_of_panels_are_full(name: str) -> None:
    widths: dict[int, int] = {}
    for panel in ALL[name]["panels"]:
        widths[panel["gridPos"]["y"]] = widths.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
    assert set(widths.values()) == {24}


@each_board
def test_thresholds_ascend_and_begin_without_a_value(name: str) -> None:
    for panel in panels(ALL[name]):
        first, *rest = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert first is None
        assert rest == sorted(rest)


@each_board
def test_data_sources_are_chosen_by_variables_and_those_are_provisioned(name: str) -> None:
    board = ALL[name]
    provisioned = {
        each["uid"]: each["type"]
        for each in yaml.safe_load((GRAFANA / "provisioning/datasources/eventsink.yaml").read_text())[
            "datasources"
        ]
    }
    assert provisioned == {uid: kind for kind, uid in SOURCES.items()}
    for reference in _references(board):
        variable = variables(board)[reference["uid"].removeprefix("${").removesuffix("}")]
        assert reference["uid"].startswith("${")
        assert variable["type"] == "datasource"
        assert variable["query"] == reference["type"]
        assert provisioned[variable["current"]["value"]] == reference["type"]


def _references(value: Any) -> list[Json]:
    """Every reference to a data source, wherever it is."""
    if isinstance(value, list):
        return [found for each in value for found in _references(each)]
    if not isinstance(value, dict):
        return []
    here = [value["datasource"]] if "datasource" in value else []
    return here + [found for each in value.values() for found in _references(each)]


@each_board
def test_every_variable_is_there_and_is_used(name: str) -> None:
    board = ALL[name]
    queries = [
        target.get("query") or target["expr"] for panel in panels(board) for target in panel["targets"]
    ]
    queries += [panel.get("interval", "") for panel in panels(board)]
    named = set().union(*map(used, queries)) | {
        reference["uid"].strip("${}") for reference in _references(board)
    }
    assert named - GIVEN == set(variables(board))


@each_board
def test_it_opens_on_a_sensible_span(name: str) -> None:
    assert 3600 <= span_s(ALL[name]) <= 31 * 86_400
    assert re.fullmatch(r"\d+[sm]", ALL[name]["refresh"])


def test_only_what_monitors_measure_is_joined_over_nulls_and_no_further_than_they_may_be_apart() -> None:
    joined = {
        (name, panel["title"]): panel["fieldConfig"]["defaults"]["custom"]["spanNulls"]
        for name in ALL
        for panel in panels(ALL[name])
        if panel["type"] == "timeseries"
    }
    threshold = {title: value for (_, title), value in joined.items() if value is not False}
    assert set(threshold) == {"Response time", "Page load", "Size of the page", "Connections", "Queues"}
    # Grafana joins what is closer than this: windows of a minute five minutes apart, two hours never.
    assert {5 * 60_000 < value <= 6 * 60_000 for value in threshold.values()} == {True}


def test_every_rollup_is_shown_somewhere() -> None:
    queries = " ".join(each.target["query"] for each in asked("influxdb"))
    assert set(re.findall(r'FROM "(\w+)"', queries)) == set(ROLLUPS)


def test_every_field_and_tag_in_a_query_is_one_of_its_rollup() -> None:
    for each in asked("influxdb"):
        query: str = each.target["query"]
        (rollup,) = set(re.findall(r'FROM "(\w+)"', query))
        made = set(re.findall(r'AS "([\w-]+)"', query))
        names = set(re.findall(r'"([\w-]+)"', query)) - made - {rollup, "window"}
        assert names <= {*ROLLUPS[rollup].key, *ROLLUPS[rollup].fields}, str(each)


def test_a_ratio_that_a_correction_made_void_is_never_read() -> None:
    ratio = re.compile(r'uptime_ratio|/ \(sum\("up_s"\) \+ sum\("down_s"\)\)')
    asking = [each for each in asked("influxdb") if ratio.search(each.target["query"])]
    assert asking
    for each in asking:
        assert '("up_s" > 0 OR "down_s" > 0)' in each.target["query"], str(each)


def test_every_metric_in_a_query_is_one_of_the_code() -> None:
    files = [
        *(file for package in ("topology", "web", "monitors") for file in (ROOT / package).rglob("*.py")),
        *(ROOT / "docs").glob("metrics.md"),
    ]
    known = {name for file in files for name in re.findall(r"eventsink_\w+", file.read_text("utf-8"))}
    names = {
        name for each in asked("prometheus") for name in re.findall(r"eventsink_\w+", each.target["expr"])
    }
    names = {name.removesuffix("_bucket") for name in names}
    assert len(names) > 10
    assert {name for name in names if name not in known and name.removesuffix("_total") not in known} == set()


def test_dashboards_are_mounted_where_they_are_looked_for() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/eventsink.yaml").read_text())[
        "providers"
    ]
    mounts = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in mounts
    assert Path(provider["options"]["path"]).is_absolute()
