"""The rules against the metrics, the code and the runbook: every name that one of them uses is one of the other's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from aiohttp.web import RouteDef

from cli import monitor as monitor_command
from cli import up, web, worker
from cli.main import COMMANDS
from cli.settings_sources import NAMES
from tests.prometheus.rules import CONFIG, FILES, ROOT, alerts, metrics_of, recorded, recorded_in, rules
from tests.test_stack import SERVICES
from topology.instruments import declarations
from topology.metrics import EVERYTHING
from web import runbook

RUNBOOK = ROOT / "docs" / "runbook.md"
DECLARED = {declared.name: declared for each in EVERYTHING for declared in declarations(each)}


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    return {runbook.anchor(title) for title in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)}


def bare(name: str) -> str:
    """Of a series of a histogram, the histogram."""
    for suffix in ("_bucket", "_count", "_sum"):
        if name.endswith(suffix) and name.removesuffix(suffix) in DECLARED:
            return name.removesuffix(suffix)
    return name


def test_every_metric_in_a_rule_is_declared() -> None:
    used = {bare(name) for rule in rules() for name in metrics_of(rule["expr"])}
    assert used <= set(DECLARED)
    assert used  # the pattern finds them


def test_every_label_that_a_rule_chooses_by_is_one_of_the_metric() -> None:
    for rule in rules():
        for name, matchers in re.findall(r"(eventsink_[a-z_]+)\{([^}]*)\}", rule["expr"]):
            chosen = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
            assert chosen <= set(DECLARED[bare(name)].labels), (name, chosen)


def test_what_a_rule_takes_from_another_is_recorded() -> None:
    used = {name for rule in rules() for name in recorded_in(rule["expr"])}
    assert used <= set(recorded())


def test_every_alert_says_what_it_is_what_to_do_and_where_to_read_on() -> None:
    there = anchors(RUNBOOK)
    for name, alert in alerts().items():
        said = alert["annotations"]
        assert set(said) == {"summary", "remedy", "runbook_url"}, name
        assert "{{" not in said["remedy"], name
        page, _, anchor = said["runbook_url"].partition("#")
        assert page == "{{ $externalLabels.runbook }}"
        assert anchor == name.lower()
        assert anchor in there, f"{name} has no paragraph in docs/runbook.md"
        assert alert["labels"]["severity"] in {"page", "ticket"}


def test_the_label_that_leads_to_the_runbook_is_where_the_local_stack_serves_it() -> None:
    labels = yaml.safe_load(CONFIG.read_text())["global"]["external_labels"]
    assert labels == {"runbook": "${RUNBOOK_URL}"}
    host, _, path = (
        SERVICES["prometheus"]["environment"]["RUNBOOK_URL"].removeprefix("http://").partition("/")
    )
    assert f"{host}:8080" in SERVICES["web"]["ports"]
    assert f"/{path}" in {route.path for route in runbook.routes() if isinstance(route, RouteDef)}


def test_every_alert_leads_to_a_heading_of_the_page_that_is_served() -> None:
    ids = set(re.findall(r'<h3 id="([^"]+)"', runbook.page(RUNBOOK.read_text())))
    assert ids == {alert["annotations"]["runbook_url"].partition("#")[2] for alert in alerts().values()}


def test_the_runbook_has_no_paragraph_of_an_alert_that_is_gone() -> None:
    titles = re.findall(r"^### (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert titles == list(dict.fromkeys(titles))
    assert set(titles) == set(alerts())


def test_every_command_in_the_runbook_exists() -> None:
    for words in re.findall(r"`eventsink ([a-z]+)", RUNBOOK.read_text()):
        assert words in COMMANDS, words


def test_every_setting_and_every_metric_in_the_runbook_exists() -> None:
    text = RUNBOOK.read_text()
    named = set(re.findall(r"\bEVENTSINK_[A-Z_]*[A-Z]\b(?!_…)", text))
    assert named <= NAMES
    assert metrics_of(text) <= set(DECLARED)
    assert recorded_in(text) <= set(recorded())


def test_every_path_of_a_process_is_scraped_at_its_own_port() -> None:
    jobs = {
        each["job_name"]: each["static_configs"][0]["targets"]
        for each in yaml.safe_load(CONFIG.read_text())["scrape_configs"]
    }

    def port(command: object) -> object:
        return next(option.default for option in command.params if option.name == "port")  # type: ignore[attr-defined] # click's

    assert jobs["eventsink-worker"] == [f"worker:{port(worker.command)}"]
    assert jobs["eventsink-web"] == [f"web:{port(web.command)}"] == [f"web:{port(up.command)}"]
    assert jobs["eventsink-monitor"] == [f"monitor:{port(monitor_command.command)}"]


@pytest.mark.servers
def test_promtool_finds_nothing_wrong() -> None:
    for arguments in (["config", str(CONFIG)], *(["rules", "--lint-fatal", str(file)] for file in FILES)):
        checked = subprocess.run(
            ["promtool", "check", *arguments], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
