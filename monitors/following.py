"""A log that others write and rotate, read on from where the last look ended: every line once.

What was read is remembered in a file: which files, up to where, and a digest of what stands before that place. By the
digest a file is known again wherever it was moved or copied to.

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
import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from topology.errors import Unavailable

log = logging.getLogger(__name__)

#: Of the beginning, and of what stands before the place: lines with their times, so that no two files are alike.
DIGESTED_BYTES = 1024
#: A longer line is none of NGINX's: its headers are at most 32 KiB, four times that when escaped.
CHUNK_BYTES = 256 << 10
#: In one look. What is beyond it is for the next: a check has a timeout.
LOOK_BYTES = 64 << 20
#: An old file that had nothing new in so many looks is finished.
IDLE_LOOKS = 3
MAX_FILES = 16
#: By so much the system's time of a file may be behind its clock.
CLOCK_GRAIN_S = 0.02
COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".Z", ".lz4"})


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where a file was read. ``within``: that place is inside a line that is too long."""

    device: int
    inode: int
    offset: int
    digest: str
    within: bool = False
    idle: int = 0


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a restart. ``following`` is oldest first; ``finished`` are old files that are not read again;
    ``looked`` is the epoch time of the last look, in seconds."""

    looked: float
    following: tuple[Mark, ...]
    finished: tuple[Mark, ...] = ()


@dataclass(slots=True, eq=False)
class _File:
    """A file that is being read."""

    raw: io.FileIO
    device: int
    inode: int
    offset: int = 0
    within: bool = False
    idle: int = 0

    @classmethod
    def open(cls, path: Path) -> _File:
        raw = io.FileIO(path)
        found = os.fstat(raw.fileno())
        return cls(raw, found.st_dev, found.st_ino)

    @property
    def identity(self) -> tuple[int, int]:
        return self.device, self.inode

    def stat(self) -> os.stat_result:
        return os.fstat(self.raw.fileno())

    def digest(self, offset: int) -> str:
        """Of what stands at the beginning and before ``offset``."""
        read = hashlib.sha256(os.pread(self.raw.fileno(), min(offset, DIGESTED_BYTES), 0))
        begin = max(0, offset - DIGESTED_BYTES)
        read.update(os.pread(self.raw.fileno(), offset - begin, begin))
        return read.hexdigest()

    def continues(self, mark: Mark) -> bool:
        """Whether what was read up to the mark is what stands here."""
        return self.stat().st_size >= mark.offset and self.digest(mark.offset) == mark.digest

    def go_on(self, mark: Mark) -> _File:
        self.offset, self.within, self.idle = mark.offset, mark.within, mark.idle
        return self

    def start(self) -> _File:
        self.offset, self.within, self.idle = 0, False, 0
        return self

    def mark(self) -> Mark:
        return Mark(
            device=self.device,
            inode=self.inode,
            offset=self.offset,
            digest=self.digest(self.offset),
            within=self.within,
            idle=self.idle,
        )

    def is_being_copied_from(self, other: _File) -> bool:
        """Whether this is a copy of the other, which is still there: `copytruncate` truncates only then."""
        size = self.stat().st_size
        if other.stat().st_size < size:
            return False
        size = min(size, DIGESTED_BYTES)
        return os.pread(self.raw.fileno(), size, 0) == os.pread(other.raw.fileno(), size, 0)


class Following:
    """The log at ``path``, its position kept in the file ``kept_in``. Blocks; not for two threads at once."""

    def __init__(self, path: Path, kept_in: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._kept_in = kept_in
        self._clock = clock
        self._files: list[_File] = []
        self._saved: Saved | None = None
        self._restored = False

    @property
    def looked(self) -> float | None:
        """When the last look was, as epoch seconds, also that of an earlier process. None before the first."""
        if not self._restored:
            self._saved = _read(self._kept_in)
            self._restored = True
        return None if self._saved is None else self._saved.looked

    def since(self, before: float) -> float | None:
        """Seconds by the time of day from a look of an earlier process to the last one, None before the first."""
        return None if self._saved is None else max(0.0, self._saved.looked - before)

    def look(self, lines: Callable[[Sequence[bytes]], None]) -> int:
        """Hand over all complete lines since the last look, without their ends, a lot at a time; returns how many bytes
        were left for the next. The first look of all hands over nothing: it finds out where the log ends now.

        The position is on disk when this returns. Raises ``Unavailable``: log or position cannot be read or written.
        Then what was handed over counts for nothing: the next look starts where the last good one did.
        """
        first = self.looked is None
        now = self._clock()
        opened: list[_File] = []
        kept = self._files
        try:
            files, current = self._arranged(opened)
            if first:
                for file in files:
                    _go_to_the_end(file)
            budget = LOOK_BYTES
            for file in files:
                budget = _read_on(file, budget, lines)
            left = sum(max(0, file.stat().st_size - file.offset) for file in files) if budget <= 0 else 0
            following, finished = _parted(files, current, lines) if budget > 0 else (files, [])
            saved = Saved(
                looked=now,
                following=tuple(file.mark() for file in following),
                finished=self._finished(finished),
            )
            _write(self._kept_in, saved)
            kept = following
        except OSError as error:
            raise Unavailable(
                f"{error.filename or self.path}: {error.strerror}; the monitor's user has to be able to read the log "
                "(in Debian: as a member of the group adm) and to write into its own folder"
            ) from error
        finally:
            for file in {*opened, *self._files} - {*kept}:
                file.raw.close()
            self._files = kept
        self._saved = saved
        return left

    def close(self) -> None:
        """Let go of the files; idempotent."""
        for file in self._files:
            file.raw.close()
        self._files = []

    def _arranged(self, opened: list[_File]) -> tuple[list[_File], _File | None]:
        """The files to be read on, oldest first, each at its place, and the one that is at the path now. What had to
        be opened is added to ``opened``."""
        saved = self._saved
        held = {file.identity: file for file in self._files}
        current = _opened(self.path, held, opened)
        if current is not None:
            held[current.identity] = current
        if saved is None:
            if current is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
            return [current], current
        siblings: list[_File] | None = None
        files: list[_File] = []
        lost = False
        for mark in saved.following:
            file = held.get((mark.device, mark.inode))
            if file is None or not file.continues(mark):
                siblings = self._siblings(held, opened) if siblings is None else siblings
                file = _known_again(mark, siblings)
            if file is None:
                lost = True
                log.warning(
                    "%s was rotated, and what was not read of it cannot be found: lines may be missing",
                    self.path,
                )
            elif file not in files:
                files.append(file.go_on(mark))
        later: list[_File] = []
        if current is None or current not in files:
            if files and not lost:  # else a copy that was read in part could be taken for one that was not
                siblings = self._siblings(held, opened) if siblings is None else siblings
                since = files[-1].stat().st_mtime_ns
                later = [file for file in siblings if file.stat().st_mtime_ns >= since]
            if current is not None:
                later.append(current)
        elif current.offset == 0:
            # Nothing was in it, so a copy of what came since cannot be known by a digest.
            siblings = self._siblings(held, opened) if siblings is None else siblings
            since = int((saved.looked - CLOCK_GRAIN_S) * 1e9)
            files.remove(current)
            later = [
                file
                for file in siblings
                if file.stat().st_mtime_ns >= since and not file.is_being_copied_from(current)
            ]
            later.append(current)
        known = set(files)
        files += [
            file.start()
            for file in later
            if file not in known and not any(file.continues(mark) for mark in saved.finished)
        ]
        return files[-MAX_FILES:], current

    def _siblings(self, held: Mapping[tuple[int, int], _File], opened: list[_File]) -> list[_File]:
        """What the log was rotated to, the oldest first: files whose names begin with its own."""
        found = []
        for path in self.path.parent.glob(f"{glob.escape(self.path.name)}?*"):
            if path.suffix not in COMPRESSED and path.is_file():
                file = _opened(path, held, opened)
                if file is not None:
                    found.append(file)
        return sorted(found, key=lambda file: file.stat().st_mtime_ns)

    def _finished(self, files: Iterable[_File]) -> tuple[Mark, ...]:
        before = () if self._saved is None else self._saved.finished
        return (*before, *(file.mark() for file in files if file.offset))[-MAX_FILES:]


def _opened(path: Path, held: Mapping[tuple[int, int], _File], opened: list[_File]) -> _File | None:
    """The file, the one that is held already where it is the same; None where there is none."""
    try:
        file = _File.open(path)
    except FileNotFoundError:
        return None
    same = held.get(file.identity)
    if same is not None:
        file.raw.close()
        return same
    opened.append(file)
    return file


def _known_again(mark: Mark, files: Iterable[_File]) -> _File | None:
    """The file that was moved, or the copy that was made, since the mark was."""
    identity = (mark.device, mark.inode)
    found = [
        file for file in files if file.continues(mark) and (mark.offset > 0 or file.identity == identity)
    ]
    return max(found, key=lambda file: (file.identity == identity, file.stat().st_size), default=None)


def _go_to_the_end(file: _File) -> None:
    """Behind its last complete line."""
    size = file.stat().st_size
    begin = max(0, size - CHUNK_BYTES)
    end = os.pread(file.raw.fileno(), size - begin, begin).rfind(b"\n") + 1
    file.offset = begin + end if end or begin == 0 else size
    file.within = begin > 0 and end == 0


def _read_on(file: _File, budget: int, lines: Callable[[Sequence[bytes]], None]) -> int:
    """Hand over its complete lines; returns what is left of the budget."""
    begin = file.offset
    while budget > 0:
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
        budget -= end
    file.idle = 0 if file.offset > begin else file.idle + 1
    return budget


def _parted(
    files: Sequence[_File], current: _File | None, lines: Callable[[Sequence[bytes]], None]
) -> tuple[list[_File], list[_File]]:
    """Files to be followed on, and those that are finished: NGINX writes into the new file and no more into them. What
    stands behind their last line is handed over as a line."""
    following, finished = [], []
    for file in files:
        written = current is not None and current.offset > 0
        if file is current or not written or file.idle < IDLE_LOOKS:
            following.append(file)
            continue
        rest = os.pread(file.raw.fileno(), CHUNK_BYTES, file.offset)
        if rest or file.within:
            lines([b"" if file.within else rest])
            file.offset += len(rest)
        finished.append(file)
    return following, finished


def _read(path: Path) -> Saved | None:
    """What an earlier process kept; None where there is nothing, or nothing that can be understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Saved)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s cannot be understood (%s): the log is counted from its present end on", path, error)
        return None


def _write(path: Path, saved: Saved) -> None:
    """Replace the file, whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(msgspec.json.encode(saved))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
