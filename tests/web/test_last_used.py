"""When keys were last used: beside the file of the keys, and never in the way of a request."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from topology.errors import Unavailable
from web.last_used import LastUsed

A, B = "a" * 64, "b" * 64


@pytest.fixture
def used(tmp_path: Path) -> LastUsed:
    return LastUsed(tmp_path / "keys.json")


def test_what_was_seen_is_on_disk_once_it_is_written(used: LastUsed) -> None:
    used.saw(A, 1)
    used.saw(A, 7)
    assert used.read() == {}
    used.write({A})
    assert LastUsed(used.path.with_name("keys.json")).read() == {A: 7}
    assert used.path.name == "keys.used.json"
    assert stat.S_IMODE(used.path.stat().st_mode) == 0o600


def test_nothing_new_writes_nothing(used: LastUsed) -> None:
    used.write({A})
    assert not used.path.exists()
    used.saw(A, 1)
    used.write({A})
    before = used.path.stat().st_ino
    used.write({A})
    assert used.path.stat().st_ino == before


def test_two_processes_keep_the_latest_of_each_key(used: LastUsed) -> None:
    other = LastUsed(used.path.with_name("keys.json"))
    used.saw(A, 5)
    other.saw(A, 3)
    other.saw(B, 4)
    used.write({A, B})
    other.write({A, B})
    assert used.read() == {A: 5, B: 4}


def test_a_revoked_key_is_forgotten(used: LastUsed) -> None:
    used.saw(A, 1)
    used.saw(B, 2)
    used.write({A, B})
    used.saw(B, 3)
    used.write({B})
    assert used.read() == {B: 3}


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b'{"version":1,"last_used":{"a":"x"}}'])
def test_an_unreadable_file_is_written_anew(used: LastUsed, content: bytes) -> None:
    used.path.write_bytes(content)
    assert used.read() == {}
    used.saw(A, 1)
    used.write({A})
    assert used.read() == {A: 1}


def test_a_folder_that_takes_no_file_is_told_of_and_tried_again(tmp_path: Path) -> None:
    used = LastUsed(tmp_path / "keys" / "keys.json")
    used.saw(A, 1)
    with pytest.raises(Unavailable, match=r"keys\.used\.json"):
        used.write({A})
    used.path.parent.mkdir()
    used.write({A})
    assert used.read() == {A: 1}
