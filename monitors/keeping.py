"""Results on their way to the disk: what it does not take waits in memory, in order, and is tried again."""

from __future__ import annotations

import asyncio
import logging

from monitors.outbox import Held, Outbox
from monitors.probe import Measured, Read
from monitors.words import counted
from topology.errors import Unavailable

log = logging.getLogger(__name__)

#: Results that the disk does not take, at most; more are dropped.
MOST_UNKEPT = 10_000


class Keeper:
    """Over an open outbox. ``away``: why the disk takes nothing at present; None while all is well."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._unkept: list[Measured | Read] = []
        #: Dropped because the disk took nothing for too long.
        self._lost = 0
        self._keeping = asyncio.Lock()
        self._dropping = False
        self.away: str | None = None

    @property
    def unkept(self) -> int:
        """How many wait for the disk."""
        return len(self._unkept)

    def held(self) -> Held:
        """What the outbox holds, and what waits for the disk."""
        held = self._outbox.held
        return held._replace(events=held.events + len(self._unkept), dropped=held.dropped + self._lost)

    async def progress(self, name: str) -> bytes | None:
        """Where the last result ends that was kept under this name, or waits for the disk. Raises ``Unavailable``."""
        async with self._keeping:
            for result in reversed(self._unkept):
                if isinstance(result, Read) and result.progress.name == name:
                    return result.progress.now
            return await self._outbox.progress(name)

    async def keep(self, result: Measured | Read) -> None:
        """Keep a result for the endpoint. Raises nothing that a disk does: what it does not take is tried again with
        the next one."""
        if len(self._unkept) >= MOST_UNKEPT:
            self._lost += 1
            self._tell_dropped("the disk takes nothing")
            return
        self._unkept.append(result)
        await self.flush()

    async def flush(self) -> None:
        """Try once more what waits."""
        async with self._keeping:
            await self._keep()

    async def _keep(self) -> None:
        handed = self._unkept.copy()
        if not handed:
            return
        try:
            kept = await self._outbox.keep(handed)
        except Unavailable as error:
            if self.away is None:
                log.error("results wait in memory and are lost with this process: %s", error)
            self.away = str(error)
            return
        # Only now: who was cancelled while the disk wrote keeps them again, with the same ids.
        del self._unkept[: len(handed)]
        self.away = None
        if kept.overtaken:
            log.warning(
                "%s counted by another monitor of %s too, counted once: stop one of them",
                counted(kept.overtaken, "period"),
                self._outbox.path.parent,
            )
        if kept.dropped:
            self._tell_dropped("the outbox is full, raise outbox_max_bytes or bring the endpoint back")
        else:
            self._dropping = False

    def _tell_dropped(self, why: str) -> None:
        if not self._dropping:
            log.error("results are dropped: %s", why)
        self._dropping = True
