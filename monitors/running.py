"""The monitor, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitors.config import MonitorConfig


async def deliver(
    config: MonitorConfig, events: Sequence[Mapping[str, object]], environment: Mapping[str, str]
) -> bool:
    """Put events of a command (``source``, ``id`` and ``time`` are put in where they are missing) into the outbox, behind
    what waits there, and try once to post everything. True if it was posted, False if it waits for the running monitor
    or the next command. Raises ``SettingsError`` or ``Unavailable`` (the disk: it was not kept)."""
    raise NotImplementedError
