"""``rollups``, ``events`` and ``dead`` over the embedded stores."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import parts
from cli.events import PAGE_EVENTS
from cli.main import eventsink
from cli.settings import load
from topology.position import position
from topology.sinks import DeadLetter, Point, RawEvent

#: 2026-11-23T21:00:00Z
NINE = 1_795_467_600
HOUR = 3600


def run(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(eventsink, [*args, "--data", str(folder)])


def document(folder: Path, *args: str) -> Any:
    result = run(folder, *args, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def point(hour: int, space: str, **fields: int) -> Point:
    return Point("space_storage", "1h", NINE + hour * HOUR, (("space_id", space),), fields)


POINTS = [
    point(0, "a", bytes_added=1_234_567, bytes_removed=0, files_added=1, files_removed=0),
    point(1, "a", bytes_added=5, files_added=2),
    point(1, "[red]b\x1b[31m", bytes_added=7, bytes_removed=0, files_added=1, files_removed=0),
    point(2, "a", bytes_added=9, bytes_removed=0, files_added=1, files_removed=0),
]


def raw(number: int, type_: str = "activity.logged_in") -> RawEvent:
    event = json.dumps({"type": type_, "time": "2026-11-23T21:00:00.000Z", "user_id": f"u{number}"})
    return RawEvent(
        id=str(number),
        position=position(0, number),
        time=NINE * 1000 + number // 2,
        received=NINE * 1000 + 5000,
        type=type_,
        space_id=None,
        event=event.encode(),
        original=b"{}",
    )


EVENTS = [
    raw(number, "activity.signed_up" if number == 3 else "activity.logged_in")
    for number in range(PAGE_EVENTS + 5)
]


def letter(number: int, body: bytes, length: int | None = None) -> DeadLetter:
    return DeadLetter(
        id=f"0-{number}-0",
        position=position(0, number),
        received=NINE * 1000 + number,
        agent="",
        reason="must be at least 0",
        pointer="/bytes",
        body=body,
        length=len(body) if length is None else length,
        sha256=hashlib.sha256(body).hexdigest(),
    )


LETTERS = [
    letter(0, b'{"type":"storage.file_uploaded","file_id":"f","bytes":-1}'),
    letter(1, b"\xff\x1b[31m\nsecond", 2_000_000),
    letter(2, "ü".encode()),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")

    async def fill() -> None:
        settings = load({"EVENTSINK_DATA": str(path)})
        shared = parts.Shared(settings)
        await shared.database().open()
        await parts.rollup_sink(settings, shared).write(POINTS)
        await parts.raw_events(settings, shared).insert(EVENTS)
        await parts.dead_letters(settings, shared).put(LETTERS)
        await shared.database().close()

    asyncio.run(fill())
    return path


# -- rollups --


def test_without_a_name_the_rollups_are_listed(folder: Path) -> None:
    names = [each["name"] for each in document(folder, "rollups")["rollups"]]
    assert {"space_storage", "resource_traffic", "user_activity"} <= set(names)
    table = run(folder, "rollups").stdout
    assert all(name in table for name in names)
    rows = list(csv.DictReader(io.StringIO(run(folder, "rollups", "--format", "csv").stdout)))
    assert [row["name"] for row in rows] == names
    assert rows[0]["windows"] == "1m 1h 1d"


def test_the_list_needs_no_data(tmp_path: Path) -> None:
    assert run(tmp_path / "none", "rollups").exit_code == 0
    assert not (tmp_path / "none").exists()


def test_rows_are_the_document_of_the_route_with_absent_fields_left_out(folder: Path) -> None:
    found = document(folder, "rollups", "space_storage", "--window", "1h", "--where", "space_id=a")
    assert (found["rollup"], found["window"]) == ("space_storage", "1h")
    assert [row["time"] for row in found["rows"]] == [
        "2026-11-23T21:00:00Z",
        "2026-11-23T22:00:00Z",
        "2026-11-23T23:00:00Z",
    ]
    assert found["rows"][1] == {
        "time": "2026-11-23T22:00:00Z",
        "space_id": "a",
        "bytes_added": 5,
        "files_added": 2,
    }


@pytest.mark.parametrize(
    ("range_", "hours"),
    [
        ([], [0, 1, 2]),
        (["--since", "2026-11-23T22:00:00Z"], [1, 2]),
        (["--until", "2026-11-23T22:00:00Z"], [0]),
        # A window that started before is not in the range, be it by a millisecond.
        (["--since", "2026-11-23T22:00:00.001Z"], [2]),
        (["--until", "2026-11-23T22:00:00.001Z"], [0, 1]),
        (["--since", "2026-11-23T23:00:00+01:00", "--until", "2026-11-23T23:00:00Z"], [1]),
        (["--until", "now"], [0, 1, 2]),
        (["--since", "now"], []),
    ],
)
def test_rows_are_those_whose_window_starts_in_the_range(
    folder: Path, range_: list[str], hours: list[int]
) -> None:
    found = document(folder, "rollups", "space_storage", "--window", "1h", "--where", "space_id=a", *range_)
    assert [row["time"][11:13] for row in found["rows"]] == [str(21 + hour) for hour in hours]


def test_csv_has_every_field_and_leaves_absent_ones_empty(folder: Path) -> None:
    result = run(folder, "rollups", "space_storage", "--window", "1h", "--format", "csv")
    lines = result.stdout.splitlines()
    assert lines[0] == "time,space_id,bytes_added,bytes_removed,files_added,files_removed"
    assert "2026-11-23T22:00:00Z,a,5,,2," in lines


def test_a_table_shows_units_and_nothing_that_a_terminal_obeys(folder: Path) -> None:
    table = run(folder, "rollups", "space_storage", "--window", "1h").stdout
    assert "1.2 MiB" in table
    assert "[red]b\\x1b[31m" in table
    assert "\x1b" not in table


def test_rows_are_taken_together_and_ordered(folder: Path) -> None:
    def rows(*args: str) -> Any:
        return document(folder, "rollups", "space_storage", "--window", "1h", *args)["rows"]

    top = rows("--total", "--order", "-bytes_added", "--limit", "1", "--fields", "bytes_added")
    assert top == [{"time": "2026-11-23T21:00:00Z", "space_id": "a", "bytes_added": 1_234_581}]
    assert [row["files_added"] for row in rows("--group-by", "")] == [1, 3, 1]
    both = rows("--where", "space_id=a", "--where", "space_id=none", "--fields", "files_added")
    assert [row["files_added"] for row in both] == [1, 2, 1]


def test_a_table_shows_how_a_field_went(folder: Path) -> None:
    range_ = ("--since", "2026-11-23T21:00:00Z", "--until", "2026-11-24T00:00:00Z")
    table = run(
        folder, "rollups", "space_storage", "--window", "1h", "--sparkline", "files_added", *range_
    ).stdout
    (line,) = [line for line in table.splitlines() if line.startswith("a ")]
    assert line.split()[:4] == ["a", "▅█▅", "1.2", "MiB"]
    (line,) = [line for line in table.splitlines() if line.startswith("[red]")]
    assert line.split()[1] == "·█·"


def test_on_a_terminal_the_newest_rows_are_shown_and_that_there_are_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("cli.rollups.TABLE_ROWS", 2)
    table = run(folder, "rollups", "space_storage", "--window", "1h").stdout
    assert "the newest 2" in table
    assert (table.count("T21:"), table.count("T22:"), table.count("T23:")) == (0, 1, 1)
    # Whoever says from when, or how many, gets them.
    assert run(folder, "rollups", "space_storage", "--window", "1h", "--limit", "3").stdout.count("T2") == 3
    since = ("--since", "2026-11-23T00:00:00Z")
    assert run(folder, "rollups", "space_storage", "--window", "1h", *since).stdout.count("T2") == 4


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["space_storage", "--fields", "bytes"], "bytes_added"),
        (["space_storage", "--group-by", "user"], "space_id"),
        (["space_storage", "--sparkline", "bytes"], "bytes_added"),
        (["user_activity", "--total", "--fields", "unique_users"], "same user"),
        (["space_storage", "--watch"], "terminal"),
        (["space_storage", "--watch", "--format", "json"], "--format"),
    ],
)
def test_what_cannot_be_shown_is_wrong_use(folder: Path, args: list[str], hint: str) -> None:
    result = run(folder, "rollups", *args)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1


# -- top --


def test_what_there_is_most_of_comes_first(folder: Path) -> None:
    since = ("--since", "2026-11-23T21:00:00Z", "--until", "2026-11-24T02:00:00Z")
    monthly = ("--since", "2026-11-01T00:00:00Z", "--until", "2026-11-24T00:00:00Z")
    assert run(folder, "top", "spaces", *monthly).stderr.startswith("no spaces with bytes_added")
    found = document(folder, "top", "users", *since, "--limit", "2")
    assert found["rows"] == [
        {"user_id": user, "events": 1, "bytes": 0, "last": "2026-11-23T21:00:00Z"} for user in ("u0", "u1")
    ]
    # Steps in which nothing happened look as in the table of spaces.
    assert re.search(r"^u0 +█·{23} +1 ", run(folder, "top", "users", *since).stdout, re.MULTILINE)


def test_the_first_spaces_have_their_course(folder: Path) -> None:
    since = ("--since", "2026-11-22T00:00:00Z", "--until", "2026-11-24T00:00:00Z")
    found = document(folder, "top", "spaces", *since)
    assert [row["space_id"] for row in found["rows"]] == ["a", "[red]b\x1b[31m"]
    assert found["rows"][0]["bytes_added"] == 1_234_581
    table = run(folder, "top", "spaces", *since, "--by", "files_added").stdout
    assert "▂" in table or "█" in table
    assert "\x1b" not in table
    assert run(folder, "top", "spaces", "--by", "bytes").exit_code == 2
    csv_ = run(folder, "top", "spaces", *since, "--format", "csv").stdout.splitlines()
    assert csv_[:2] == ["space_id,bytes_added,bytes_removed,files_added,files_removed", "a,1234581,0,4,0"]


def test_a_range_begins_with_the_window_that_since_is_in_and_says_so(folder: Path) -> None:
    # In two days windows are hours: that of 21:00 holds 1 234 567 of the bytes.
    range_ = ("--since", "2026-11-23T21:10:00Z", "--until", "2026-11-25T00:00:00Z")
    found = document(folder, "top", "spaces", *range_)
    assert found["since"] == "2026-11-23T21:00:00Z"
    assert found["rows"][0]["bytes_added"] == 1_234_581
    assert "since 2026-11-23T21:00:00Z" in run(folder, "top", "spaces", *range_).stdout
    # 200 hours and a bit, from where they begin: still hours.
    range_ = ("--since", "2026-11-23T21:10:00Z", "--until", "2026-12-02T05:10:00Z")
    assert document(folder, "top", "spaces", *range_)["rows"][0]["bytes_added"] == 1_234_581
    # Events are counted one by one.
    assert document(folder, "top", "users", *range_)["since"] == "2026-11-23T21:10:00Z"


def test_no_rows_are_said_aside(folder: Path) -> None:
    result = run(folder, "rollups", "user_activity")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no rows" in result.stderr


def test_a_value_that_no_row_has_is_answered_with_those_that_there_are(folder: Path) -> None:
    asked = ("rollups", "space_storage", "--window", "1h", "--where")
    said = run(folder, *asked, "space_id=c", *asked[-1:], "space_id=d").stderr
    assert said == "no rows with space_id=c or space_id=d in this range: there are [red]b\\x1b[31m, a\n"
    assert "try another --since" in run(folder, *asked, "space_id=a", "--since", "now-1d").stderr
    assert "no events of this type yet: " in run(folder, "events", "--type", "health.pinged").stderr


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["space_strage"], "space_storage?"),
        (["nonsense"], "user_activity"),
        (["space_storage", "--window", "5m"], "1m, 1h, 1d"),
        (["space_storage", "--where", "user_id=a"], "space_id"),
        (["space_storage", "--where", "space_id"], "KEY=VALUE"),
        (["space_storage", "--since", "yesterday"], "now-1h"),
    ],
)
def test_wrong_use_says_what_there_is(folder: Path, args: list[str], hint: str) -> None:
    result = run(folder, "rollups", *args)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["rollups", "space_storage"], ["events"], ["dead", "list"]])
def test_before_the_first_start_it_is_said_what_to_do(tmp_path: Path, command: list[str]) -> None:
    result = run(tmp_path / "none", *command)
    assert result.exit_code == 1
    assert "eventsink up" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()


REVERSED = ["--since", "2026-11-24T00:00:00Z", "--until", "2026-11-23T00:00:00Z"]


@pytest.mark.parametrize(
    "command",
    [["rollups", "space_storage"], ["events"], ["top", "spaces"], ["forward", "--dry-run", "google"]],
)
def test_a_range_that_ends_before_it_begins_is_wrong_use(folder: Path, command: list[str]) -> None:
    result = run(folder, *command, *REVERSED)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "--until: 2026-11-23T00:00:00Z lies before --since 2026-11-24T00:00:00Z" in result.stderr
    # One that is empty is a question like any other, in whatever order it is typed.
    assert run(folder, "events", "--until", "now", "--since", "now").exit_code == 0


# -- events --


def test_all_events_come_once_the_newest_first_over_pages(folder: Path) -> None:
    found = document(folder, "events")
    assert found["cursor"] is None
    newest_first = sorted(EVENTS, key=lambda event: (event.time, event.position), reverse=True)
    assert [event["user_id"] for event in found["events"]] == [f"u{event.id}" for event in newest_first]
    assert found["events"][0]["position"] == f"0/{PAGE_EVENTS + 4}/0"
    assert found["events"][0]["received"] == "2026-11-23T21:00:05Z"


def test_events_are_chosen_by_type_time_and_number(folder: Path) -> None:
    def ids(*args: str) -> list[str]:
        return [event["user_id"] for event in document(folder, "events", *args)["events"]]

    assert ids("--type", "activity.signed_up") == ["u3"]
    assert ids("--until", "2026-11-23T21:00:00.002Z") == ["u3", "u2", "u1", "u0"]
    assert ids("--since", "2026-11-23T21:00:00.001Z", "--until", "2026-11-23T21:00:00.002Z") == ["u3", "u2"]
    assert len(ids("--limit", "7")) == 7
    assert len(ids("--limit", str(PAGE_EVENTS + 1))) == PAGE_EVENTS + 1
    assert ids("--type", "activity.signed*") == ["u3"]
    assert ids("--type", "activity.signed_up", "--type", "health.*") == ["u3"]
    assert len(ids("--type", "activity.*")) == len(EVENTS)
    assert ids("--type", "health.*") == []


def test_a_type_that_no_event_has_is_wrong_use(folder: Path) -> None:
    for wrong, hint in (("health.ping", "did you mean health.pinged?"), ("nothing.*", "storage.*")):
        result = run(folder, "events", "--type", wrong)
        assert result.exit_code == 2
        assert hint in result.stderr
        assert result.stderr.count("\n") == 1


def test_events_as_csv_hold_the_whole_event(folder: Path) -> None:
    result = run(folder, "events", "--format", "csv", "--limit", "1")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert row["type"] == "activity.logged_in"
    assert row["source"] == ""
    assert json.loads(row["event"])["user_id"] == row["user_id"] == f"u{PAGE_EVENTS + 4}"


def test_a_table_of_events_says_that_there_are_older_ones(folder: Path) -> None:
    table = run(folder, "events").stdout
    assert table.count("user_id=") == 100
    assert "older" in table
    assert "older" not in run(folder, "events", "--type", "activity.signed_up").stdout
    assert "no events" in run(folder, "events", "--since", "now").stderr


# -- dead letters --


def test_dead_letters_are_listed_the_newest_first(folder: Path) -> None:
    found = document(folder, "dead", "list")
    assert [each["id"] for each in found["dead"]] == ["0-2-0", "0-1-0", "0-0-0"]
    assert found["count"] == 3
    assert found["dead"][2] == {
        "id": "0-0-0",
        "received": "2026-11-23T21:00:00.000Z",
        "agent": "",
        "reason": "must be at least 0",
        "pointer": "/bytes",
        "bytes": len(LETTERS[0].body),
    }
    table = run(folder, "dead", "list", "--limit", "1").stdout
    assert "0-2-0" in table
    assert "2 older" in table
    assert run(folder, "dead", "list", "--format", "csv").stdout.count("\n") == 4


def test_a_dead_letter_is_shown_with_its_body_safe_for_a_terminal(folder: Path) -> None:
    shown = run(folder, "dead", "show", "0-1-0").stdout
    for words in (
        "must be at least 0",
        "/bytes",
        "0/1/0",
        "2,000,000",
        "first 13 bytes",
        r"\xff\x1b[31m",
        "second",
    ):
        assert words in shown
    assert "\x1b" not in shown


def test_the_body_of_a_dead_letter_can_be_had_byte_for_byte(folder: Path) -> None:
    assert run(folder, "dead", "show", "0-1-0", "--body").stdout_bytes == LETTERS[1].body
    found = json.loads(run(folder, "dead", "show", "0-2-0", "--format", "json").stdout)
    assert found["body"] == "ü"
    assert found["sha256"] == LETTERS[2].sha256
    assert "body_base64" in json.loads(run(folder, "dead", "show", "0-1-0", "--format", "json").stdout)


def test_a_dead_letter_that_is_not_there_is_1(folder: Path) -> None:
    result = run(folder, "dead", "show", "0-9-9")
    assert result.exit_code == 1
    assert "dead list" in result.stderr
