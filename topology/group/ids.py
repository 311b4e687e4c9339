"""Producers that repeat themselves: recognised by source, id and time together, once per group.

Ids are kept as 16-byte hashes with the first position of each, in rows by second of event time. A replay
finds its own position and is no duplicate of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from topology.group.rows import RowCache
from topology.position import Position
from topology.state import RowKey

HASH_BYTES = 16
POSITION_BYTES = 8
ENTRY_BYTES = HASH_BYTES + POSITION_BYTES
#: Entries in one row before the second continues in another: 1.5 MB, far below MongoDB's 16 MB a document.
FULL = 65_536
#: Of one entry in a dict: two objects and a slot (measured with tracemalloc).
ENTRY_WEIGHT_BYTES = 150

Seen = dict[bytes, Position]


class IdTable:
    """How rows of ids are stored: hash and big-endian position, one after the other."""

    def empty(self) -> Seen:
        return {}

    def pack(self, seen: Seen) -> bytes:
        return b"".join(identity + position.to_bytes(POSITION_BYTES) for identity, position in seen.items())

    def unpack(self, packed: bytes) -> Seen:
        return {
            packed[at : at + HASH_BYTES]: Position(int.from_bytes(packed[at + HASH_BYTES : at + ENTRY_BYTES]))
            for at in range(0, len(packed), ENTRY_BYTES)
        }

    def weight(self, seen: Seen) -> int:
        return ENTRY_WEIGHT_BYTES * len(seen)


class Sighting(NamedTuple):
    """An event that can be recognised."""

    second: int
    identity: bytes
    position: Position


class Ids:
    """What a group has seen. ``table`` names its rows; they are saved with the rows of the rollups."""

    def __init__(self, rows: RowCache, table: str) -> None:
        self._rows = rows
        self._table = table

    async def repeated(self, sightings: Sequence[Sighting]) -> set[Position]:
        """Positions of the events that were seen before, at another position; the others are remembered."""
        pages = await self._pages({sighting.second for sighting in sightings})
        repeated: set[Position] = set()
        changed: dict[RowKey, Position] = {}
        for second, identity, position in sightings:
            keys = pages[second]
            rows = [self._loaded[key] for key in keys]
            first = next((row.state[identity] for row in rows if identity in row.state), None)
            if first is None:
                # A full page is continued; ``_pages`` always ends with one that has room, and a single
                # batch may overfill it by what a batch holds.
                rows[-1].state[identity] = position
                changed[keys[-1]] = position
            elif first != position:
                repeated.add(position)
        for key, position in changed.items():
            row = self._loaded[key]
            self._rows.change(row, row.state, max(row.upto, position))
        return repeated

    async def _pages(self, seconds: set[int]) -> dict[int, list[RowKey]]:
        pages = {second: [RowKey(self._table, second, "0")] for second in seconds}
        while True:
            keys = [key for page in pages.values() for key in page]
            # All of them in one load, each round: only then are they sure to be in the cache together.
            self._loaded = await self._rows.load(keys)
            grown = False
            for page in pages.values():
                if len(self._loaded[page[-1]].state) >= FULL:
                    page.append(page[-1]._replace(key=str(len(page))))
                    grown = True
            if not grown:
                return pages
