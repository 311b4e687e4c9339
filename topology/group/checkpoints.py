"""Checkpoints: once a second, what the agents of a group did is saved. The order is the guarantee:

    1  arrivals (already, by the intake), then ids, then changed rows, to the store; those from which others are
       derived come last
    2  the values of those rows to the sink; what a sink that is away does not take stays owed
    3  each agent's position, the watermark, the horizon and the digest of the furthest message

A crash between any two writes reads again from 3, and every row tells what it holds already.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby

import msgspec

from topology.errors import Superseded
from topology.group.delivery import Delivery
from topology.group.reading import Reading
from topology.group.rows import Row, Saved, Unsaved
from topology.jobs.job import JobRollup
from topology.parts import GroupParts
from topology.position import NOWHERE
from topology.rollups.operators import Kind, Purge, purges
from topology.state import GroupState
from topology.windows import DAY

log = logging.getLogger(__name__)

#: How long a checkpoint waits for a sink that answers, but slowly, before it saves the position.
SINK_PATIENCE_S = 2.0
#: A quiet group has nothing to save but its watermark.
QUIET_SAVE_EVERY_MS = 60_000
PURGE_EVERY_MS = 60_000


class Checkpoints:
    """The checkpoints of one start of a group, from the state that it ``saved`` before.

    ``seconds_tables``: rows by second of event time, of what is recognised when it comes again. ``delivery`` is None
    where no agent of the group has rollups.
    """

    def __init__(
        self,
        group: str,
        saved: GroupState,
        seconds_tables: Sequence[str],
        kinds: Mapping[str, Kind],
        delivery: Delivery | None,
        parts: GroupParts,
    ) -> None:
        self._group = group
        self._generation = saved.generation
        self._seconds_tables = seconds_tables
        self._kinds = kinds
        #: The order in which rows are saved: ids (0), then derived rows, then those that they are derived from.
        self._ranks = {table: 2 if kind.source else 1 for table, kind in kinds.items()}
        self._delivery = delivery
        self._parts = parts
        self._saved = saved
        self._saved_ms = 0
        self._purged_ms = 0
        self._checked_ms = parts.clock_ms()

    @property
    def age_ms(self) -> int:
        """Time since the last complete checkpoint."""
        return self._parts.clock_ms() - self._checked_ms

    async def save(self, reading: Reading) -> None:
        """Take one. Waits while the store is away: then nothing is saved, and nothing lost.

        Raises ``Superseded`` when another worker owns the group, ``Conflict`` when one wrote our rows.
        """
        parts = self._parts
        await self.owned()
        # Positions first: every event up to them is in rows that are unsaved now or were saved before.
        # No await until the rows are listed, so that the horizon holds for exactly the events after them.
        state = self._state(reading)
        unsaved = reading.rows.dirty()
        if self._saved.read_up_to == NOWHERE != state.read_up_to:
            # Before the first rows: what they hold up to means nothing without the log that it belongs to.
            await self._save_group(
                msgspec.structs.replace(self._saved, read_up_to=state.read_up_to, digest=state.digest)
            )
        unsaved.sort(key=self._rank)
        owing: list[Saved] = []
        # Each rank once the one before is there: beside a derived row in which another worker was first, what it is
        # derived from must not be saved as if it were in it.
        for _, of_rank in groupby(unsaved, self._rank):
            owing += await reading.rows.save(list(of_rank))  # 1
        if self._delivery is not None:
            self._delivery.offer(owing)  # 2
            await self._delivery.delivered(SINK_PATIENCE_S)
        state = msgspec.structs.replace(state, told_ms=_told(reading.told_ms, state.watermark))
        now = parts.clock_ms()
        if self._worth_saving(state, now):
            await self._save_group(state)  # 3
            self._saved_ms = now
        self._checked_ms = now
        if now - self._purged_ms >= PURGE_EVERY_MS:
            self._purged_ms = now
            await self._count_open_jobs(state)
            if state.horizon is not None:
                await self._purge(reading, state, state.horizon)

    def _rank(self, unsaved: Unsaved) -> int:
        return self._ranks.get(unsaved.row.key.table, 0)

    async def save_beginning(self, reading: Reading) -> None:
        """Save where a reading begins that has folded nothing yet. Waits while the store is away; raises
        ``Superseded``."""
        await self.owned()
        await self._save_group(self._state(reading))

    async def _save_group(self, state: GroupState) -> None:
        parts = self._parts
        await parts.outages.ridden_out("state", lambda: parts.store.save_group(self._group, state))
        self._saved = state

    async def owned(self) -> None:
        """Raise ``Superseded`` if a later generation was taken."""
        parts = self._parts
        taken = await parts.outages.ridden_out("state", lambda: parts.store.generation(self._group))
        if taken > self._generation:
            raise Superseded(
                f"another worker took over group {self._group} (generation {taken}, ours is "
                f"{self._generation}): run one worker per group; this one stops, nothing is lost"
            )

    def _state(self, reading: Reading) -> GroupState:
        reading.horizon = self._horizon(reading)
        return GroupState(
            generation=self._generation,
            positions=dict(reading.positions),
            read_up_to=reading.read_up_to,
            digest=reading.read_digest,
            watermark=reading.watermark,
            horizon=reading.horizon,
            begins_at_first=reading.begins_at_first,
            told_ms=reading.told_ms,
        )

    def _worth_saving(self, state: GroupState, now: int) -> bool:
        saved = self._saved
        return (
            state.positions != saved.positions
            or state.told_ms != saved.told_ms
            or state.horizon != saved.horizon
            or now - self._saved_ms >= QUIET_SAVE_EVERY_MS
        )

    def _horizon(self, reading: Reading) -> int | None:
        """What lies this far behind the clock and the watermark is purged; it never moves back."""
        if reading.watermark is None:
            return reading.horizon
        now = min(self._parts.clock_ms(), reading.watermark) // 1000
        edge = now - int(self._parts.keep.total_seconds())
        edge -= edge % 60
        return edge if edge > 0 and edge > (reading.horizon or 0) else reading.horizon

    async def _count_open_jobs(self, state: GroupState) -> None:
        """A job that began and never ended is not seen anywhere else."""
        if state.watermark is None:
            return
        before = state.watermark // 1000 - DAY.seconds
        store, outages = self._parts.store, self._parts.outages
        for rollup in {kind.rollup.name: kind.rollup for kind in self._kinds.values()}.values():
            if isinstance(rollup, JobRollup):
                jobs = rollup.jobs

                async def count(jobs: str = jobs) -> int:
                    return await store.count_owed(jobs, before=before)

                open_jobs = await outages.ridden_out("state", count)
                self._parts.metrics.jobs_open_over_a_day(rollup=rollup.name).set(open_jobs)

    async def _purge(self, reading: Reading, state: GroupState, horizon: int) -> None:
        """Delete rows before the saved horizon that owe nothing; what a crash leaves goes with the next."""
        upto = min(state.positions.values())
        store, outages = self._parts.store, self._parts.outages
        # An event whose day is still open may be repeated.
        gone = {table: Purge(horizon - DAY.seconds + 1) for table in self._seconds_tables}
        for kind in self._kinds.values():
            gone |= purges(kind.rollup, horizon)
        for table, (before, owed) in gone.items():

            async def purge(table: str = table, before: int = before, owed: bool = owed) -> int:
                return await store.purge_rows(table, before=before, upto=upto, owed=owed)

            def purged(row: Row, table: str = table, before: int = before) -> bool:
                return row.key.table == table and row.until < before

            if await outages.ridden_out("state", purge):
                reading.rows.forget(purged)
        # Arrivals are facts for all groups, for the one that is furthest behind, too.
        groups = await outages.ridden_out("state", store.read_groups)
        behind = min(min(each.positions.values(), default=NOWHERE) for each in groups.values())
        before_ms = (horizon - DAY.seconds) * 1000
        await outages.ridden_out("state", lambda: store.purge_arrivals(behind, before_ms))


def _told(told_ms: int | None, watermark: int | None) -> int | None:
    """What may be saved of ``told_ms``. The watermark may have moved on since the state was made: whoever starts from
    that state writes values as of its watermark over those that were told later, and must tell of that time again."""
    return told_ms if told_ms is None or watermark is None else min(told_ms, watermark)
