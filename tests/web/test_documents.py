"""Documents: what is absent is left out, and what is stale."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

from agents import ROLLUPS
from tests.web.filling import NOW_S, point, raw
from topology.sinks import Point
from web.documents import (
    event_document,
    events_document,
    rollup_csv,
    rollup_document,
    rollups_document,
)

STORAGE = ROLLUPS["space_storage"]


@dataclass
class Uptime:
    """As much of ``service_uptime`` as its stale ratio needs."""

    name: str = "service_uptime"
    key: tuple[str, ...] = ("service", "region")
    fields: tuple[str, ...] = ("uptime_ratio", "up_s", "down_s", "unknown_s")
    windows: Mapping[str, object] = field(default_factory=lambda: {"1m": 60})


def uptime(**fields: float) -> Point:
    return Point("service_uptime", "1m", NOW_S, (("service", "clowder"), ("region", "eu")), fields)


def test_a_row_is_time_then_tags_then_fields_without_the_absent() -> None:
    document = rollup_document(STORAGE, "1m", [point(0, bytes_added=7, files_added=0)])
    assert document == {
        "rollup": "space_storage",
        "window": "1m",
        "rows": [{"time": "2026-11-23T21:00:00Z", "space_id": "s1", "bytes_added": 7, "files_added": 0}],
    }
    assert list(document["rows"][0]) == ["time", "space_id", "bytes_added", "files_added"]


def test_csv_has_all_columns_and_leaves_the_absent_empty() -> None:
    text = rollup_csv(STORAGE, [point(0, bytes_added=7), point(1, 'a,"b"\n', files_removed=0)])
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"time": "2026-11-23T21:00:00Z", "space_id": "s1", "bytes_added": "7"}
        | dict.fromkeys(("bytes_removed", "files_added", "files_removed"), ""),
        {"time": "2026-11-23T21:01:00Z", "space_id": 'a,"b"\n', "files_removed": "0"}
        | dict.fromkeys(("bytes_added", "bytes_removed", "files_added"), ""),
    ]


def test_no_rows_are_a_line_of_names() -> None:
    assert rollup_csv(STORAGE, []).strip() == (
        "time,space_id,bytes_added,bytes_removed,files_added,files_removed"
    )


def test_a_ratio_of_no_known_time_is_stale_and_left_out() -> None:
    # up_s + down_s = 0: a correction made the window unknown, and the store still has the old ratio.
    stale = uptime(uptime_ratio=0.5, up_s=0.0, down_s=0.0, unknown_s=60.0)
    down = uptime(uptime_ratio=0.0, up_s=0.0, down_s=60.0, unknown_s=0.0)
    first, second = rollup_document(Uptime(), "1m", [stale, down])["rows"]
    assert "uptime_ratio" not in first
    assert first["unknown_s"] == 60.0
    assert second["uptime_ratio"] == 0.0
    assert rollup_csv(Uptime(), [stale]).splitlines()[1] == "2026-11-23T21:00:00Z,clowder,eu,,0.0,0.0,60.0"


def test_the_list_of_rollups_tells_windows_key_and_fields() -> None:
    (document,) = rollups_document([STORAGE])["rollups"]
    assert document == {
        "name": "space_storage",
        "windows": ["1m", "1h", "1d"],
        "key": ("space_id",),
        "fields": ("bytes_added", "bytes_removed", "files_added", "files_removed"),
    }


def test_an_event_has_its_position_and_arrival_before_its_own_fields() -> None:
    document = event_document(raw(3, user_id="u"))
    assert document == {
        "position": "0/3/0",
        "received": "2026-11-23T21:00:00.003Z",
        "type": "traffic.page_viewed",
        "time": "2026-11-23T21:00:00.000Z",
        "url": "https://example.org/3",
        "user_id": "u",
    }
    assert list(document)[:2] == ["position", "received"]


def test_an_event_cannot_pretend_another_position() -> None:
    forged = raw(3)._replace(event=b'{"type":"x","position":"9/9/9","received":"never"}')
    assert event_document(forged)["position"] == "0/3/0"
    assert event_document(forged)["received"] == "2026-11-23T21:00:00.003Z"
    assert events_document([forged], "c")["cursor"] == "c"
