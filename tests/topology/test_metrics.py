"""Names, labels and words of the metrics, and that a slip in one is found before it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from scripts.metrics_page import page
from topology.instruments import declarations
from topology.metrics import EVERYTHING, LABELS, ConnectionMetrics, Metrics

ROOT = Path(__file__).parents[2]
DECLARED = [declared for each in EVERYTHING for declared in declarations(each)]
#: Those that outsiders were promised first, with their labels.
PROMISED = {
    "eventsink_events_total": ("group", "agent", "outcome"),
    "eventsink_events_received_total": ("group",),
    "eventsink_agent_lag_events": ("agent",),
    "eventsink_agent_lag_seconds": ("agent",),
    "eventsink_agent_up": ("agent",),
    "eventsink_watermark_seconds": ("agent",),
    "eventsink_checkpoint_age_seconds": ("agent",),
    "eventsink_sink_writes_total": ("sink", "outcome"),
    "eventsink_sink_pending": ("sink",),
    "eventsink_spool_events": (),
    "eventsink_ingest_requests_total": ("code",),
    "eventsink_ledger_imbalance_events": ("agent",),
}


def test_what_was_promised_is_declared() -> None:
    declared = {each.name: tuple(each.labels) for each in DECLARED}
    assert PROMISED.items() <= declared.items()


def test_every_name_is_declared_once_and_well_formed() -> None:
    names = [each.name for each in DECLARED]
    assert len(names) == len(set(names))
    for each in DECLARED:
        assert re.fullmatch(r"eventsink_[a-z][a-z_]*", each.name)
        assert (each.kind == "counter") == each.name.endswith("_total")


def test_every_metric_says_what_it_means_and_what_to_do() -> None:
    for each in DECLARED:
        assert each.meaning.endswith("."), each.name
        assert each.remedy.endswith("."), each.name
        assert "|" not in each.meaning + each.remedy, each.name  # it stands in a table


def test_of_every_label_it_is_known_what_bounds_it() -> None:
    assert {label for each in DECLARED for label in each.labels} == set(LABELS)


def test_nothing_else_makes_a_metric() -> None:
    makers = re.compile(
        r"^from prometheus_client import .*\b(Counter|Gauge|Histogram|Summary|Info|Enum)\b", re.MULTILINE
    )
    packages = ("schemas", "topology", "agents", "web", "monitors", "cli")
    found = [
        file.relative_to(ROOT)
        for package in packages
        for file in (ROOT / package).rglob("*.py")
        if makers.search(file.read_text())
    ]
    assert found == [Path("topology/instruments.py")]


def test_a_monitor_that_uses_them_loads_neither_faust_nor_a_brokers_client() -> None:
    program = (
        "import sys, topology.metrics, monitors.running\n"
        "print([name for name in ('faust', 'aio_pika', 'aiormq', 'motor', 'influxdb_client') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_the_page_is_what_the_module_says() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == page(), "run `make metrics-page`"


def test_the_scraped_names_are_the_declared_ones() -> None:
    registry = CollectorRegistry()
    made = [each(registry) for each in EVERYTHING]
    for instruments in made:
        for declared in declarations(type(instruments)):
            family = declared.__get__(instruments, type(instruments))
            family(**dict.fromkeys(declared.labels, "x"))
    scraped = {
        sample.name
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    ours = {each.name for each in DECLARED if each.kind != "histogram"}
    for each in DECLARED:
        if each.kind == "histogram":
            ours |= {f"{each.name}_{part}" for part in ("bucket", "count", "sum")}
    assert scraped == ours


def test_what_has_no_labels_is_there_as_0_from_the_start() -> None:
    registry = CollectorRegistry()
    ConnectionMetrics(registry)
    assert registry.get_sample_value("eventsink_web_connections_refused_total") == 0


def test_a_family_can_be_emptied() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.service_up(service="clowder", region="all").set(1)
    metrics.service_up.clear()
    assert registry.get_sample_value("eventsink_service_up", {"service": "clowder", "region": "all"}) is None


@pytest.mark.processes
def test_a_slip_in_a_name_a_label_or_an_outcome_fails_the_type_check(tmp_path: Path) -> None:
    slips = {
        'metrics.agent_lag_event(agent="a").set(1)': "attr-defined",
        'metrics.agent_lag_events(agnet="a").set(1)': "call-arg",
        "metrics.agent_lag_events().set(1)": "call-arg",
        'metrics.events(group="g", agent="a", outcome="lost").inc()': "arg-type",
        'metrics.events(group="g", agent="a", outcome="late").set(1)': "attr-defined",
        'metrics.agent_lag_events(agent="a").observe(1)': "attr-defined",
    }
    file = tmp_path / "slips.py"
    good = 'metrics.events(group="g", agent="a", outcome="late").inc()'
    file.write_text(
        "from topology.metrics import Metrics\n\n\ndef use(metrics: Metrics) -> None:\n"
        + "".join(f"    {line}\n" for line in [good, *slips])
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = dict(re.findall(r":(\d+): error: .*\[([a-z-]+)\]", checked.stdout))
    assert found == {str(number): code for number, code in enumerate(slips.values(), 6)}, checked.stdout
