"""Real input gives the numbers that it must give, embedded and on real servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deployments import BOTH, Deployment
from tests.processes import (
    SAMPLE,
    comes_to_the_expected_numbers,
    differences,
    expected,
    holds_each_event_once,
    sample_lines,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(480)]


@pytest.mark.parametrize("deployment", BOTH)
async def test_the_sample_gives_exactly_the_expected_rollups(
    deployment: Deployment,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    free_port: Callable[[], int],
) -> None:
    instance = deployment(tmp_path, request)
    service = await instance.start("up", free_port())
    sent = await instance.run("send", str(SAMPLE))
    assert sent.code == 0, sent.err
    await comes_to_the_expected_numbers(instance)
    want = expected("1h")["extractor_runtime"]
    assert (
        differences("extractor_runtime", await instance.printed_rows("extractor_runtime", "1h"), want) == []
    )
    await holds_each_event_once(instance, sample_lines())
    assert 'eventsink_ledger_imbalance_events{agent="storage"} 0.0' in await service.metrics()
    assert await service.stop() == 0


async def test_names_in_any_alphabet_come_back_as_they_were(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    from tests.deployments import embedded

    instance = embedded(tmp_path)
    service = await instance.start("up", free_port())
    line = json.dumps(
        {"type": "storage.file_uploaded", "file_id": "f", "bytes": 1, "space_id": "Žluťoučký 空间 🐎"},
        ensure_ascii=False,
    ).encode()
    assert (await instance.run("send", "-", input=line)).code == 0
    await holds_each_event_once(instance, [line])
    (event,) = await instance.events()
    assert event["space_id"] == "Žluťoučký 空间 🐎"
    assert await service.stop() == 0
