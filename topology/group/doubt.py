"""Doubt: what a sink may still come to hold although newer values were written to it.

A write whose answer did not come, or that was cut off, or that a worker made which had been superseded, may be carried
out at any time, over newer values. Nobody can prevent that; so what is in doubt is written once more, later:

    by the same worker         what was in doubt, at the next seek
    by who has taken over      what the one of before has left a note of, a seek after the note was first seen
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from topology.outages import Outages
from topology.state import Request, RowKey, StateStore
from topology.uuid7 import uuid7

#: Keys that are remembered, about 5 MB. Beyond, a minute that was corrected late may keep an older value.
MOST_IN_DOUBT = 20_000


class Doubt(msgspec.Struct):
    """Rows whose values are in doubt, and since when (epoch milliseconds) those are that follow from the passing of
    time; None where none of those is."""

    keys: list[RowKey] = []
    since_ms: int | None = None

    def __bool__(self) -> bool:
        return bool(self.keys) or self.since_ms is not None

    def add(self, keys: Iterable[RowKey], since_ms: int | None) -> None:
        """More is in doubt."""
        self.keys = list(dict.fromkeys([*self.keys, *keys]))[:MOST_IN_DOUBT]
        self.since_ms = earlier(self.since_ms, since_ms)


def earlier(one: int | None, other: int | None) -> int | None:
    """The earlier of two times, either of which may not be there."""
    return min((each for each in (one, other) if each is not None), default=None)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Doubt).decode


class Notes:
    """Notes from worker to worker of one group, kept in its store as requests of a name of their own."""

    def __init__(self, group: str, store: StateStore, outages: Outages, clock_ms: Callable[[], int]) -> None:
        self._name = f"{group}/in doubt"
        self._store = store
        self._outages = outages
        self._clock_ms = clock_ms
        #: Those seen before, and whether what they say has been done.
        self._seen: dict[str, bool] = {}

    async def leave(self, doubt: Doubt) -> None:
        """For whoever has taken over. Waits while the store is away."""
        note = Request(id=uuid7(self._clock_ms()), group=self._name, what=_encode(doubt))
        await self._outages.ridden_out("state", lambda: self._store.put_request(note))

    async def due(self) -> Sequence[Doubt]:
        """What is to be written again now; call it once a minute. A note is obeyed the second time that it is seen,
        when whatever was under way has arrived, and forgotten the third time."""
        notes = await self._outages.ridden_out("state", lambda: self._store.requests(self._name))
        found: list[Doubt] = []
        for note in notes:
            done = self._seen.get(note.id)
            if done:
                await self._forget(note.id)
                continue
            if done is not None:
                found.append(_decode(note.what))
            self._seen[note.id] = done is not None
        self._keep({note.id for note in notes})
        return found

    async def _forget(self, note: str) -> None:
        await self._outages.ridden_out("state", lambda: self._store.delete_request(note))

    def _keep(self, there: Collection[str]) -> None:
        self._seen = {note: done for note, done in self._seen.items() if note in there}
