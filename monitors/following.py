"""A log that others write and rotate, read on from where the last look ended: every line once.

What was read is remembered as a ``Saved``: which files, up to where, and a digest of what stands before that place. By
the digest a file is known again wherever it was moved or copied to. Whoever follows keeps it together with what was
made of the lines, and hands it in again: a look changes nothing that a later one relies on.

    rename          the old file is read to its end where it is now, and for some looks more, since NGINX writes into it
                    until it is told to reopen its logs; then the new one from its beginning
    copytruncate    the copy is known by the digest and read from there on; then the truncated file from its beginning
    several         files that are newer than the one known again are read whole, in order of age

Compressed files are not opened: a rotated file is held open, so what was in it is read even where it is compressed at
once. Only where that happens while nobody looks, lines are lost, with a warning.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from monitors.log_file import LogFile, Mark, Saved
from topology.errors import Unavailable

log = logging.getLogger(__name__)

#: A longer line is none of NGINX's: its headers are at most 32 KiB, four times that when escaped.
CHUNK_BYTES = 256 << 10
#: In one look. What is beyond it is for the next: a check has a timeout.
LOOK_BYTES = 64 << 20
#: An old file that had nothing new in so many looks, since there is something in the new one, is finished.
IDLE_LOOKS = 3
#: So many files are followed on, and as many remembered as finished. Of more, the oldest are read and finished at once.
MAX_FILES = 16
#: By so much the system's time of a file may be behind its clock.
CLOCK_GRAIN_S = 0.02
COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".Z", ".lz4"})


class Look(NamedTuple):
    """Where a look ended, and how many bytes it left for the next one."""

    saved: Saved
    left: int


class Following:
    """The log at ``path``. Holds files open; blocks; not for two threads at once."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._files: list[LogFile] = []

    def look(
        self,
        saved: Saved | None,
        lines: Callable[[Sequence[bytes]], None],
        *,
        enough: Callable[[], bool] = lambda: False,
    ) -> Look:
        """Hand over all complete lines since the look that ended at ``saved``, without their ends, a lot at a time. The
        first look of all, without one, hands over nothing: it finds out where the log ends now. What is left over once
        ``enough`` says so, or after ``LOOK_BYTES``, is for the next.

        Raises ``Unavailable``: the log cannot be read. Then what was handed over counts for nothing.
        """
        now = self._clock()
        opened: list[LogFile] = []
        kept = self._files
        budget = _Budget(LOOK_BYTES, enough)
        try:
            files, current = self._arranged(saved, opened)
            if saved is None:
                for file in files:
                    _go_to_the_end(file)
            for file in files:
                _read_on(file, budget, lines)
            spent = budget.spent
            left = sum(max(0, file.stat().st_size - file.offset) for file in files) if spent else 0
            following, finished = (files, []) if spent else _parted(files, current, lines)
            before = () if saved is None else saved.finished
            after = Saved(
                looked=now,
                read=self._clock(),
                following=tuple(file.mark() for file in following),
                finished=(*before, *(file.mark() for file in finished if file.offset))[-MAX_FILES:],
            )
            kept = following
        except OSError as error:
            raise Unavailable(_told(error, self.path)) from error
        finally:
            for file in {*opened, *self._files} - {*kept}:
                file.raw.close()
            self._files = kept
        return Look(after, left)

    def close(self) -> None:
        """Let go of the files; idempotent."""
        for file in self._files:
            file.raw.close()
        self._files = []

    def _arranged(self, saved: Saved | None, opened: list[LogFile]) -> tuple[list[LogFile], LogFile | None]:
        """The files to be read on, oldest first, each at its place, and the one that is at the path now. What had to
        be opened is added to ``opened``."""
        held = {file.identity: file for file in self._files}
        current = _opened(self.path, held, opened)
        if saved is None:
            if current is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
            return [current], current
        files: list[LogFile] = []
        lost = False
        for mark in saved.following:
            file = self._known_again(mark, held, opened)
            if file is None:
                lost = True
            elif file not in files:
                files.append(file.go_on(mark))
        since_ns = _rotated_since(saved, files, current, lost=lost)
        if since_ns is not None:
            lost = lost or self._compressed(since_ns) > sum(file.stat().st_nlink == 0 for file in files)
        if lost:
            log.warning(
                "%s was rotated, and what was not read of it cannot be found: lines may be missing", self.path
            )
        later = [] if since_ns is None else self._newer(since_ns, current, held, opened)
        if current is not None and (current not in files or current.offset == 0):
            files = [file for file in files if file is not current]
            later.append(current)
        known = set(files)
        files += [
            file.start()
            for file in later
            if file not in known and not any(file.continues(mark) for mark in saved.finished)
        ]
        return files, current

    def _known_again(
        self, mark: Mark, held: dict[tuple[int, int], LogFile], opened: list[LogFile]
    ) -> LogFile | None:
        """The file at which the mark was made, wherever it was moved, or the copy that was made since."""
        identity = (mark.device, mark.inode)
        file = held.get(identity)
        if file is not None and file.continues(mark):
            return file
        for _ in range(2):  # a rotation may move it while names are listed
            found = [
                file
                for file in self._siblings(held, opened)
                if file.continues(mark) and (mark.offset > 0 or file.identity == identity)
            ]
            if found:
                return max(found, key=lambda file: (file.identity == identity, file.stat().st_size))
        return None

    def _newer(
        self,
        since_ns: int,
        current: LogFile | None,
        held: dict[tuple[int, int], LogFile],
        opened: list[LogFile],
    ) -> list[LogFile]:
        """What was written since then beside the log, and is no copy of it that is still being made."""
        return [
            file
            for file in self._siblings(held, opened)
            if file.stat().st_mtime_ns >= since_ns
            and file is not current
            and not (current is not None and file.is_being_copied_from(current))
        ]

    def _compressed(self, since_ns: int) -> int:
        """How many files that were written since then are there compressed only: their times are kept."""
        count = 0
        for path in self._rotated_to():
            if path.suffix in COMPRESSED and not path.with_suffix("").exists():
                with suppress(FileNotFoundError):
                    count += path.stat().st_mtime_ns >= since_ns
        return count

    def _rotated_to(self) -> Iterator[Path]:
        return self.path.parent.glob(f"{glob.escape(self.path.name)}?*")

    def _siblings(self, held: dict[tuple[int, int], LogFile], opened: list[LogFile]) -> list[LogFile]:
        """What the log was rotated to, the oldest first: files whose names begin with its own."""
        found: dict[LogFile, None] = {}  # one that moves on while names are listed has two of them
        for path in self._rotated_to():
            if path.suffix not in COMPRESSED and path.is_file():
                file = _opened(path, held, opened)
                if file is not None:
                    found[file] = None
        return sorted(found, key=lambda file: file.stat().st_mtime_ns)


def _opened(path: Path, held: dict[tuple[int, int], LogFile], opened: list[LogFile]) -> LogFile | None:
    """The file, the one that is held already where it is the same; None where there is none."""
    try:
        file = LogFile.open(path)
    except FileNotFoundError:
        return None
    same = held.get(file.identity)
    if same is not None:
        file.raw.close()
        return same
    held[file.identity] = file
    opened.append(file)
    return file


def _rotated_since(
    saved: Saved, files: Sequence[LogFile], current: LogFile | None, *, lost: bool
) -> int | None:
    """When the files began to be written that were not there at the last look; None where there can be none."""
    if current is not None and current in files:
        if current.offset > 0:
            return None
        # Nothing was in it, so a copy of what came since cannot be known by a digest.
        return int((saved.looked - CLOCK_GRAIN_S) * 1e9)
    if lost:
        # A copy from before the truncation may hold less than was read, and is then not known by its digest. It was
        # complete when that was read; what is written later is another file.
        return None if saved.read is None else int(saved.read * 1e9)
    return files[-1].stat().st_mtime_ns if files else None


def _go_to_the_end(file: LogFile) -> None:
    """Behind its last complete line."""
    size = file.stat().st_size
    begin = max(0, size - CHUNK_BYTES)
    end = os.pread(file.raw.fileno(), size - begin, begin).rfind(b"\n") + 1
    file.offset = begin + end if end or begin == 0 else size
    file.within = begin > 0 and end == 0


@dataclass(slots=True)
class _Budget:
    """Of one look."""

    bytes: int
    enough: Callable[[], bool]

    @property
    def spent(self) -> bool:
        return self.bytes <= 0

    def take(self, size: int) -> None:
        self.bytes = 0 if self.enough() else self.bytes - size


def _read_on(file: LogFile, budget: _Budget, lines: Callable[[Sequence[bytes]], None]) -> None:
    """Hand over its complete lines, as the budget allows."""
    begin = file.offset
    while not budget.spent:
        chunk = os.pread(file.raw.fileno(), CHUNK_BYTES, file.offset)
        end = chunk.rfind(b"\n") + 1
        if end:
            complete = chunk[: end - 1].split(b"\n")
            if file.within:
                complete[0] = b""  # the end of a line that was too long; it counts as one that cannot be read
                file.within = False
            lines(complete)
        elif len(chunk) == CHUNK_BYTES:
            end, file.within = len(chunk), True
        else:
            break  # half a line: the rest is still to come
        file.offset += end
        budget.take(end)
    if file.offset > begin:
        file.idle = 0
    elif not budget.spent:
        file.idle += 1


def _parted(
    files: Sequence[LogFile], current: LogFile | None, lines: Callable[[Sequence[bytes]], None]
) -> tuple[list[LogFile], list[LogFile]]:
    """Files to be followed on, and those that are finished: NGINX writes into the new file and no more into them. What
    stands behind their last line is handed over as a line."""
    following, finished = [], []
    written = current is not None and current.offset > 0
    for newer, file in zip(range(len(files) - 1, -1, -1), files, strict=True):
        if file is current or not written:
            file.idle = 0  # that nobody asked for anything says nothing of whether NGINX still writes into it
        if newer < MAX_FILES and (file is current or file.idle < IDLE_LOOKS):
            following.append(file)
            continue
        rest = os.pread(file.raw.fileno(), CHUNK_BYTES, file.offset)
        if rest or file.within:
            lines([b"" if file.within else rest])
            file.offset += len(rest)
        finished.append(file)
    return following, finished


def _told(error: OSError, log_file: Path) -> str:
    """What is wrong with it, and what to do."""
    if isinstance(error, FileNotFoundError):
        mend = "name the file that NGINX writes its log into"
    elif isinstance(error, PermissionError):
        mend = "let the monitor's user read it (in Debian: as a member of the group adm)"
    else:
        mend = "look at its disk"
    return f"{error.filename or log_file}: {error.strerror}: {mend}"
