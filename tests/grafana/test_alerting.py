"""The alert rules are ones that Grafana can load: it refuses a file for one mistake in it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from grafana.boards import SOURCES
from tests.grafana.reading import GRAFANA, boards

FILE = GRAFANA / "provisioning/alerting/eventsink.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
RULES: list[dict[str, Any]] = [rule for group in DOCUMENT["groups"] for rule in group["rules"]]
#: What Grafana asks itself, not a data source.
EXPRESSIONS = "__expr__"
DURATION = re.compile(r"\d+[smhd]")

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["uid"]))


def test_there_are_two_each_on_a_data_source_of_its_own() -> None:
    asked = [rule["data"][0]["datasourceUid"] for rule in RULES]
    assert sorted(asked) == sorted(SOURCES.values())
    assert len({rule["uid"] for rule in RULES}) == len(RULES)


def test_groups_say_where_they_belong_and_how_often() -> None:
    assert DOCUMENT["apiVersion"] == 1
    for group in DOCUMENT["groups"]:
        assert group["name"]
        assert group["folder"]
        assert DURATION.fullmatch(group["interval"])


@each_rule
def test_a_rule_has_what_grafana_demands(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", rule["uid"])
    assert rule["title"]
    assert DURATION.fullmatch(rule["for"])
    assert rule["noDataState"] in {"NoData", "OK", "Alerting", "KeepLast"}
    assert rule["execErrState"] in {"Error", "OK", "Alerting", "KeepLast"}
    assert rule["dashboardUid"] in {board["uid"] for board in boards().values()}
    assert {"summary", "description"} <= set(rule["annotations"])
    # Grafana fills in `${NAME}` from the environment; templates have no braces of that kind.
    assert not re.search(r"\$\{", FILE.read_text("utf-8"))


@each_rule
def test_each_step_works_on_an_earlier_one_and_the_last_is_the_condition(rule: dict[str, Any]) -> None:
    known: set[str] = set()
    for step in rule["data"]:
        assert step["model"]["refId"] == step["refId"]
        if step["datasourceUid"] == EXPRESSIONS:
            assert step["model"]["type"] in {"reduce", "threshold"}
            assert step["model"]["expression"] in known
        else:
            assert step["relativeTimeRange"]["from"] > step["relativeTimeRange"]["to"] >= 0
        known.add(step["refId"])
    assert rule["condition"] == rule["data"][-1]["refId"]
    assert rule["data"][-1]["model"]["type"] == "threshold"


@each_rule
def test_annotations_name_values_of_steps_that_are_there(rule: dict[str, Any]) -> None:
    text = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$values\.(\w+)\.Value", text)) <= {step["refId"] for step in rule["data"]}
