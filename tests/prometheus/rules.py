"""The rules as they are in the files, and what they name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "prometheus"
CONFIG = FOLDER / "prometheus.yml"
FILES = sorted((FOLDER / "rules").glob("*.yml"))


def rules() -> Iterator[Mapping[str, Any]]:
    """Every rule, recorded ones first: alerts use what is recorded."""
    found = [
        rule
        for file in FILES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    yield from sorted(found, key=lambda rule: "alert" in rule)


def alerts() -> dict[str, Mapping[str, Any]]:
    """Alerting rules by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> dict[str, Mapping[str, Any]]:
    """Recording rules by name."""
    return {rule["record"]: rule for rule in rules() if "record" in rule}


def metrics_of(expression: str) -> set[str]:
    """Names of metrics of ours in an expression. What is recorded has colons in its name, and is none."""
    return set(re.findall(r"(?<![\w:])eventsink_[a-z_]+(?![\w:])", expression))


def recorded_in(expression: str) -> set[str]:
    """Names of what is recorded in an expression."""
    return set(re.findall(r"\w+:\w+:\w+", expression))


def needed_by(names: Collection[str]) -> list[Mapping[str, Any]]:
    """These alerts, with all that is recorded for them before them."""
    every = list(rules())
    wanted = set(names)
    while True:
        found = [rule for rule in every if rule.get("alert", rule.get("record")) in wanted]
        more = {name for rule in found for name in recorded_in(rule["expr"])} - wanted
        if not more:
            return found
        wanted |= more
