"""Prints docs/metrics.md, which is made of `topology/metrics.py`: `make metrics-page`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from topology.instruments import Declared, declarations
from topology.metrics import EVERYTHING, LABELS

HEAD = """\
# Metrics

Every process has `/metrics` on the port that it listens on, without a key: `eventsink up` and `web` on 8080, `worker`
on 8081, `monitor` on 8082. The names are part of the contract and do not change without a line in the change log.
[`prometheus/`](../prometheus/prometheus.yml) has a configuration with recording and alert rules, and
[the runbook](runbook.md) a paragraph for each alert.

Counters count since the start of the process. What is counted by group and agent is there as 0 from the start, so that
`increase()` sees the first one.

*This page is made of `topology/metrics.py` by `make metrics-page`; do not edit it.*
"""


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield HEAD
    for each in EVERYTHING:
        title, _, rest = (each.__doc__ or "").partition(":")
        yield f"## {title.strip().rstrip('.')}\n"
        if rest:
            sentence = rest.strip()
            yield f"{sentence[0].upper()}{sentence[1:]}\n"
        yield f"Shown by {', '.join(f'`eventsink {name}`' for name in each.shown_by)}.\n"
        yield "| metric | kind | labels | meaning | what to do |"
        yield "|---|---|---|---|---|"
        for declared in declarations(each):
            yield _row(declared)
        yield ""
    yield "## Labels\n"
    yield "No label's values grow with what comes: user ids, file ids, keys and addresses are none.\n"
    yield "| label | its values |"
    yield "|---|---|"
    for name in sorted(LABELS):
        yield f"| `{name}` | {LABELS[name]} |"


def _row(declared: Declared[..., Any]) -> str:
    labels = ", ".join(f"`{name}`" for name in declared.labels)
    return f"| `{declared.name}` | {declared.kind} | {labels} | {declared.meaning} | {declared.remedy} |"


if __name__ == "__main__":
    print(page(), end="")
