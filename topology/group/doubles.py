"""Clowder's doubled downloads: its API logs the download of a file twice, a few milliseconds apart.

Rule, off by default (``EVENTSINK_DOUBLED_DOWNLOADS_ONCE``): of downloads of one file by one user with the same
size, one that comes within 50 ms of an earlier one that counts (event time, earlier in the log) does not count. So two
real downloads in 50 ms count once, too: that is why it is a choice. Events with an id are told apart by it.

What counted is kept in rows by second of event time, like the ids of events: a replay decides as the first reading did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from schemas.events import ResourceDownloaded
from topology.batch import LogEvent
from topology.group.rows import RowCache
from topology.position import Position
from topology.state import RowKey

#: Clowder's two are a few milliseconds apart.
APART_MS = 50
#: Of one entry (measured with tracemalloc).
_ENTRY_WEIGHT_BYTES = 300


class Counted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A download that counts."""

    time_ms: int
    position: Position


Second = dict[bytes, list[Counted]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[bytes, list[Counted]]).decode


class DoublesTable:
    """How the downloads of a second are stored."""

    def empty(self) -> Second:
        return {}

    def pack(self, second: Second) -> bytes:
        return _encode(second)

    def unpack(self, packed: bytes) -> Second:
        return _decode(packed)

    def weight(self, second: Second) -> int:
        return _ENTRY_WEIGHT_BYTES * sum(map(len, second.values()))


class Doubles:
    """The rule, in one reading. ``table`` names its rows."""

    def __init__(self, rows: RowCache, table: str) -> None:
        self._rows = rows
        self._table = table

    async def among(self, events: Sequence[LogEvent]) -> set[Position]:
        """The positions of those that do not count. ``events`` in log order. Waits while the store is away."""
        downloads = [each for each in events if _may_be_doubled(each.event)]
        if not downloads:
            return set()
        seconds = {second for each in downloads for second in _near(each.time_ms)}
        loaded = await self._rows.load([self._key(second) for second in seconds])
        doubled: set[Position] = set()
        changed: dict[RowKey, Position] = {}
        for each in downloads:
            known = _known(each.event)
            earlier = [
                counted
                for second in _near(each.time_ms)
                for counted in loaded[self._key(second)].state.get(known, ())
            ]
            if any(counted.position == each.position for counted in earlier):
                continue
            if any(
                counted.position < each.position and abs(counted.time_ms - each.time_ms) <= APART_MS
                for counted in earlier
            ):
                doubled.add(each.position)
                continue
            key = self._key(each.time_ms // 1000)
            loaded[key].state.setdefault(known, []).append(Counted(each.time_ms, each.position))
            changed[key] = each.position
        for key, position in changed.items():
            row = loaded[key]
            self._rows.change(row, row.state, max(row.upto, position))
        return doubled

    def _key(self, second: int) -> RowKey:
        return RowKey(self._table, second, "0")


def _may_be_doubled(event: object) -> bool:
    return isinstance(event, ResourceDownloaded) and event.id is None and event.resource_type == "file"


def _near(time_ms: int) -> set[int]:
    return {(time_ms - APART_MS) // 1000, time_ms // 1000, (time_ms + APART_MS) // 1000}


def _known(event: object) -> bytes:
    assert isinstance(event, ResourceDownloaded)  # noqa: S101 - chosen by the caller
    text = repr((event.source, event.resource_id, event.user_id, event.bytes))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
