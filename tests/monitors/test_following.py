"""A log is read on through whatever happens to it: every line once, none twice.

Lines are numbers, so that what was read can be compared with what was written.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors import following
from monitors.following import Following
from monitors.log_file import decoded, encoded
from tests.monitors.rotated import Rotated
from topology.errors import Unavailable


def test_a_log_counts_from_the_first_look_on(log: Rotated) -> None:
    log.write_raw(b"long ago\nand just now hal")
    assert log.look() == []
    log.write_raw(b"f\nnew\n")
    assert log.look() == [b"and just now half", b"new"]


def test_half_a_line_waits_for_its_other_half(rotated: Rotated) -> None:
    rotated.write_raw(b"line 0000")
    assert rotated.look() == []
    rotated.forget()
    assert rotated.look() == []
    rotated.write_raw(b"00003\n")
    assert rotated.look() == [b"line 000000003"]


def test_a_line_that_is_too_long_is_one_that_cannot_be_read(rotated: Rotated) -> None:
    rotated.write_raw(b"x" * (2 * following.CHUNK_BYTES + 7))
    assert rotated.look() == []
    rotated.forget()
    rotated.write_raw(b"x\n")
    rotated.write()
    assert rotated.look() == [b"", b"line 000000003"]


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(["rename", "write", "reopen", "write"], id="a late line in the renamed file"),
        pytest.param(["rename", "reopen"], id="nothing new in the new file"),
        pytest.param(["rename", "write"], id="not reopened yet"),
        pytest.param(["rename", "reopen", "write", "rename", "reopen", "write"], id="renamed twice"),
        pytest.param(["copytruncate", "write"], id="copied and truncated"),
        pytest.param(["copytruncate"], id="nothing new after the truncation"),
        pytest.param(["copytruncate", "write", "copytruncate", "write"], id="copied and truncated twice"),
        pytest.param(["copytruncate", *["write"] * 20], id="grown beyond the old size"),
        pytest.param(["rename", "reopen", "write", "copytruncate", "write"], id="both ways"),
    ],
)
def test_every_line_is_read_once_through_a_rotation(
    rotated: Rotated, happens: list[str], restart: bool
) -> None:
    rotated.write()
    for what in happens:
        getattr(rotated, what)()
    if restart:
        rotated.forget()
    rotated.look()
    assert rotated.all_once, rotated.read
    rotated.write()
    rotated.look()
    assert rotated.all_once, rotated.read


def test_a_log_that_was_empty_at_the_last_look_is_read_from_its_copy(log: Rotated) -> None:
    log.look()
    log.write(2)
    log.copytruncate()
    log.look()
    assert log.all_once, log.read
    log.write(2)
    log.look()
    assert log.all_once, log.read


def test_a_copy_that_is_still_being_made_is_not_read(log: Rotated) -> None:
    log.look()
    log.write(2)
    shutil.copyfile(log.log, log.log.with_name("access.log.1"))
    log.look()
    log.write()
    log.look()
    assert log.all_once, log.read


def test_an_old_file_is_let_go_once_the_new_one_is_written(rotated: Rotated) -> None:
    rotated.rename()
    rotated.reopen()
    for _ in range(10):
        rotated.look()  # NGINX has written nothing: it may not have reopened its log yet
    rotated.write()
    for _ in range(following.IDLE_LOOKS + 1):
        rotated.look()
    assert len(rotated._following._files) == 1
    for _ in range(3):  # nor is it taken for a new one later
        rotated.forget()
        rotated.write()
        rotated.look()
    assert rotated.all_once, rotated.read


def test_the_end_of_a_file_that_is_let_go_counts_though_no_line_ends_there(rotated: Rotated) -> None:
    rotated.write_raw(b"cut of")
    rotated.rename()
    rotated.reopen()
    rotated.write()
    found = [rotated.look() for _ in range(following.IDLE_LOOKS + 1)]
    assert [b"cut of"] in found


def test_more_than_a_look_takes_is_left_for_the_next(
    rotated: Rotated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_BYTES", 20)
    monkeypatch.setattr(following, "CHUNK_BYTES", 32)
    rotated.write(10)
    left = []
    for _ in range(20):
        rotated.look()
        left.append(rotated.left)
    assert left[0] > 0
    assert left[-1] == 0
    assert rotated.all_once, rotated.read


def test_a_look_that_was_not_kept_is_looked_again(rotated: Rotated) -> None:
    rotated.write()
    rotated.look_in_vain()
    rotated.rename()
    rotated.reopen()
    rotated.write()
    rotated.look_in_vain()
    assert rotated.look() == [b"line 000000003", b"line 000000004"]


def test_a_look_ends_when_it_was_enough(rotated: Rotated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHUNK_BYTES", 32)
    rotated.write(10)
    found: list[bytes] = []
    other = Following(rotated.log)
    look = other.look(rotated.saved, found.extend, enough=lambda: True)
    other.close()
    assert 0 < len(found) < 10
    assert look.left > 0


def test_a_log_that_is_not_there_is_unavailable_at_first_and_empty_later(log: Rotated) -> None:
    log.log.unlink()
    with pytest.raises(Unavailable, match="No such file"):
        log.look()
    log.reopen()
    log.look()
    log.log.unlink()
    log.write()  # into a file without a name
    assert log.look() == [b"line 000000000"]
    log.reopen()
    log.write()
    log.look()
    assert log.all_once, log.read


def test_a_place_that_is_none_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert decoded(b'{"looked":', tmp_path) is None
    assert "cannot be understood" in caplog.text


def test_a_place_is_read_as_it_was_written(rotated: Rotated) -> None:
    assert rotated.saved is not None
    assert decoded(encoded(rotated.saved), rotated.log) == rotated.saved


_STEPS = ["write", "look", "look", "look_in_vain", "forget", "rename", "reopen", "copytruncate"]


@given(steps=st.lists(st.sampled_from(_STEPS), max_size=14))
def test_any_order_of_rotations_looks_and_restarts_reads_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    log = Rotated(tmp_path_factory.mktemp("log"))
    try:
        log.look()
        log.write()
        log.look()
        for step in _possible(steps):
            log.write()
            getattr(log, step)()
        log.look()
        assert log.all_once, log.read
    finally:
        log.close()


def _possible(steps: Sequence[str]) -> list[str]:
    """Steps as a rotation makes them: what was renamed is reopened before it is rotated again."""
    done: list[str] = []
    renamed = False
    for step in steps:
        if step in {"rename", "copytruncate"} and renamed:
            done.append("reopen")
            renamed = False
        if step == "reopen" and not renamed:
            continue
        renamed = step == "rename" or (renamed and step != "reopen")
        done.append(step)
    return done
