"""Reservations: which events may have been sent to a vendor that does not know again what it was sent before.

They are saved before the first of them is sent (docs/decisions/0036). After a crash those beyond the saved position
are not sent again: they may have arrived, so they are counted as doubtful, but for those of which an answer was seen
in time (docs/decisions/0039). A clean end saves which ones really were sent; only what no answer came for is in doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import msgspec

from topology.errors import Conflict
from topology.outages import Outages
from topology.position import NOWHERE, Position
from topology.state import RowKey, RowWrite, StateStore, StoredRow


class _Saved(msgspec.Struct, frozen=True):
    """``answered``: those of the ``positions`` of which it is known what became of them."""

    positions: list[Position] = []
    answered: list[Position] = []


class Reservations:
    """Those of one agent. Waits while the store of rows is away. Raises ``Conflict`` where a later worker writes."""

    def __init__(self, group: str, agent: str, generation: int, store: StateStore, outages: Outages) -> None:
        self._group = group
        self._agent = agent
        self._key = RowKey(f"forwarding/{group}", 0, agent)
        self._store = store
        self._outages = outages
        self._first_version = generation << 40
        self._next_version = self._first_version | 1
        self._version = 0
        self._reserved: set[Position] = set()
        self._sent: set[Position] = set()
        self._answered: set[Position] = set()
        #: Not to be sent again.
        self.before: frozenset[Position] = frozenset()

    async def load(self) -> None:
        """What was saved before."""
        row = await self._stored()
        if row is not None:
            self._adopt(row)

    async def reserve(self, positions: Collection[Position]) -> None:
        """Return when it is durable that these may have been sent. Look at ``before`` anew: those of a worker that was
        ending when this one began may have come to it."""
        state = await self._outages.ridden_out("state", lambda: self._store.read_group(self._group))
        settled = NOWHERE if state is None else state.positions.get(self._agent, NOWHERE)
        for each in (self._sent, self._answered, self._reserved):
            each.difference_update([at for at in each if at <= settled])
        self._reserved.update(positions)
        await self._save(lambda: self._reserved)

    def sent(self, positions: Iterable[Position]) -> None:
        """These are being sent now."""
        self._sent.update(positions)

    def not_sent(self, positions: Iterable[Position]) -> None:
        """Of these nothing was taken after all: they may go once more."""
        self._sent.difference_update(positions)

    def answered(self, positions: Iterable[Position]) -> None:
        """What became of these is known, and told."""
        self._answered.update(positions)

    def doubtful(self, position: Position) -> bool:
        """Whether nobody knows if this one of ``before`` was sent. Told once."""
        if position in self._answered:
            return False
        self._answered.add(position)
        return True

    def give_up(self) -> None:
        """The group reads again from its saved positions: what was sent is not to be sent again. Call it when nothing
        is being sent any more."""
        self.before = self.before | self._sent

    async def end(self) -> None:
        """Save which were sent. Call it when nothing is being sent any more."""
        if self._reserved:
            await self._save(lambda: self._reserved & (self.before | self._sent))

    async def _save(self, held: Callable[[], set[Position]]) -> None:
        version, self._next_version = self._next_version, self._next_version + 1
        while True:
            positions = sorted(held())
            saved = _Saved(positions, [at for at in positions if at in self._answered])
            row = StoredRow(self._key, version, NOWHERE, False, msgspec.json.encode(saved), 0)
            try:
                await self._outages.ridden_out("state", lambda: self._write(row))  # noqa: B023 - awaited here
            except Conflict:
                theirs = await self._stored()
                if theirs is None or theirs.version >= self._first_version:
                    raise
                # An earlier worker reserved some more after we began. It cannot any more once this is written.
                self._adopt(theirs)
            else:
                self._version = version
                return

    async def _write(self, row: StoredRow) -> None:
        await self._store.save_rows([RowWrite(row, self._version)])

    async def _stored(self) -> StoredRow | None:
        found = await self._outages.ridden_out("state", lambda: self._store.load_rows([self._key]))
        return found.get(self._key)

    def _adopt(self, row: StoredRow) -> None:
        saved = msgspec.json.decode(row.data, type=_Saved)
        self._version = row.version
        self._reserved.update(saved.positions)
        self._answered.update(saved.answered)
        self.before = self.before.union(saved.positions)
