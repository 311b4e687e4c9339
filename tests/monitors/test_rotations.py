"""A log is renamed, copied and compressed while the monitor is away, or is killed, or looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monitors import following
from tests.monitors.rotated import Rotated


def killed_between_looks(log: Rotated) -> None:
    log.forget()


def killed_before_it_is_kept(log: Rotated) -> None:
    log.look_in_vain()
    log.forget()


def killed_when_it_was_kept(log: Rotated) -> None:
    log.look()
    log.forget()


@pytest.mark.parametrize("death", [killed_between_looks, killed_before_it_is_kept, killed_when_it_was_kept])
@pytest.mark.parametrize(
    "happens",
    [
        pytest.param("write rename write reopen write write_late", id="renamed"),
        pytest.param("write rename write reopen write rename write reopen write", id="renamed twice"),
        pytest.param("write copy truncate write", id="copied and truncated"),
        pytest.param("write copy truncate write copy truncate write", id="copied and truncated twice"),
        pytest.param(
            "write look rename look write look reopen look write look compress look", id="compressed"
        ),
    ],
)
def test_wherever_it_is_killed_in_a_rotation_every_line_is_read_once(
    tmp_path: Path, happens: str, death: Callable[[Rotated], None]
) -> None:
    steps = happens.split()
    for place in range(len(steps) + 1):
        folder = tmp_path / str(place)
        folder.mkdir()
        log = Rotated(folder)
        log.write()
        log.look()
        log.write()
        log.look()
        for number, step in enumerate(steps):
            if number == place:
                death(log)
            getattr(log, step)()
        log.look()
        log.write()
        log.look()
        log.close()
        assert sorted(log.read) == [b"line %09d" % n for n in range(1, log.written)], place


def test_what_is_compressed_at_once_is_read_to_its_end_first(
    rotated: Rotated, caplog: pytest.LogCaptureFixture
) -> None:
    rotated.rename()
    rotated.write()
    rotated.compress()
    rotated.reopen()
    rotated.write()
    rotated.look()
    assert rotated.all_once, rotated.read
    assert "missing" not in caplog.text


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


def test_a_compressed_copy_of_a_log_that_was_empty_is_said_to_be_missing(
    log: Rotated, caplog: pytest.LogCaptureFixture
) -> None:
    # The file at the path is the same, and nothing that was read of it is gone.
    log.look()
    log.write()
    log.copytruncate()
    log.compress()
    assert log.look() == []
    assert "lines may be missing" in caplog.text


@pytest.mark.parametrize("rotations", [2, 4])
def test_what_was_not_compressed_while_nobody_looked_is_read(
    rotated: Rotated, rotations: int, caplog: pytest.LogCaptureFixture
) -> None:
    # Debian's `delaycompress`, and a monitor that was away for some nights:
    # line    0  1  2  3 | 4 | 5
    # read    x  x  x    |   |
    # then        .2.gz   .1   the log
    rotated.write()
    rotated.forget()
    for _ in range(rotations):
        rotated.rename()
        rotated.reopen()
        rotated.write()
        rotated.put_forward(days=1)
    rotated.compress(rotations)
    assert rotated.look() == [b"line %09d" % (4 + number) for number in range(rotations)]
    assert "lines may be missing" in caplog.text
    rotated.write()
    rotated.forget()
    assert rotated.look() == [b"line %09d" % (4 + rotations)]


def test_a_copy_that_was_read_before_the_truncation_is_not_read_again(rotated: Rotated) -> None:
    # The last line is in no copy, so no copy is known by what stands before the place that was read.
    rotated.copy()
    rotated.write()
    rotated.look()
    rotated.truncate()
    rotated.forget()
    rotated.write()
    rotated.look()
    assert rotated.all_once, rotated.read


def test_more_rotations_than_are_followed_are_read_after_a_pause(rotated: Rotated) -> None:
    for _ in range(following.MAX_FILES + 4):
        rotated.write()
        rotated.rename()
        rotated.reopen()
    rotated.forget()
    for _ in range(3):
        rotated.look()
        assert rotated.all_once, rotated.read
    assert rotated.saved is not None
    assert len(rotated.saved.following) <= following.MAX_FILES


def test_a_line_that_is_late_in_a_log_that_was_quiet_is_read(rotated: Rotated) -> None:
    # Nothing new in many looks says nothing of a file that was not renamed then: nobody wrote, that is all.
    for _ in range(following.IDLE_LOOKS + 1):
        rotated.look()
    rotated.rename()
    rotated.reopen()
    rotated.write()
    rotated.look()
    for _ in range(2):
        rotated.write_late()
        rotated.forget()
        rotated.look()
        assert rotated.all_once, rotated.read


def test_a_file_that_is_renamed_while_it_is_looked_for_is_found(
    rotated: Rotated, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotated.write()
    rotated.rename()
    rotated.reopen()
    rotated.forget()
    listed = Path.glob
    turns = 0

    def and_then_renamed(folder: Path, pattern: str) -> Iterator[Path]:
        nonlocal turns
        found = list(listed(folder, pattern))
        turns += 1
        if turns == 1:
            rotated.rename()
            rotated.reopen()
        return iter(found)

    monkeypatch.setattr(Path, "glob", and_then_renamed)
    rotated.look()
    assert turns > 1
    assert rotated.all_once, rotated.read
