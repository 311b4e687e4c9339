from __future__ import annotations

import time
from pathlib import Path

from click.testing import CliRunner, Result

from cli.main import eventsink
from web.keys import Keys


def keys(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(eventsink, ["keys", *args, "--data", str(folder)])


def test_a_key_is_printed_once_and_lets_in(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    result = keys(folder, "create", "--name", "monitor", "--scopes", "events,read")
    assert result.exit_code == 0, result.stderr
    secret = result.stdout.strip()
    assert folder.stat().st_mode & 0o777 == 0o700
    key = Keys(folder / "keys.json").check(secret, time.time_ns() // 1_000_000)
    assert key is not None
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


def test_an_expiry_is_shown_and_one_in_the_past_is_wrong_use(tmp_path: Path) -> None:
    args = ("create", "--name", "a", "--scopes", "read", "--expires")
    assert keys(tmp_path, *args, "now-1h").exit_code == 2
    assert keys(tmp_path, *args, "tomorrow").exit_code == 2
    assert keys(tmp_path, *args, "2100-01-01T00:00:00Z").exit_code == 0
    assert "2100-01-01T00:00:00Z" in keys(tmp_path, "list").stdout


def test_wrong_scopes_and_names_are_refused(tmp_path: Path) -> None:
    assert keys(tmp_path, "create", "--name", "a", "--scopes", "all").exit_code == 2
    assert keys(tmp_path, "create", "--name", "a", "--scopes", ",").exit_code == 2
    assert keys(tmp_path, "create", "--name", "../a", "--scopes", "read").exit_code == 1
    assert keys(tmp_path, "create", "--name", "a", "--scopes", "read").exit_code == 0
    assert keys(tmp_path, "create", "--name", "a", "--scopes", "read").exit_code == 1


def test_a_broken_file_is_one_line_and_1(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    result = keys(tmp_path, "list")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "EVENTSINK_KEYS_FILE" in result.stderr
