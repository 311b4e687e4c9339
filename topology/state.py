"""What survives a restart: rows, arrivals, requests, generations and positions. One interface, two
implementations (``sqlite/state.py``, ``mongo/state.py``), one conformance suite (``tests/topology/test_state*.py``).

Every call raises ``Unavailable`` while the store is away; each may then be repeated as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from topology.position import NOWHERE, Position


class RowKey(NamedTuple):
    """``table`` names what kind of row (``space_storage/1m``, ``ids/rollups``), ``at`` is the start of
    its window in epoch seconds, ``key`` the joined key tags."""

    table: str
    at: int
    key: str
    partition: int = 0


class StoredRow(NamedTuple):
    """A row as it is in the store. ``upto`` is the position up to which events are folded into it;
    ``owed`` says that its values are not yet in the sink; ``data`` is opaque to the store. ``until`` is the
    latest event time in it that matters, in epoch seconds: a row is purged by it. For the row of a window it
    is ``key.at``; it never lies before it. A row of no window has ``key.at`` 0."""

    key: RowKey
    version: int
    upto: Position
    owed: bool
    data: bytes
    until: int


class RowWrite(NamedTuple):
    """Write ``row`` over the stored version ``expected`` (0 = not there yet)."""

    row: StoredRow
    expected: int


class GroupState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a group is. ``positions``: for each agent, everything up to it is folded and saved.
    ``read_up_to`` is the furthest that was read and ``digest`` is of that message: found again, it proves that
    the log is still the same. ``horizon``: windows that end at or before it are gone (epoch seconds, None =
    none is). ``watermark`` in epoch milliseconds. ``begins_at_first``: the log was empty when the group first read it,
    so nothing of it is to be left out. ``told_ms``: the watermark up to which the sink has every value that depends on
    the passing of time (None = it has none)."""

    generation: int
    positions: dict[str, Position] = {}
    read_up_to: Position = NOWHERE
    digest: bytes = b""
    watermark: int | None = None
    horizon: int | None = None
    begins_at_first: bool = False
    told_ms: int | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Work that a command asks of a group's owner. ``what`` is opaque to the store (JSON bytes), ``state`` too:
    progress and outcome, written by who carries it out."""

    id: str
    group: str
    what: bytes
    state: bytes = b""
    version: int = 1


class StateStore(Protocol):
    """The store of rows. Partition 0 throughout for now; see "Beyond one machine" in the architecture."""

    async def open(self) -> None:
        """Connect, make what is missing. Raises ``Unavailable``, ``SettingsError``, ``ForeignSchema``."""

    async def close(self) -> None:
        """Release connections; idempotent."""

    # -- who works --

    async def begin(self, group: str) -> GroupState:
        """Take the group's next generation, durably, and return its state with that generation."""

    async def generation(self, group: str) -> int:
        """The highest generation taken (0 = none was)."""

    async def save_group(self, group: str, state: GroupState) -> None:
        """Store the state. Raises ``Superseded`` if a later generation than the state's was taken."""

    async def read_group(self, group: str) -> GroupState | None:
        """The stored state, for looking at; None if the group never ran."""

    async def read_groups(self) -> Mapping[str, GroupState]:
        """The stored states of all groups that ever ran."""

    # -- which log --

    async def epoch(self) -> int:
        """The epoch of the log, 0 at first."""

    async def raise_epoch(self, above: int) -> int:
        """Make the epoch ``above + 1`` unless it is higher already; returns what it is then."""

    # -- rows --

    async def load_rows(self, keys: Sequence[RowKey]) -> Mapping[RowKey, StoredRow]:
        """Those of the rows that exist."""

    async def save_rows(self, writes: Sequence[RowWrite]) -> None:
        """Durably write each row whose stored version is the expected one; rows are independent.

        Finding the very version to be written is success (an earlier answer was lost). Raises
        ``Conflict`` with the keys of all others, after the rest was written.
        """

    async def owed_rows(self, tables: Sequence[str], limit: int) -> Sequence[StoredRow]:
        """At most ``limit`` rows of these tables whose values the sink has not."""

    async def settle_rows(self, settled: Sequence[tuple[RowKey, int]]) -> None:
        """Clear ``owed`` of each row that is still at the given version.

        A row that is at another version is owed again: the value just written, of an older version, may lie
        over a newer one that another worker wrote meanwhile.
        """

    async def owe_rows(self, keys: Sequence[RowKey]) -> None:
        """Set ``owed`` of those rows that exist, at whatever version."""

    async def count_owed(self, table: str, *, before: int) -> int:
        """How many rows of ``table`` owe something and have ``until < before``."""

    async def keys_of(self, table: str) -> Sequence[RowKey]:
        """The keys of all rows of a table: for tables that are small by their nature (services)."""

    async def keys_between(self, table: str, start: int, end: int) -> Sequence[RowKey]:
        """The keys of the rows of windows that start in [start, end) (epoch seconds)."""

    async def purge_rows(self, table: str, *, before: int, upto: Position, owed: bool = False) -> int:
        """Delete rows of ``table`` with ``until < before`` and ``row.upto <= upto`` that owe nothing, or with
        ``owed`` also those that do; returns how many."""

    # -- requests --

    async def put_request(self, request: Request) -> None:
        """Insert it; one of its id that is there already is left as it is."""

    async def requests(self, group: str) -> Sequence[Request]:
        """Those of a group, by id ascending."""

    async def request(self, id: str) -> Request | None:
        """One request, None if it is not there."""

    async def save_request(self, request: Request, *, expected: int) -> bool:
        """Write ``request``, whose version is ``expected + 1``, over the stored version ``expected``.

        Finding the very version and state to be written is success (an earlier answer was lost), so states
        that two owners could both write name their owner. False if another's is there, or it is gone.
        """

    async def delete_request(self, id: str) -> None:
        """Forget it; idempotent."""

    # -- facts --

    async def arrivals(self, first: Position, last: Position) -> Mapping[Position, int]:
        """Recorded arrivals (epoch milliseconds) of the positions in [first, last]."""

    async def record_arrivals(self, arrivals: Mapping[Position, int]) -> Mapping[Position, int]:
        """Record each unless one is there already; returns what holds for them from now on."""

    async def purge_arrivals(self, upto: Position, before_ms: int) -> None:
        """Forget arrivals at or below ``upto`` that lie before ``before_ms``."""
