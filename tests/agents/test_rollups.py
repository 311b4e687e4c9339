"""What outsiders rely on: the name, key tags, fields and types of every rollup, to the letter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents import ROLLUPS
from tests.topology.engine import NOW_MS, publish, rollup, started

#: name: (key tags, fields that are integers, fields that are floats)
CONTRACT = {
    "space_storage": ("space_id", "bytes_added bytes_removed files_added files_removed", ""),
    "extractor_runtime": (
        "extractor",
        "submitted started succeeded failed skipped retried runtime_s_count wait_s_count",
        (
            "runtime_s_sum runtime_s_min runtime_s_max runtime_s_p50 runtime_s_p95 runtime_s_p99"
            " wait_s_sum wait_s_p50 wait_s_p95"
        ),
    ),
    "service_uptime": (
        "service region",
        "checks failures",
        (
            "uptime_ratio coverage up_s down_s unknown_s maintenance_s"
            " response_ms_mean response_ms_max response_ms_p95"
        ),
    ),
    "service_page": (
        "service region",
        "fetches failures",
        "bytes_mean elapsed_ms_mean elapsed_ms_max elapsed_ms_p95",
    ),
    "service_connections": ("service region", "connections_max", "connections_mean"),
    "queue_length": ("service queue", "messages_max", "messages_mean"),
    "resource_traffic": ("action resource_type space_id", "events bytes items unique_users", ""),
    "user_activity": ("action", "events unique_users", ""),
}

HOUR_AGO = NOW_MS - 3_600_000


def at(seconds: int, type: str, **fields: Any) -> Mapping[str, Any]:
    return {"type": type, "time": HOUR_AGO + 1000 * seconds, "user_id": "u", **fields}


JOB = {"job_id": "j", "extractor": "x"}
PLACE = {"service": "clowder", "region": "eu-west"}
#: So much of everything that each field of each rollup has a value. All numbers are whole where they may be.
EVENTS = [
    at(0, "storage.file_uploaded", file_id="f", space_id="s", bytes=1),
    at(
        0,
        "traffic.resource_downloaded",
        resource_type="dataset",
        resource_id="d",
        space_id="s",
        bytes=1,
        items=1,
    ),
    at(0, "activity.logged_in"),
    at(0, "extraction.submitted", **JOB),
    at(1, "extraction.started", **JOB),
    at(2, "extraction.succeeded", **JOB),
    at(0, "health.pinged", up=True, response_ms={"min": 1, "avg": 2, "max": 3}, **PLACE),
    at(1, "health.page_fetched", up=True, status=200, bytes=4, elapsed_ms=5, **PLACE),
    at(2, "health.connections_counted", connections=6, **PLACE),
    at(3, "health.queue_measured", service="clowder", queue="q", messages=7),
    at(300, "activity.logged_in"),  # time passes
]


@pytest.mark.parametrize("name", CONTRACT)
def test_key_tags_and_fields_are_those_of_the_contract(name: str) -> None:
    key, integers, floats = CONTRACT[name]
    declared = ROLLUPS[name]
    assert declared.name == name
    assert declared.key == tuple(key.split())
    assert sorted(declared.fields) == sorted((integers + " " + floats).split())
    assert list(declared.windows) == ["1m", "1h", "1d"]


def test_there_are_these_rollups_and_no_others() -> None:
    assert set(ROLLUPS) == set(CONTRACT)


async def test_every_field_comes_to_the_sink_as_the_type_that_it_has_for_ever(tmp_path: Path) -> None:
    # A store that has seen a field as an integer refuses it as a float, and the other way round.
    async with started(tmp_path) as engine:
        await publish(engine.stores, EVENTS)
        await engine.folded()
        await engine.checkpoint()
        for name, (_, integers, floats) in CONTRACT.items():
            want = dict.fromkeys(integers.split(), int) | dict.fromkeys(floats.split(), float)
            for window in ROLLUPS[name].windows:
                rows = await rollup(engine.stores, name, window)
                types = {field: type(value) for row in rows.values() for field, value in row.items()}
                assert types == want, f"{name} {window}"
