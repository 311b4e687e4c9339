"""When each key was last used, in a file of its own beside the keys: using a key changes nothing of who is let in.

Seen in memory, written now and then by whoever runs the application: an answer never waits for it, and a crash
loses the last minute of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from topology.errors import Unavailable
from web.files import replace_file


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1]
    last_used: dict[str, int]


_decode = msgspec.json.Decoder(_File).decode


class LastUsed:
    """By hash of the key, in epoch milliseconds. Several processes may write: the latest time stays. Two that write in
    the same instant may lose one another's; the next minute mends that."""

    def __init__(self, keys_file: Path) -> None:
        self.path = keys_file.with_suffix(".used.json")
        self._seen: dict[str, int] = {}
        self._written: Mapping[str, int] = {}

    def saw(self, sha256: str, now: int) -> None:
        """A request was let in with this key. Does no I/O."""
        self._seen[sha256] = now

    def read(self) -> Mapping[str, int]:
        """What the file says; nothing if it is not there, or cannot be used: nobody is let in or kept out by it."""
        try:
            return _decode(self.path.read_bytes()).last_used
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}

    def write(self, known: Collection[str]) -> None:
        """Write what was seen since the last time, and leave out keys that are not ``known`` any more. Blocks; may be
        called in another thread than ``saw``. Raises ``Unavailable``; the next call then writes it."""
        seen = dict(self._seen)  # one step of the interpreter, so no other thread changes it meanwhile
        if seen == self._written:
            return
        found = self.read()
        left = {
            sha256: max(seen.get(sha256, 0), found.get(sha256, 0))
            for sha256 in known
            if sha256 in seen or sha256 in found
        }
        content = msgspec.json.format(msgspec.json.encode(_File(version=1, last_used=left)), indent=2)
        try:
            replace_file(self.path, content + b"\n")
        except OSError as error:
            raise Unavailable(
                f"{self.path} cannot be written ({error.strerror}), so `eventsink keys list` does not show "
                "when keys were last used: mend the permissions of its folder"
            ) from error
        self._written = seen
