"""The six hours of the sample: every line is an event, and they add up to the numbers that are expected."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from schemas.canonical import canonical
from schemas.events import (
    Event,
    FileDeleted,
    FileUploaded,
    LoggedIn,
    ResourceDownloaded,
    ResourceViewed,
    SignedUp,
)
from schemas.reading import Refusal, read, split
from schemas.times import rfc3339

DATA = Path(__file__).parent.parent / "data"
LINES = split((DATA / "clowder-6h.jsonl").read_bytes())
WINDOWS_MS = {"1m": 60_000, "1h": 3_600_000}

Rows = dict[tuple[str, ...], Counter[str]]


def events() -> list[Event]:
    results = [read(line) for line in LINES]
    assert [result for result in results if isinstance(result, Refusal)] == []
    return [result for result in results if isinstance(result, Event)]


def expected(window: str, rollup: str, keys: tuple[str, ...]) -> Rows:
    rows = json.loads((DATA / f"clowder-6h.expected-{window}.json").read_bytes())[rollup]
    return {
        tuple(row[key] for key in ("time", *keys)): Counter(
            {name: value for name, value in row.items() if name not in ("time", *keys)}
        )
        for row in rows
    }


def start(event: Event, window: str) -> str:
    assert event.time is not None
    return rfc3339(event.time - event.time % WINDOWS_MS[window])


def test_every_line_is_an_event_with_a_time() -> None:
    assert len(LINES) == 3059
    assert all(isinstance(event.time, int) for event in events())


def test_every_line_survives_the_archive() -> None:
    for event in events():
        assert event.time is not None
        assert read(canonical(event, time_ms=event.time)) == event


@pytest.mark.parametrize("window", WINDOWS_MS)
def test_bytes_and_files_add_up(window: str) -> None:
    rows: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for event in events():
        if isinstance(event, FileUploaded | FileDeleted):
            change = "added" if isinstance(event, FileUploaded) else "removed"
            row = rows[start(event, window), event.space_id or "unknown"]
            row[f"bytes_{change}"] += event.bytes
            row[f"files_{change}"] += 1
    assert rows == expected(window, "space_storage", ("space_id",))


@pytest.mark.parametrize("window", WINDOWS_MS)
def test_traffic_adds_up(window: str) -> None:
    rows: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    users: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for event in events():
        if isinstance(event, ResourceViewed | ResourceDownloaded):
            action = "viewed" if isinstance(event, ResourceViewed) else "downloaded"
            key = (start(event, window), action, event.resource_type, event.space_id or "unknown")
            rows[key]["events"] += 1
            if isinstance(event, ResourceDownloaded):
                rows[key]["bytes"] += event.bytes or 0
                rows[key]["items"] += event.items or 0
            if event.user_id is not None:
                users[key].add(event.user_id)
                rows[key]["unique_users"] = len(users[key])
    assert rows == expected(window, "resource_traffic", ("action", "resource_type", "space_id"))


@pytest.mark.parametrize("window", WINDOWS_MS)
def test_activity_adds_up(window: str) -> None:
    rows: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    users: defaultdict[tuple[str, ...], set[Any]] = defaultdict(set)
    for event in events():
        if isinstance(event, SignedUp | LoggedIn):
            key = (start(event, window), event.type.removeprefix("activity."))
            rows[key]["events"] += 1
            users[key].add(event.user_id)
            rows[key]["unique_users"] = len(users[key])
    assert rows == expected(window, "user_activity", ("action",))
