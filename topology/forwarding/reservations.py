"""Reservations: which events may have been sent to a vendor that does not know again what it was sent before.

They are saved before the first of them is sent (docs/decisions/0036). After a crash those beyond the saved position
are not sent again: they may have arrived, so they are counted as doubtful. A clean end saves which ones really were
sent, and nothing is in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from topology.outages import Outages
from topology.position import NOWHERE, Position
from topology.state import RowKey, RowWrite, StateStore, StoredRow


class _Saved(msgspec.Struct, frozen=True):
    positions: list[Position] = []
    certain: bool = True


class Reservations:
    """Those of one agent. Waits while the store of rows is away. Raises ``Conflict`` where another worker writes."""

    def __init__(self, group: str, agent: str, generation: int, store: StateStore, outages: Outages) -> None:
        self._group = group
        self._agent = agent
        self._key = RowKey(f"forwarding/{group}", 0, agent)
        self._store = store
        self._outages = outages
        self._next_version = generation << 40 | 1
        self._version = 0
        self._reserved: set[Position] = set()
        self._sent: set[Position] = set()
        #: Not to be sent again; and those of them of which nobody knows whether they were sent.
        self.before: frozenset[Position] = frozenset()
        self.doubtful: frozenset[Position] = frozenset()

    async def load(self) -> None:
        """What was saved before."""
        found = await self._outages.ridden_out("state", lambda: self._store.load_rows([self._key]))
        row = found.get(self._key)
        if row is not None:
            saved = msgspec.json.decode(row.data, type=_Saved)
            self._version = row.version
            self.before = frozenset(saved.positions)
            self.doubtful = frozenset() if saved.certain else self.before
            self._reserved = set(saved.positions)

    async def reserve(self, positions: Iterable[Position]) -> None:
        """Return when it is durable that these may have been sent."""
        state = await self._outages.ridden_out("state", lambda: self._store.read_group(self._group))
        settled = NOWHERE if state is None else state.positions.get(self._agent, NOWHERE)
        self._sent = {at for at in self._sent if at > settled}
        self._reserved = {at for at in self._reserved if at > settled}.union(positions)
        await self._save(_Saved(sorted(self._reserved), certain=False))

    def sent(self, positions: Iterable[Position]) -> None:
        """These are being sent now."""
        self._sent.update(positions)

    def not_sent(self, positions: Iterable[Position]) -> None:
        """Of these nothing was sent after all."""
        self._sent.difference_update(positions)

    def give_up(self) -> None:
        """The group reads again from its saved positions: what was sent is not to be sent again."""
        self.before = self.before | self._sent

    async def end(self) -> None:
        """Save which were sent. Call it when nothing is being sent any more."""
        if self._reserved:
            held = self.before | self._sent
            await self._save(_Saved(sorted(held & self._reserved), certain=not self.doubtful))

    async def _save(self, saved: _Saved) -> None:
        version, self._next_version = self._next_version, self._next_version + 1
        row = StoredRow(self._key, version, NOWHERE, False, msgspec.json.encode(saved), 0)
        write = RowWrite(row, self._version)
        await self._outages.ridden_out("state", lambda: self._store.save_rows([write]))
        self._version = version
