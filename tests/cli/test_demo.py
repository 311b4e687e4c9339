"""The made-up platform: its events are events, fit together, and reach the log."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from click.testing import CliRunner

from cli import parts
from cli.demo import tick
from cli.demonstration import EXTRACTORS, Platform
from cli.main import eventsink
from cli.settings import DATABASE_FILE, load
from schemas.reading import Refusal, read
from topology.log import Message
from topology.sqlite.file import Database
from topology.sqlite.log import SqliteLog

BEGAN_MS = 1_795_176_000_000
HOUR_MS = 3_600_000


@cache
def hour(seed: int = 7, rate: float = 2) -> list[dict[str, Any]]:
    return Platform(Random(seed), began_ms=BEGAN_MS, rate=rate).until(BEGAN_MS + HOUR_MS)


def lines_in(folder: Path) -> list[bytes]:
    async def messages() -> list[Message]:
        log = SqliteLog(Database(folder / DATABASE_FILE, create=False))
        await log.open()
        try:
            return list(await log.read(0, limit=10**6, max_bytes=10**9))
        finally:
            await log.close()

    return [line for message in asyncio.run(messages()) for line in message.body.split(b"\n")]


def test_every_event_is_one_that_eventsink_takes() -> None:
    for event in hour():
        assert not isinstance(read(msgspec.json.encode(event)), Refusal), event


def test_every_rollup_has_something_to_count() -> None:
    assert {event["type"] for event in hour()} >= {
        "storage.file_uploaded",
        "storage.file_deleted",
        "extraction.submitted",
        "extraction.started",
        "extraction.succeeded",
        "extraction.failed",
        "traffic.page_viewed",
        "traffic.resource_viewed",
        "traffic.resource_downloaded",
        "activity.logged_in",
        "activity.signed_up",
        "activity.resource_created",
        "health.pinged",
        "health.page_fetched",
        "health.connections_counted",
        "health.queue_measured",
    }


def test_users_do_as_much_as_they_are_asked_to() -> None:
    for rate in (2, 8):
        done = [event for event in hour(rate=rate) if "user_id" in event]
        assert abs(len(done) / 3600 / rate - 1) < 0.1


def test_times_never_go_back_and_none_is_ahead() -> None:
    platform = Platform(Random(1), began_ms=BEGAN_MS, rate=50)
    times = [event["time"] for second in range(60) for event in platform.until(BEGAN_MS + second * 1000)]
    assert times == sorted(times)
    assert times[-1] <= "2026-11-20T12:00:59.000Z"


def test_the_same_randomness_gives_the_same_events_however_often_it_is_asked() -> None:
    platform = Platform(Random(7), began_ms=BEGAN_MS, rate=2)
    pieces = [platform.until(BEGAN_MS + piece * HOUR_MS // 36) for piece in range(1, 37)]
    assert [event for piece in pieces for event in piece] == hour(7)
    assert hour(7) != hour(8)


def test_a_job_is_submitted_then_started_then_ended() -> None:
    words: dict[str, list[str]] = {}
    for event in hour():
        if "job_id" in event:
            words.setdefault(event["job_id"], []).append(event["type"].partition(".")[2])
    ended = Counter(told[-1] for told in words.values() if len(told) == 3)
    assert all(told[:2] == ["submitted", "started"][: len(told)] for told in words.values())
    assert 0 < ended["failed"] < ended["succeeded"]
    assert {event["extractor"] for event in hour() if "extractor" in event} == {
        extractor.name for extractor in EXTRACTORS
    }


def test_only_files_that_are_there_are_used_and_their_size_is_one() -> None:
    sizes: dict[str, int] = {}
    for event in hour():
        match event["type"]:
            case "storage.file_uploaded":
                sizes[event["file_id"]] = event["bytes"]
            case "storage.file_deleted":
                assert sizes.pop(event["file_id"]) == event["bytes"]
            case "traffic.resource_downloaded":
                assert sizes[event["resource_id"]] == event["bytes"]


def test_services_are_down_now_and_then_and_come_back() -> None:
    day = Platform(Random(3), began_ms=BEGAN_MS, rate=0.01).until(BEGAN_MS + 24 * HOUR_MS)
    pings = [event["up"] for event in day if event["type"] == "health.pinged"]
    assert 0.9 < sum(pings) / len(pings) < 1


def test_it_sends_to_the_log_and_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        eventsink, ["demo", "--data", str(tmp_path), "--rate", "1000", "--events", "20"]
    )
    assert result.exit_code == 0, result.output
    count = len(lines_in(tmp_path))
    assert count >= 20
    assert result.stdout.splitlines()[-1] == f"sent {count}"
    assert json.loads(lines_in(tmp_path)[0])["source"] == "demo"


async def test_a_quiet_moment_sends_nothing(tmp_path: Path) -> None:
    log = parts.open_log(load({}, data=tmp_path))
    await log.open()
    platform = Platform(Random(1), began_ms=BEGAN_MS, rate=5)
    assert await tick(log, platform, BEGAN_MS) > 0
    end = await log.end_offset()
    assert await tick(log, platform, BEGAN_MS) == 0
    assert await log.end_offset() == end
    await log.close()


def test_a_rate_that_makes_no_sense_is_wrong_use() -> None:
    for rate in ("0", "-1", "x", "1001"):
        assert CliRunner().invoke(eventsink, ["demo", "--rate", rate]).exit_code == 2
