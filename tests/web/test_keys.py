"""API keys: what is kept, who is let in. Pitfall 32: keys in clear in files."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import SettingsError
from web.keys import Keys, looks_like_a_key, without_keys

NOW = 1_795_467_600_000


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


def test_a_key_that_was_made_is_let_in_with_its_scopes(keys: Keys) -> None:
    secret = keys.create("monitor", ["read", "health"], None)
    key = keys.check(secret, NOW)
    assert key is not None
    assert (key.name, key.scopes) == ("monitor", ("health", "read"))


def test_the_file_holds_no_key_and_only_its_owner_reads_it(keys: Keys) -> None:
    secret = keys.create("monitor", ["health"], None)
    assert secret not in keys.path.read_text()
    assert secret[3:20] not in keys.path.read_text()
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    # Nothing is left of the file that was written beside it.
    assert {file.name for file in keys.path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_key_begins_with_its_prefix_and_has_190_random_bits(keys: Keys) -> None:
    secrets = {keys.create(f"key-{number}", ["read"], None) for number in range(20)}
    assert len(secrets) == 20
    assert all(secret.startswith("es_") and len(secret) == 3 + 32 + 6 for secret in secrets)
    assert 62**32 > 2**190
    assert all(map(looks_like_a_key, secrets))


def test_a_mistyped_key_fails_its_checksum(keys: Keys) -> None:
    secret = keys.create("monitor", ["read"], None)
    for at in range(3, len(secret)):
        other = "x" if secret[at] != "x" else "y"
        assert not looks_like_a_key(secret[:at] + other + secret[at + 1 :])


def test_another_instance_sees_a_new_and_a_revoked_key_at_once(keys: Keys) -> None:
    running = Keys(keys.path)
    first = keys.create("first", ["read"], None)
    assert running.check(first, NOW) is not None
    second = keys.create("second", ["read"], None)
    assert running.check(second, NOW) is not None
    assert keys.revoke("first")
    assert running.check(first, NOW) is None
    assert running.check(second, NOW) is not None
    assert not keys.revoke("first")


def test_a_key_is_let_in_until_the_millisecond_before_it_expires(keys: Keys) -> None:
    secret = keys.create("monitor", ["read"], NOW)
    assert keys.check(secret, NOW - 1) is not None
    assert keys.check(secret, NOW) is None
    assert [key.name for key in keys.list()] == ["monitor"]


@pytest.mark.parametrize(
    "presented", [None, "", "es_", "es_" + "a" * 38, "x" * 10_000, "\udcff", "é", "es_é"]
)
def test_what_is_no_key_of_ours_is_not_let_in(keys: Keys, presented: str | None) -> None:
    keys.create("monitor", ["read"], None)
    assert keys.check(presented, NOW) is None


@given(st.text())
def test_no_text_makes_the_check_raise(presented: str) -> None:
    assert Keys(Path("there-is-no-such-file.json")).check(presented, NOW) is None


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("", ["read"]),
        ("a b", ["read"]),
        ("../x", ["read"]),
        ("n" * 65, ["read"]),
        ("n", []),
        ("n", ["admin"]),
    ],
)
def test_a_wrong_name_or_scope_makes_no_key(keys: Keys, name: str, scopes: list[str]) -> None:
    with pytest.raises(ValueError):
        keys.create(name, scopes, None)
    assert not keys.list()


def test_a_name_is_given_once(keys: Keys) -> None:
    secret = keys.create("monitor", ["read"], None)
    with pytest.raises(ValueError, match="monitor"):
        keys.create("monitor", ["events"], None)
    assert keys.check(secret, NOW) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"version":2,"keys":[]}',
        b'{"version":1,"keys":[{"name":"n","scopes":["admin"],"sha256":"%b"}]}' % (b"0" * 64),
        b'{"version":1,"keys":[{"name":"n","scopes":["read"],"sha256":"short"}]}',
        b'{"version":1,"keys":[{"name":"n","scopes":["read"],"sha256":"%b"}],"secret":"x"}' % (b"0" * 64),
    ],
)
def test_an_unreadable_file_lets_nobody_in_and_is_not_overwritten(keys: Keys, content: bytes) -> None:
    keys.path.write_bytes(content)
    for use in (
        lambda: keys.check("anything", NOW),
        lambda: keys.create("monitor", ["read"], None),
        lambda: keys.revoke("monitor"),
        keys.list,
    ):
        with pytest.raises(SettingsError, match=r"keys\.json"):
            use()
    assert keys.path.read_bytes() == content


def test_a_folder_in_place_of_the_file_is_a_settings_error(keys: Keys) -> None:
    keys.path.mkdir()
    with pytest.raises(SettingsError):
        keys.check("anything", NOW)


def _make_keys(path: Path, prefix: str) -> None:
    for number in range(10):
        Keys(path).create(f"{prefix}-{number}", ["read"], None)


def test_two_processes_that_make_keys_at_once_lose_none(keys: Keys) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_make_keys, args=(keys.path, prefix)) for prefix in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(keys.list()) == 20


def test_logs_show_no_key(keys: Keys) -> None:
    secret = keys.create("monitor", ["read"], None)
    assert without_keys(f"GET /{secret}?x HTTP/1.1") == "GET /es_***?x HTTP/1.1"
    assert without_keys(f"GET /{secret[:30]}") == "GET /es_***"
    assert without_keys("services_and es_short") == "services_and es_short"
