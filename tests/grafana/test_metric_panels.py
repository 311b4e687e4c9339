"""Every panel on metrics shows something, on a real Prometheus that holds two hours of them."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.grafana.reading import GRAFANA, NOW_S, asked, boards, chosen, filled, span_s, used
from tests.servers.daemons import Daemon

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

PANELS = {str(each): each for each in asked("prometheus")}
SCRAPED_EVERY_S = 15
HELD_S = 2 * 3600
AGENTS = {"storage": "rollups", "archive": "archive"}

Result = list[dict[str, Any]]


def series() -> Iterator[tuple[str, str, float, float]]:
    """Type, name with labels, first value, and what each scrape adds. Names and labels are the contract's."""
    for agent, group in AGENTS.items():
        of = f'agent="{agent}"'
        for outcome in ("folded", "ignored", "duplicate", "late", "dead"):
            labels = f'group="{group}",{of},outcome="{outcome}"'
            yield "counter", f"eventsink_events_total{{{labels}}}", 0, 30
        yield "counter", f'eventsink_events_received_total{{group="{group}"}}', 0, 150
        for name, value in (
            ("up", 1),
            ("stuck", 0),
            ("lag_events", 12),
            ("lag_seconds", 400 if agent == "archive" else 2),
        ):
            yield "gauge", f"eventsink_agent_{name}{{{of}}}", value, 0
        yield "gauge", f"eventsink_watermark_seconds{{{of}}}", NOW_S - HELD_S - 11, SCRAPED_EVERY_S
        yield "gauge", f"eventsink_checkpoint_age_seconds{{{of}}}", 1, 0
        yield "gauge", f"eventsink_ledger_imbalance_events{{{of}}}", 0, 0
        for limit in ("0.1", "1.0", "+Inf"):  # all of them take less than a tenth of a second
            yield "gauge", f'eventsink_agent_batch_seconds_bucket{{{of},le="{limit}"}}', 0, 15
    yield "gauge", 'eventsink_dependency_away{dependency="influxdb"}', 1, 0
    yield "counter", 'eventsink_sink_writes_total{sink="influxdb",outcome="written"}', 0, 30
    yield "gauge", 'eventsink_sink_pending{sink="influxdb"}', 5, 0
    yield "counter", 'eventsink_ingest_requests_total{code="202"}', 0, 15
    yield "gauge", 'eventsink_spool_events{instance="web:8080"}', 3, 0
    yield "counter", 'eventsink_keys_over_budget_total{rollup="space_storage",tag="space_id"}', 0, 1
    yield "gauge", 'up{job="eventsink-worker",instance="worker:8081"}', 1, 0
    yield "counter", 'eventsink_forwarded_events_total{agent="amplitude",result="sent"}', 0, 15
    yield "gauge", 'eventsink_forward_pending_events{agent="amplitude"}', 7, 0


def openmetrics() -> str:
    """All of it, as promtool takes it."""
    lines: list[str] = []
    told: set[str] = set()
    for kind, name, first, step in sorted(series(), key=lambda each: each[1]):
        family = name.partition("{")[0].removesuffix("_total")
        if family not in told:
            told.add(family)
            lines.append(f"# TYPE {family} {kind}")
        for number in range(HELD_S // SCRAPED_EVERY_S + 1):
            at = NOW_S - HELD_S + number * SCRAPED_EVERY_S
            lines.append(f"{name} {first + number * step} {at}")
    return "\n".join([*lines, "# EOF", ""])


class Prometheus:
    """The server with nothing to scrape: what it holds was made before."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def ask(self, path: str, **parameters: object) -> Any:
        status, body = self._daemon.ask("GET", f"/api/v1/{path}?{urlencode(parameters)}")
        answer = json.loads(body)
        assert status == 200, answer
        return answer["data"]

    def at(self, expr: str) -> Result:
        result: Result = self.ask("query", query=expr, time=NOW_S)["result"]
        return result

    def over(self, expr: str, since_s: int) -> Result:
        found = self.ask("query_range", query=expr, start=since_s, end=NOW_S, step=60)
        result: Result = found["result"]
        return result


@pytest.fixture(scope="module")
def prometheus(free_port: Callable[[], int]) -> Iterator[Prometheus]:
    folder = Path(tempfile.mkdtemp(prefix="eventsink-prometheus-"))
    (folder / "prometheus.yml").write_text("global: {}\n")
    (folder / "metrics").write_text(openmetrics())
    port = free_port()
    daemon = Daemon(
        "prometheus",
        [
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        package="prometheus",
        port=port,
        ready="/-/ready",
    )
    try:
        made = subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "metrics", folder / "data"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        daemon.start(folder)
        yield Prometheus(daemon)
    finally:
        daemon.end()
        shutil.rmtree(folder, ignore_errors=True)


def values(result: Result) -> Sequence[float]:
    """Every number of an answer."""
    pairs = [pair for one in result for pair in one.get("values", [one.get("value")])]
    return [float(value) for _, value in pairs]


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_shows_numbers(name: str, prometheus: Prometheus) -> None:
    each = PANELS[name]
    board = boards()[each.board]
    since_s = NOW_S - span_s(board)
    expr = filled(each.target["expr"], chosen(board), interval="1m", since_s=since_s)
    result = prometheus.at(expr) if each.target["instant"] else prometheus.over(expr, since_s)
    assert result
    assert all(math.isfinite(value) for value in values(result))
    # A label in the legend that no series has would show as nothing.
    for one in result:
        assert set(re.findall(r"\{\{(\w+)\}\}", each.target["legendFormat"])) <= set(one["metric"]), one


@pytest.mark.parametrize("name", PANELS)
def test_only_the_agents_that_are_chosen_are_shown(name: str, prometheus: Prometheus) -> None:
    each = PANELS[name]
    if "agent" not in used(each.target["expr"]):
        assert "$" not in each.target["expr"].replace("$__rate_interval", "")
        return
    expr = filled(each.target["expr"], {"agent": "nobody"}, interval="1m", since_s=NOW_S - 3600)
    assert prometheus.at(expr) == []


def test_the_numbers_are_those_of_the_metrics(prometheus: Prometheus) -> None:
    def shown(title: str) -> float:
        each = PANELS[f"pipeline/{title}/A"]
        value, *_ = values(
            prometheus.at(filled(each.target["expr"], chosen(boards()["pipeline"]), interval="1m", since_s=0))
        )
        return value

    assert shown("Agents down") == 0
    assert shown("Dependencies away") == 1
    assert 0 < shown("Batch in hand") < 0.1
    assert shown("Events") == pytest.approx(10)  # 150 each 15 s, which each group reads
    assert shown("Largest lag") == 400
    assert shown("In the spool") == 3
    assert shown("Dead letters, last hour") == pytest.approx(2 * 30 * 240, rel=0.01)


def test_the_variable_offers_the_agents(prometheus: Prometheus) -> None:
    (variable,) = [each for each in boards()["pipeline"]["templating"]["list"] if each["type"] == "query"]
    asked_for = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert asked_for is not None
    found = prometheus.ask(
        f"label/{asked_for[2]}/values", **{"match[]": asked_for[1], "start": NOW_S - 3600, "end": NOW_S}
    )
    assert set(found) == set(AGENTS)


def test_the_alert_on_lag_names_the_agent_that_is_behind(prometheus: Prometheus) -> None:
    rules = yaml.safe_load((GRAFANA / "provisioning/alerting/eventsink.yaml").read_text())["groups"][0][
        "rules"
    ]
    rule = next(rule for rule in rules if rule["uid"] == "eventsink-agent-behind")
    query, _, condition = rule["data"]
    lag = {one["metric"]["agent"]: float(one["value"][1]) for one in prometheus.at(query["model"]["expr"])}
    (limit,) = condition["model"]["conditions"][0]["evaluator"]["params"]
    assert [agent for agent, seconds in lag.items() if seconds > limit] == ["archive"]
