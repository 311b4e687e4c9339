"""What can go wrong, as types. The message is written for the person who has to act on it.

EventsinkError
├── SettingsError      wrong settings: mend them, nothing was started
├── Unavailable        a server or disk does not answer: nothing is lost, try again later
├── Refused            the other side will never take this: do not try again
├── ForeignSchema      the database belongs to something else or to another version
├── FolderInUse        another process works on the data folder
├── Conflict           a row was written by another worker since it was read
└── Superseded         a newer worker owns the group: this one must stop
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class EventsinkError(Exception):
    """Base of all errors that a person is meant to read. The message is one line: what and what to do."""


class SettingsError(EventsinkError):
    """Settings are unknown, missing or wrong: a line for each, so that all can be mended in one go."""


class Unavailable(EventsinkError):
    """A server or a disk does not answer now; the same call may succeed later. Nothing was lost.

    ``retry_after`` is the server's own wish, where it stated one.
    """

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(EventsinkError):
    """The other side understood and said no; the same call can never succeed."""


class ForeignSchema(EventsinkError):
    """A database holds tables that are not ours, or of a version that this program cannot read."""


class FolderInUse(EventsinkError):
    """The data folder is held by another ``up`` or ``worker``."""


class Conflict(EventsinkError):
    """Rows were written by another worker since they were read; what was folded on top of them is void."""

    def __init__(self, keys: Sequence[object]) -> None:
        super().__init__(f"{len(keys)} row(s) were written by another worker, first {keys[0]!r}")
        self.keys = keys


class Superseded(EventsinkError):
    """A worker of a later generation owns the group. Stop: it continues from the last checkpoint."""
