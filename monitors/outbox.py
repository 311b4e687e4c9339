"""What waits to be posted, on this machine's disk, in order, until the endpoint has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Waiting(NamedTuple):
    """An event in the outbox: ``body`` is its JSON, complete with ``source``, ``id`` and ``time``."""

    number: int
    body: bytes


class Outbox:
    """The file at ``path``. Several processes may use one."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        raise NotImplementedError

    async def open(self) -> None:
        """Open or make the file. Raises ``Unavailable`` or ``ForeignSchema``."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close; idempotent."""
        raise NotImplementedError

    async def keep(self, events: Sequence[Mapping[str, object]]) -> None:
        """Put complete events behind all others; on disk when this returns. Raises ``Unavailable``."""
        raise NotImplementedError
