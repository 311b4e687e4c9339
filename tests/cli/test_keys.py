from __future__ import annotations

import re
import time
from pathlib import Path

from click.testing import CliRunner, Result

from cli.main import eventsink
from schemas.times import from_rfc3339
from web.keys import Key, Keys
from web.last_used import LastUsed


def keys(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(eventsink, ["keys", *args, "--data", str(folder)])


def test_a_key_is_printed_once_and_lets_in(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    result = keys(folder, "create", "--name", "monitor", "--scopes", "events,read")
    assert result.exit_code == 0, result.stderr
    secret = result.stdout.strip()
    assert folder.stat().st_mode & 0o777 == 0o700
    key = Keys(folder / "keys.json").check(secret, time.time_ns() // 1_000_000)
    assert isinstance(key, Key)
    assert (key.name, key.scopes) == ("monitor", ("events", "read"))
    listed = keys(folder, "list")
    assert "monitor" in listed.stdout
    assert "events,read" in listed.stdout
    assert "never" in listed.stdout
    assert secret not in listed.output
    assert secret not in (folder / "keys.json").read_text()


def test_a_revoked_key_is_gone(tmp_path: Path) -> None:
    keys(tmp_path, "create", "--name", "a", "--scopes", "read")
    assert keys(tmp_path, "revoke", "a").exit_code == 0
    assert keys(tmp_path, "list").stdout == ""
    assert keys(tmp_path, "revoke", "a").exit_code == 1


def test_a_key_is_replaced_without_a_gap(tmp_path: Path) -> None:
    first = keys(tmp_path, "create", "--name", "a", "--scopes", "read,health").stdout.strip()
    assert keys(tmp_path, "revoke", "a", "--oldest").exit_code == 1
    second = keys(tmp_path, "create", "--name", "a")
    assert second.exit_code == 0, second.stderr
    assert "eventsink keys revoke a --oldest" in second.stderr
    third = keys(tmp_path, "create", "--name", "a")
    assert third.exit_code == 1
    assert third.stderr.count("\n") == 1
    assert "eventsink keys revoke a --oldest" in third.stderr
    assert keys(tmp_path, "revoke", "a", "--oldest").exit_code == 0
    held = Keys(tmp_path / "keys.json")
    assert held.check(first, 0) == "unknown"
    key = held.check(second.stdout.strip(), 0)
    assert isinstance(key, Key)
    assert key.scopes == ("health", "read")


def test_one_key_is_revoked_by_the_id_that_the_list_shows(tmp_path: Path) -> None:
    for _ in range(2):
        keys(tmp_path, "create", "--name", "a", "--scopes", "read")
    one, other = Keys(tmp_path / "keys.json").list()
    assert one.id in keys(tmp_path, "list").stdout
    assert keys(tmp_path, "revoke", one.id).stdout == f"revoked a ({one.id})\n"
    listed = keys(tmp_path, "list").stdout
    assert one.id not in listed
    assert other.id in listed


def test_the_last_use_is_shown(tmp_path: Path) -> None:
    keys(tmp_path, "create", "--name", "a", "--scopes", "read")
    assert keys(tmp_path, "list").stdout.rstrip().endswith("never")
    (key,) = Keys(tmp_path / "keys.json").list()
    used = LastUsed(tmp_path / "keys.json")
    used.saw(key.sha256, 1_795_467_600_000)
    used.write({key.sha256})
    assert keys(tmp_path, "list").stdout.rstrip().endswith("2026-11-23T21:00:00Z")


def test_an_expiry_is_shown_and_one_in_the_past_is_wrong_use(tmp_path: Path) -> None:
    args = ("create", "--name", "a", "--scopes", "read", "--expires")
    past = keys(tmp_path, *args, "2025-01-01T00:00:00Z")
    assert (past.exit_code, "2025-01-01T00:00:00Z lies in the past" in past.stderr) == (2, True)
    for text in ("tomorrow", "now", "now-1h"):
        wrong = keys(tmp_path, *args, text)
        assert wrong.exit_code == 2
        # What it proposes can be done.
        (proposed,) = re.findall(r"\((\S+Z)\)", wrong.stderr)
        assert (from_rfc3339(proposed) or 0) > time.time() * 1000
        assert "now-" not in wrong.stderr.replace(text, "")
    assert keys(tmp_path, *args, "2100-01-01T00:00:00Z").exit_code == 0
    assert "2100-01-01T00:00:00Z" in keys(tmp_path, "list").stdout


def test_wrong_scopes_and_names_are_refused(tmp_path: Path) -> None:
    assert keys(tmp_path, "create", "--name", "a", "--scopes", "all").exit_code == 2
    assert keys(tmp_path, "create", "--name", "a", "--scopes", ",").exit_code == 2
    assert keys(tmp_path, "create", "--name", "../a", "--scopes", "read").exit_code == 1
    assert keys(tmp_path, "create", "--name", "a").exit_code == 1


def test_a_broken_file_is_one_line_and_1(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    result = keys(tmp_path, "list")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "EVENTSINK_KEYS_FILE" in result.stderr
