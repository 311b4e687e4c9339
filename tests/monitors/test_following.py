"""A log is read on through whatever happens to it: every line once, none twice.

Lines are numbers, so that what was read can be compared with what was written.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors import following
from monitors.following import Following
from topology.errors import Unavailable


class Rotated:
    """A log and who follows it. ``forget`` is a restart of the monitor."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "access.log"
        self.position = folder / "position.json"
        self.written = 0
        self.read: list[bytes] = []
        self._writing = self.log.open("ab", buffering=0)
        self._following = Following(self.log, self.position)

    def write(self, lines: int = 1) -> None:
        """As NGINX does: into the file that it opened last, always at its end."""
        self._writing.write(b"".join(b"line %09d\n" % (self.written + n) for n in range(lines)))
        self.written += lines

    def write_raw(self, text: bytes) -> None:
        self._writing.write(text)

    def look(self) -> list[bytes]:
        found: list[bytes] = []
        self._following.look(found.extend)
        self.read += found
        return found

    def forget(self) -> None:
        self._following.close()
        self._following = Following(self.log, self.position)

    def rename(self) -> None:
        """The old file moves on; NGINX still writes into it until ``reopen``."""
        self._shift()
        self.log.rename(self._old(1))

    def reopen(self) -> None:
        self._writing.close()
        self._writing = self.log.open("ab", buffering=0)

    def copytruncate(self) -> None:
        self._shift()
        shutil.copyfile(self.log, self._old(1))
        with self.log.open("r+b") as file:
            file.truncate()

    def compress(self) -> None:
        """The newest old file."""
        old = self._old(1)
        old.with_name(f"{old.name}.gz").write_bytes(gzip.compress(old.read_bytes()))
        old.unlink()

    def _old(self, number: int) -> Path:
        return self.log.with_name(f"access.log.{number}")

    def _shift(self) -> None:
        for number in range(40, 0, -1):
            if self._old(number).exists():
                self._old(number).rename(self._old(number + 1))

    @property
    def all_once(self) -> bool:
        return sorted(self.read) == [b"line %09d" % n for n in range(self.written)]

    def close(self) -> None:
        self._following.close()
        self._writing.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Rotated]:
    """An empty log at which nobody has looked."""
    made = Rotated(tmp_path)
    yield made
    made.close()


@pytest.fixture
def rotated(log: Rotated) -> Rotated:
    """A log of which some lines were read."""
    log.look()
    log.write(3)
    log.look()
    return log


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


def test_what_is_compressed_at_once_is_read_to_its_end_first(rotated: Rotated) -> None:
    rotated.rename()
    rotated.write()
    rotated.compress()
    rotated.reopen()
    rotated.write()
    rotated.look()
    assert rotated.all_once, rotated.read


def test_what_was_compressed_while_nobody_looked_is_said_to_be_missing(
    rotated: Rotated, caplog: pytest.LogCaptureFixture
) -> None:
    rotated.write()
    rotated.forget()
    rotated.rename()
    rotated.compress()
    rotated.reopen()
    rotated.write()
    assert rotated.look() == [b"line 000000004"]
    assert "lines may be missing" in caplog.text


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
    left = [rotated._following.look(rotated.read.extend) for _ in range(20)]
    assert left[0] > 0
    assert left[-1] == 0
    assert rotated.all_once, rotated.read


def test_a_position_that_cannot_be_written_reads_the_same_lines_again(rotated: Rotated) -> None:
    rotated.write()
    blocked = rotated.position.with_name("position.json.new")
    blocked.mkdir()
    found: list[bytes] = []
    with pytest.raises(Unavailable, match="own folder"):
        rotated._following.look(found.extend)
    blocked.rmdir()
    assert rotated.look() == found == [b"line 000000003"]


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


def test_a_position_that_is_none_begins_anew(rotated: Rotated, caplog: pytest.LogCaptureFixture) -> None:
    rotated.position.write_bytes(b'{"looked":')
    rotated.write()
    rotated.forget()
    assert rotated.look() == []
    assert "cannot be understood" in caplog.text
    rotated.write()
    assert rotated.look() == [b"line 000000004"]


_STEPS = ["write", "look", "look", "forget", "rename", "reopen", "copytruncate"]


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
