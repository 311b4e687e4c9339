"""Where a group reads on: after what it was handed, in a log that is proved to be the same, or at the first event of a
new one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto

from topology.group.reading import Reading
from topology.log import message_before
from topology.parts import GroupParts
from topology.position import MAX_INDEX, NOWHERE, Position, place, position

log = logging.getLogger(__name__)


class Seen(Enum):
    """What became of a message that was read before."""

    THERE = auto()
    CUT = auto()
    OTHER = auto()


class Whereabouts:
    """Of one group. ``save_beginning`` saves where a reading begins that has folded nothing yet. Every call asks log
    and store, and raises ``Unavailable`` while one of them is away."""

    def __init__(
        self, group: str, parts: GroupParts, save_beginning: Callable[[Reading], Awaitable[None]]
    ) -> None:
        self._group = group
        self._parts = parts
        self._save_beginning = save_beginning
        self._told_epoch = 0

    async def of(self, reading: Reading) -> tuple[int, int]:
        """Epoch and offset to read from: after what was handed out, or the first event of a new log."""
        read = reading.read_up_to
        if read == NOWHERE:
            return await self._beginning(reading)
        was = place(read)
        match await self._same_log(read, reading.read_digest):
            case Seen.THERE:
                return was.epoch, _after(reading.handed_up_to, was.epoch)
            case Seen.CUT:
                await self._tell_of_cut(reading, was.offset)
                return was.epoch, was.offset + 1
            case Seen.OTHER:
                epoch = await self._agreed_epoch(await self._parts.store.raise_epoch(was.epoch))
                self._tell_of_new_log(was.offset, epoch)
                return epoch, 0

    async def _beginning(self, reading: Reading) -> tuple[int, int]:
        """Where a group begins that has read nothing. What it leaves out counts as read, and that is saved first: a
        crash must not move the beginning past what came meanwhile."""
        epoch = await self._agreed_epoch(await self._parts.store.epoch())
        if reading.begins_at_first or self._parts.log_start == "first":
            return epoch, 0
        log_of_ours = self._parts.log
        offset = await log_of_ours.offset_since(self._parts.log_start)
        before = await message_before(log_of_ours, offset) if offset else None
        if before is None:
            # Decided once: what comes while the log is reopened, or the worker is down, is not to be left out.
            reading.begins_at_first = True
            await self._save_beginning(reading)
            return epoch, 0
        reading.begin_after(position(epoch, before.offset, MAX_INDEX), before.digest())
        await self._save_beginning(reading)
        log.info("group %s has no saved position and begins at message %d of the log", self._group, offset)
        return epoch, before.offset + 1

    async def _same_log(self, read: Position, digest: bytes) -> Seen:
        """Whether the log still has this message, has cut it away, or is another log."""
        offset = place(read).offset
        found = await self._parts.log.message_at(offset)
        if found is not None and found.digest() == digest:
            return Seen.THERE
        first = await self._parts.log.first_offset()
        return Seen.CUT if found is None and first is not None and first > offset else Seen.OTHER

    async def _agreed_epoch(self, epoch: int) -> int:
        """``epoch``, or a later one if what another group read in it is not in this log: groups that notice a
        new log at different times, or not at all, name it alike all the same."""
        store = self._parts.store
        while True:
            others = [
                state
                for state in (await store.read_groups()).values()
                if state.read_up_to != NOWHERE and place(state.read_up_to).epoch == epoch
            ]
            if not others:
                return epoch
            witness = max(others, key=lambda state: state.read_up_to)
            if await self._same_log(witness.read_up_to, witness.digest) is not Seen.OTHER:
                return epoch
            epoch = await store.raise_epoch(epoch)

    async def _tell_of_cut(self, reading: Reading, offset: int) -> None:
        first = await self._parts.log.first_offset()
        if first is None or reading.told == first:
            return
        reading.told = first
        self._parts.metrics.log_messages_cut(group=self._group).inc(first - offset - 1)
        log.error(
            "data at risk: the log was cut before it was read: up to %d message(s) are gone for group %s, reading "
            "on at the first that is left; keep the log longer (LogCut in the runbook says how)",
            first - offset - 1,
            self._group,
        )

    def _tell_of_new_log(self, offset: int, epoch: int) -> None:
        if self._told_epoch != epoch:
            self._told_epoch = epoch
            log.error(
                "the log is a new one (message %d is not what group %s read there): reading it from its first "
                "event as epoch %d; what the old log held and nobody had read is lost",
                offset,
                self._group,
                epoch,
            )


def _after(handed_up_to: Position, epoch: int) -> int:
    """The offset after what was handed out, in a log that is still the one of ``epoch``."""
    if handed_up_to == NOWHERE:
        return 0
    last = place(handed_up_to)
    return last.offset + 1 if last.epoch == epoch else 0
