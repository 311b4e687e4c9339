"""Rows and requests, as the tests of the store of rows make them."""

from __future__ import annotations

from topology.position import MAX_EPOCH, MAX_INDEX, MAX_OFFSET, Position, position
from topology.state import Request, RowKey, RowWrite, StateStore, StoredRow

TABLE = "space_storage/1m"
OTHER_TABLE = "user_activity/1h"
#: Its rows are of no window.
JOBS = "extractor_runtime/jobs"
UPTO = position(0, 1)
LAST_POSITION = position(MAX_EPOCH, MAX_OFFSET, MAX_INDEX)

#: More than any implementation handles at a time.
MANY = 2_500


def key(number: int, table: str = TABLE) -> RowKey:
    return RowKey(table, 60 * number, f"space {number}")


def row(
    at: RowKey,
    version: int,
    upto: Position = UPTO,
    *,
    owed: bool = True,
    data: bytes = b"",
    until: int | None = None,
) -> StoredRow:
    data = data or f"data of version {version}".encode()
    return StoredRow(at, version, upto, owed, data, at.at if until is None else until)


def job(number: int, until: int, upto: Position = UPTO, *, owed: bool = False) -> StoredRow:
    return row(RowKey(JOBS, 0, f"job {number}"), number, upto, owed=owed, until=until)


async def stored(store: StateStore, at: RowKey) -> StoredRow | None:
    return (await store.load_rows([at])).get(at)


async def save(store: StateStore, *writes: tuple[StoredRow, int]) -> None:
    await store.save_rows([RowWrite(row, over) for row, over in writes])


def request(
    id: str = "01",
    group: str = "rollups",
    *,
    what: bytes = b'{"rebuild": "\xff\x00"}',
    state: bytes = b"",
    version: int = 1,
) -> Request:
    return Request(id=id, group=group, what=what, state=state, version=version)
