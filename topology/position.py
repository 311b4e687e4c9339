"""Where an event is in the log: one signed 64-bit integer per partition, in the order of reading.

    bit 63   62 … 55   54 … 17   16 … 0
    sign=0    epoch     offset    index

The epoch tells incarnations of a log apart: a queue that was deleted and made again starts at
offset 0, and its events are not the old ones. The index counts events within one message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

Position = NewType("Position", int)

INDEX_BITS = 17
OFFSET_BITS = 38
EPOCH_BITS = 8
MAX_INDEX = (1 << INDEX_BITS) - 1
MAX_OFFSET = (1 << OFFSET_BITS) - 1
MAX_EPOCH = (1 << EPOCH_BITS) - 1

#: Before every event of every epoch.
NOWHERE = Position(-1)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position taken apart."""

    epoch: int
    offset: int
    index: int


def position(epoch: int, offset: int, index: int = 0) -> Position:
    """Pack. Raises ``ValueError`` where a part does not fit; nothing wraps around in silence."""
    if not (0 <= epoch <= MAX_EPOCH and 0 <= offset <= MAX_OFFSET and 0 <= index <= MAX_INDEX):
        raise ValueError(f"no such position: epoch {epoch}, offset {offset}, index {index}")
    return Position(epoch << (OFFSET_BITS + INDEX_BITS) | offset << INDEX_BITS | index)


def place(at: Position) -> Place:
    """Unpack; the inverse of :func:`position`."""
    if at < 0:
        raise ValueError("before the first event there is no place")
    return Place(at >> (OFFSET_BITS + INDEX_BITS), at >> INDEX_BITS & MAX_OFFSET, at & MAX_INDEX)


def end_of_message(at: Position) -> Position:
    """The highest position that any event of the same message can have."""
    return Position(at | MAX_INDEX)


def written(at: Position) -> str:
    """``epoch/offset/index``, as people see it in tables and logs; ``-`` for no place in the log."""
    if at < 0:
        return "-"
    there = place(at)
    return f"{there.epoch}/{there.offset}/{there.index}"
