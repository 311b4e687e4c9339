"""What is written to. One interface for each kind, implementations beside it, one conformance suite each.

    RollupSink    sqlite_rollups, influxdb          rollup points, absolute values at fixed addresses
    RawEvents     sqlite_events, mongo_events       every event, canonical and as it came
    DeadLetters   sqlite_events, mongo_events       what cannot be processed, with the reason

Writes raise ``Unavailable`` (same call again later) or ``Refused`` (never again), nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from topology.position import Position
from topology.totals import Fold

Value = int | float

#: Conditions on tags: the value that each must have, or those of which it must have one.
Where: TypeAlias = Mapping[str, str | Sequence[str]]


def wanted_values(where: Where) -> Mapping[str, Sequence[str]]:
    """The values that each tag may have."""
    return {tag: (wanted,) if isinstance(wanted, str) else wanted for tag, wanted in where.items()}


class Point(NamedTuple):
    """The values of one key in one window. ``time`` is the window's start in epoch seconds; ``tags`` are
    in the order of the rollup's key; absent fields are left out."""

    rollup: str
    window: str
    time: int
    tags: tuple[tuple[str, str], ...]
    fields: Mapping[str, Value]


class RollupSink(Protocol):
    """Writing the same address again replaces the values: at-least-once in, effectively once out."""

    name: str

    async def open(self) -> None:
        """Prove the connection. Raises ``Unavailable`` or ``SettingsError``."""

    async def close(self) -> None:
        """Release connections; idempotent."""

    async def write(self, points: Sequence[Point]) -> None:
        """Durably write all points. ``Refused`` means that none or an unknown part was written and that
        at least one point can never be: write halves to find it."""

    async def totals(
        self,
        rollup: str,
        window: str,
        *,
        since: int,
        until: int,
        by: Sequence[str],
        folds: Mapping[str, Fold],
        each_window: bool = False,
    ) -> Sequence[Point]:
        """The points of [since, until) folded into one for each combination of the tags ``by`` (and, with
        ``each_window``, each window), in no order; its time is ``since``, or the window's start. Sums beyond 2^53 are
        rounded. A field that no point has is 0 in a sum and left out of a maximum. ``folds`` has a sum, or points that
        have nothing but a ``MaxOf`` may be left out."""

    async def query(
        self,
        rollup: str,
        window: str,
        *,
        since: int | None,
        until: int | None,
        where: Where,
        limit: int,
    ) -> Sequence[Point]:
        """Points whose window starts in [since, until) (epoch seconds) and whose tags match exactly,
        ascending by time, then tags. No value of a tag matches no point."""


class RawEvent(NamedTuple):
    """One event as it is archived. ``id`` is its identity and makes inserting twice harmless. ``time`` and
    ``received`` in epoch milliseconds; ``event`` the canonical JSON; ``original`` the bytes as they came."""

    id: str
    position: Position
    time: int
    received: int
    type: str
    space_id: str | None
    event: bytes
    original: bytes


class RawEvents(Protocol):
    """The archive."""

    name: str

    async def open(self) -> None:
        """Connect, make collections and indexes (time, type, space). Raises like ``RollupSink.open``."""

    async def close(self) -> None:
        """Release connections; idempotent."""

    async def insert(self, events: Sequence[RawEvent]) -> None:
        """Durably keep each event whose id is not there yet; one that is there is left as it is."""

    async def query(
        self,
        *,
        since: int | None,
        until: int | None,
        type: str | Sequence[str] | None,
        limit: int,
        before: tuple[int, Position] | None = None,
    ) -> Sequence[RawEvent]:
        """Events with time in [since, until) (epoch milliseconds) and of this type, or of one of these, newest first
        by time, then by position; ``before`` continues below the (time, position) of the last one returned."""


class DeadLetter(NamedTuple):
    """An event that cannot be processed. ``id`` follows from position and agent, so keeping it twice
    is harmless. ``body`` is whole, or the first 64 KiB of a body over 1 MiB (``length`` and ``sha256`` tell).
    ``agent`` is empty where no agent saw it. ``pointer`` is a JSON pointer into the body."""

    id: str
    position: Position
    received: int
    agent: str
    reason: str
    pointer: str
    body: bytes
    length: int
    sha256: str


class DeadLetters(Protocol):
    """What was put aside."""

    async def open(self) -> None:
        """Connect, make what is missing. Raises like ``RollupSink.open``."""

    async def close(self) -> None:
        """Release connections; idempotent."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Durably keep each letter whose id is not there yet."""

    async def list(
        self, *, limit: int, before: tuple[Position, str, str] | None = None
    ) -> Sequence[DeadLetter]:
        """The newest first, by position, agent and id; ``before`` continues below these of the last one returned."""

    async def get(self, id: str) -> DeadLetter | None:
        """One letter."""

    async def count(self) -> int:
        """How many there are."""

    async def remove(self, ids: Sequence[str]) -> int:
        """Durably forget these letters; returns how many of them were there."""
