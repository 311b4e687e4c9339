"""A file of a log that is being read, and the mark by which it is known again under another name, or as a copy."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import msgspec

from topology.errors import Unavailable

log = logging.getLogger(__name__)

#: Of the beginning, and of what stands before the place: lines with their times, so that no two files are alike.
DIGESTED_BYTES = 1024


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where a file was read. ``within``: that place is inside a line that is too long."""

    device: int
    inode: int
    offset: int
    digest: str
    within: bool = False
    idle: int = 0


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """Where a look ended. ``following`` is oldest first; ``finished`` are old files that are not read again;
    ``looked`` and ``read`` are the epoch times at which the last look began, and had read, in seconds."""

    looked: float
    #: None where an earlier release saved it.
    read: float | None = None
    following: tuple[Mark, ...]
    finished: tuple[Mark, ...] = ()


@dataclass(slots=True, eq=False)
class LogFile:
    """A file that is being read."""

    raw: io.FileIO
    device: int
    inode: int
    offset: int = 0
    within: bool = False
    idle: int = 0

    @classmethod
    def open(cls, path: Path) -> LogFile:
        """Raises ``Unavailable`` for what is no file: to open a pipe would be to wait for who writes into it."""
        raw = io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        found = os.fstat(raw.fileno())
        if not stat.S_ISREG(found.st_mode):
            raw.close()
            raise Unavailable(
                f"{path} is no regular file (in a container NGINX writes to its standard output): "
                "let it write a file, and name that one"
            )
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

    def go_on(self, mark: Mark) -> LogFile:
        self.offset, self.within, self.idle = mark.offset, mark.within, mark.idle
        return self

    def start(self) -> LogFile:
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

    def is_being_copied_from(self, other: LogFile) -> bool:
        """Whether this is a copy of the other, which is still there: `copytruncate` truncates only then."""
        size = self.stat().st_size
        return other.stat().st_size >= size and self.digest(size) == other.digest(size)


def encoded(saved: Saved) -> bytes:
    """For who keeps it."""
    return msgspec.json.encode(saved)


def decoded(kept: bytes, path: Path) -> Saved | None:
    """What was kept; None, with a warning, where it cannot be understood."""
    try:
        return msgspec.json.decode(kept, type=Saved)
    except msgspec.DecodeError as error:
        log.warning(
            "up to where %s was read cannot be understood (%s): it is counted from its present end on",
            path,
            error,
        )
        return None
