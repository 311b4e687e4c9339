"""A log that is written and rotated, and who follows it. Lines are numbers, so that what was read can be compared with
what was written."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from pathlib import Path

from monitors.following import Following
from monitors.log_file import Saved


class Rotated:
    """A log and who follows it. ``forget`` is a restart of the monitor."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "access.log"
        self.saved: Saved | None = None
        self.written = 0
        self.read: list[bytes] = []
        self.left = 0
        self._writing = self.log.open("ab", buffering=0)
        self._following = Following(self.log)

    def write(self, lines: int = 1) -> None:
        """As NGINX does: into the file that it opened last, always at its end."""
        self._writing.write(b"".join(b"line %09d\n" % (self.written + n) for n in range(lines)))
        self.written += lines

    def write_raw(self, text: bytes) -> None:
        self._writing.write(text)

    def look(self) -> list[bytes]:
        found: list[bytes] = []
        self.left = self._look(found)
        self.read += found
        return found

    def look_in_vain(self) -> None:
        """Nothing of it is kept."""
        saved = self.saved
        self._look([])
        self.saved = saved

    def _look(self, found: list[bytes]) -> int:
        self.saved, left = self._following.look(self.saved, found.extend)
        return left

    def forget(self) -> None:
        self._following.close()
        self._following = Following(self.log)

    def rename(self) -> None:
        """The old file moves on; NGINX still writes into it until ``reopen``."""
        self._shift()
        self.log.rename(self._old(1))

    def reopen(self) -> None:
        self._writing.close()
        self._writing = self.log.open("ab", buffering=0)

    def write_late(self) -> None:
        """As a worker of NGINX does that carries out `USR1` after another one has."""
        with self._old(1).open("ab", buffering=0) as late:
            late.write(b"line %09d\n" % self.written)
        self.written += 1

    def copytruncate(self) -> None:
        self.copy()
        self.truncate()

    def copy(self) -> None:
        self._shift()
        shutil.copyfile(self.log, self._old(1))

    def truncate(self) -> None:
        with self.log.open("r+b") as file:
            file.truncate()

    def compress(self, number: int = 1) -> None:
        """The newest old file, or one before it. Its times are kept, as by gzip and logrotate."""
        old = self._old(number)
        compressed = old.with_name(f"{old.name}.gz")
        compressed.write_bytes(gzip.compress(old.read_bytes()))
        shutil.copystat(old, compressed)
        old.unlink()

    def put_forward(self, *, days: int) -> None:
        """As if the log were written in ``days``, and each older file a minute before the next."""
        newest = time.time() + 86_400 * days
        for number in range(40):
            file = self._old(number) if number else self.log
            if file.exists():
                os.utime(file, (newest, newest - number * 60))

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
