"""Whether an alert fires when it should, and is over when what it tells of is. By promtool, in made-up time.

Each case is judged by the rules of its alert alone, with those that record what it uses: all rules over all cases take
six times as long, and no alert looks at another one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.prometheus.rules import alerts, needed_by

#: Values by series, in promtool's words: ``1+0x9`` is ten times 1, ``0+5x3`` is 0 5 10 15.
Series = Mapping[str, str]


class Case(NamedTuple):
    """Quiet in minute ``before``, firing with these labels and this summary in minute ``firing``, quiet again in minute
    ``after``."""

    alert: str
    series: Series
    before: int
    firing: int
    after: int
    labels: Mapping[str, str]
    summary: str


class Quiet(NamedTuple):
    """In none of these minutes do the alerts fire, whatever ``why`` might be taken for. Samples come every 15 s."""

    why: str
    alerts: Sequence[str]
    series: Series
    minutes: Sequence[int]


def turns(*values: float, minutes: int = 30) -> str:
    """Each value for so many minutes."""
    return " ".join(f"{value:g}+0x{minutes - 1}" for value in values)


def rises(start: int = 0, by: int = 5, *, after: int = 10, minutes: int = 3, then: int = 120) -> str:
    """A counter that stands, rises for some minutes, and stands again."""
    top = start + by * minutes
    return f"{start}+0x{after - 1} {start + by}+{by}x{minutes - 1} {top}+0x{then}"


#: Minutes from which on the rules are evaluated every ten minutes: a case of days is to be over in a second.
LONG = 1000

#: What an operator puts into prometheus.yml.
SERVED_AT = "https://ops.example.org/eventsink/runbook"

WORKER = 'instance="worker:8081",job="eventsink-worker"'
WEB = 'instance="web:8080",job="eventsink-web"'
MONITOR = 'instance="monitor:8082",job="eventsink-monitor"'
AT_WORKER = {"instance": "worker:8081", "job": "eventsink-worker"}
AT_WEB = {"instance": "web:8080", "job": "eventsink-web"}
AT_MONITOR = {"instance": "monitor:8082", "job": "eventsink-monitor"}
AGENT = AT_WORKER | {"agent": "storage"}
ALL = f'eventsink_service_up{{service="clowder",region="all",{WORKER}}}'
CLOWDER = {"service": "clowder"}


def of_agent(name: str) -> str:
    """A series of the agent ``storage``."""
    return f'{name}{{agent="storage",{WORKER}}}'


def fire_and_are_over(cases: Sequence[Case], folder: Path) -> None:
    """Each case, in one run of promtool."""
    _pass(
        folder,
        (
            ([case.alert], "10m" if case.after > LONG else "1m", _case(case, alerts()[case.alert]))
            for case in cases
        ),
    )


def stay_quiet(cases: Sequence[Quiet], folder: Path) -> None:
    """Each case, in one run of promtool."""
    _pass(folder, ((case.alerts, "15s", _quiet(case)) for case in cases))


def _pass(folder: Path, tests: Iterator[tuple[Sequence[str], str, Mapping[str, object]]]) -> None:
    files = []
    for number, (names, every, test) in enumerate(tests):
        rules = folder / f"{number}.rules.yml"
        _written(rules, {"groups": [{"name": "needed", "rules": [dict(rule) for rule in needed_by(names)]}]})
        files.append(folder / f"{number}.test.yml")
        _written(files[-1], {"rule_files": [str(rules)], "evaluation_interval": every, "tests": [test]})
    ran = subprocess.run(["promtool", "test", "rules", *files], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _written(file: Path, document: Mapping[str, object]) -> None:
    file.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))


def _quiet(case: Quiet) -> Mapping[str, object]:
    return {
        "name": case.why,
        "interval": "15s",
        "input_series": _input(case.series),
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}
            for minute in case.minutes
            for alert in case.alerts
        ],
    }


def _case(case: Case, alert: Mapping[str, Mapping[str, str]]) -> Mapping[str, object]:
    firing = {
        "exp_labels": {**case.labels, "severity": alert["labels"]["severity"]},
        "exp_annotations": {
            **alert["annotations"],
            "summary": case.summary,
            "runbook_url": f"{SERVED_AT}#{case.alert.lower()}",
        },
    }
    moments: Sequence[tuple[int, Sequence[object]]] = (
        (case.before, []),
        (case.firing, [firing]),
        (case.after, []),
    )
    return {
        "name": case.alert,
        "interval": "1m",
        "external_labels": {"runbook": SERVED_AT},
        "input_series": _input(case.series),
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": case.alert, "exp_alerts": expected}
            for minute, expected in moments
        ],
    }


def _input(series: Series) -> Sequence[Mapping[str, str]]:
    return [{"series": name, "values": values} for name, values in series.items()]
