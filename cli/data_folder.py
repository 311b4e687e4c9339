"""The data folder: embedded log and stores, spool, keys. Its owner's alone, worked on by one process."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from topology.errors import FolderInUse, Unavailable

#: Stays when its holder ends: removing it would let two processes lock two files of one name.
LOCK_FILE = "eventsink.lock"


def make(folder: Path) -> None:
    """Make the folder, for its owner alone, unless it is there. Raises ``Unavailable`` where files
    cannot be written in it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise Unavailable(f"{folder} is a file, not a folder: choose another with --data") from None
    except OSError as error:
        raise _unusable(folder, error) from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise _unusable(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _unusable(folder: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"data folder {folder} cannot be used ({error.strerror}): "
        "mend its permissions or choose another with --data"
    )


class DataFolder:
    """The right to work on a folder, held by one ``up`` or ``worker`` at a time. All other commands go
    beside it and ask for nothing.

    The kernel keeps the lock, so it ends with its holder, however that ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def hold(self) -> None:
        """Make the folder and take it. Raises ``FolderInUse`` or ``Unavailable``."""
        if self._lock is not None:
            return
        make(self.path)
        file = self.path / LOCK_FILE
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
            os.close(lock)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise FolderInUse(
                f"data folder {self.path} is in use by {who}: stop that `up` or `worker` first, "
                "or choose another folder with --data"
            ) from None
        except OSError as error:
            os.close(lock)
            raise _unusable(self.path, error) from None
        self._lock = lock

    def release(self) -> None:
        """Give it up; idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
