"""API keys: what is kept, who is let in. Pitfall 32: keys in clear in files."""

from __future__ import annotations

import itertools
import multiprocessing
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.errors import SettingsError
from web.keys import Key, Keys, looks_like_a_key, without_keys

NOW = 1_795_467_600_000


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


def test_a_key_that_was_made_is_let_in_with_its_scopes(keys: Keys) -> None:
    secret = keys.create("monitor", ["read", "health"], None, now=NOW)
    key = keys.check(secret, NOW)
    assert isinstance(key, Key)
    assert (key.name, key.scopes) == ("monitor", ("health", "read"))


def test_the_file_holds_no_key_and_only_its_owner_reads_it(keys: Keys) -> None:
    secret = keys.create("monitor", ["health"], None, now=NOW)
    assert secret not in keys.path.read_text()
    assert secret[3:20] not in keys.path.read_text()
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    # Nothing is left of the file that was written beside it.
    assert {file.name for file in keys.path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_key_begins_with_its_prefix_and_has_190_random_bits(keys: Keys) -> None:
    secrets = {keys.create(f"key-{number}", ["read"], None, now=NOW) for number in range(20)}
    assert len(secrets) == 20
    assert all(secret.startswith("es_") and len(secret) == 3 + 32 + 6 for secret in secrets)
    assert 62**32 > 2**190
    assert all(map(looks_like_a_key, secrets))


def test_a_mistyped_key_fails_its_checksum(keys: Keys) -> None:
    secret = keys.create("monitor", ["read"], None, now=NOW)
    for at in range(3, len(secret)):
        other = "x" if secret[at] != "x" else "y"
        assert not looks_like_a_key(secret[:at] + other + secret[at + 1 :])


def test_another_instance_sees_a_new_and_a_revoked_key_a_millisecond_later(keys: Keys) -> None:
    milliseconds = itertools.count()
    running = Keys(keys.path, monotonic=lambda: next(milliseconds) / 1000)
    first = keys.create("first", ["read"], None, now=NOW)
    assert isinstance(running.check(first, NOW), Key)
    second = keys.create("second", ["read"], None, now=NOW)
    assert isinstance(running.check(second, NOW), Key)
    assert keys.revoke("first")
    assert running.check(first, NOW) == "unknown"
    assert isinstance(running.check(second, NOW), Key)
    assert not keys.revoke("first")


def test_within_a_millisecond_the_file_is_not_looked_at_again_except_by_who_changed_it(keys: Keys) -> None:
    running = Keys(keys.path, monotonic=lambda: 0.0)
    first = running.create("first", ["read"], None, now=NOW)
    assert isinstance(running.check(first, NOW), Key)
    keys.revoke("first")
    assert isinstance(running.check(first, NOW), Key)
    second = running.create("second", ["read"], None, now=NOW)
    assert isinstance(running.check(second, NOW), Key)
    assert running.check(first, NOW) == "unknown"


def test_a_key_is_let_in_until_the_millisecond_before_it_expires(keys: Keys) -> None:
    secret = keys.create("monitor", ["read"], NOW, now=NOW - 1000)
    assert isinstance(keys.check(secret, NOW - 1), Key)
    assert keys.check(secret, NOW) == "expired"
    assert [key.name for key in keys.list()] == ["monitor"]


@pytest.mark.parametrize(
    ("presented", "refusal"),
    [
        (None, "missing"),
        ("", "missing"),
        ("es_", "malformed"),
        ("es_" + "a" * 38, "malformed"),
        ("x" * 10_000, "malformed"),
        ("\udcff", "malformed"),
        ("é", "malformed"),
        ("es_é", "malformed"),
    ],
)
def test_what_is_no_key_of_ours_is_not_let_in(keys: Keys, presented: str | None, refusal: str) -> None:
    keys.create("monitor", ["read"], None, now=NOW)
    assert keys.check(presented, NOW) == refusal


@given(st.text())
def test_no_text_makes_the_check_raise(presented: str) -> None:
    assert isinstance(Keys(Path("there-is-no-such-file.json")).check(presented, NOW), str)


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
        keys.create(name, scopes, None, now=NOW)
    assert not keys.list()


# -- two keys of one name --


def test_a_second_key_of_a_name_follows_the_first_without_a_gap(keys: Keys) -> None:
    first = keys.create("monitor", ["health"], None, now=NOW)
    second = keys.create("monitor", [], None, now=NOW + 1)
    both = [keys.check(secret, NOW + 1) for secret in (first, second)]
    assert [key.scopes for key in both if isinstance(key, Key)] == [("health",), ("health",)]
    assert keys.revoke_oldest("monitor", now=NOW + 2).created == NOW
    assert keys.check(first, NOW + 2) == "unknown"
    assert isinstance(keys.check(second, NOW + 2), Key)


def test_a_third_live_key_is_refused_with_what_to_do(keys: Keys) -> None:
    for _ in range(2):
        keys.create("monitor", ["read"], None, now=NOW)
    with pytest.raises(ValueError, match="eventsink keys revoke monitor --oldest"):
        keys.create("monitor", ["read"], None, now=NOW)
    assert len(keys.list()) == 2
    assert isinstance(keys.create("other", ["read"], None, now=NOW), str)


def test_expired_keys_do_not_count(keys: Keys) -> None:
    for _ in range(2):
        keys.create("monitor", ["read"], NOW, now=NOW - 1)
    for _ in range(2):
        keys.create("monitor", ["read"], None, now=NOW)
    with pytest.raises(ValueError, match="two live keys"):
        keys.create("monitor", ["read"], None, now=NOW)


def test_the_oldest_of_one_is_not_revoked(keys: Keys) -> None:
    """The command, given twice, would end the key that followed."""
    keys.create("monitor", ["read"], NOW, now=NOW - 1)
    secret = keys.create("monitor", ["read"], None, now=NOW)
    with pytest.raises(ValueError, match="one live key"):
        keys.revoke_oldest("monitor", now=NOW)
    assert isinstance(keys.check(secret, NOW), Key)


def test_a_key_without_scopes_needs_one_to_take_them_from(keys: Keys) -> None:
    with pytest.raises(ValueError, match="events, health, read"):
        keys.create("monitor", [], None, now=NOW)


def test_one_of_two_is_revoked_by_its_id_and_both_by_their_name(keys: Keys) -> None:
    secrets = [keys.create("monitor", ["read"], None, now=NOW) for _ in range(2)]
    other = keys.create("other", ["read"], None, now=NOW)
    assert [key.name for key in keys.revoke(keys.list()[1].id)] == ["monitor"]
    assert isinstance(keys.check(secrets[0], NOW), Key)
    assert keys.check(secrets[1], NOW) == "unknown"
    keys.create("monitor", [], None, now=NOW)
    assert len(keys.revoke("monitor")) == 2
    assert isinstance(keys.check(other, NOW), Key)


def test_a_name_goes_before_an_id(keys: Keys) -> None:
    keys.create("a", ["read"], None, now=NOW)
    (a,) = keys.list()
    keys.create(a.id, ["read"], None, now=NOW)
    assert [key.name for key in keys.revoke(a.id)] == [a.id]
    assert [key.name for key in keys.list()] == ["a"]


def test_a_file_from_before_keys_had_a_time_of_creation_is_read(keys: Keys) -> None:
    keys.path.write_bytes(
        b'{"version":1,"keys":[{"name":"n","scopes":["read"],"sha256":"%b","expires":null}]}' % (b"0" * 64)
    )
    keys.create("n", [], None, now=NOW)
    assert [key.created for key in keys.list()] == [None, NOW]


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
        lambda: keys.create("monitor", ["read"], None, now=NOW),
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
        Keys(path).create(f"{prefix}-{number}", ["read"], None, now=NOW)


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
    secret = keys.create("monitor", ["read"], None, now=NOW)
    assert without_keys(f"GET /{secret}?x HTTP/1.1") == "GET /es_***?x HTTP/1.1"
    assert without_keys(f"GET /{secret[:30]}") == "GET /es_***"
    assert without_keys("services_and es_short") == "services_and es_short"
