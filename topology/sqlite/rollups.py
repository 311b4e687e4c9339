"""The rollup sink, embedded: one table. The interface and its promises: ``sinks.py``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, cycle, groupby, repeat
from operator import attrgetter, itemgetter
from typing import NamedTuple, TypeAlias

import msgspec

from topology.errors import Refused
from topology.sinks import Point, Value, Where, wanted_values
from topology.sqlite.file import Database
from topology.sqlite.totals import totals
from topology.totals import Fold

#: The key is also the index of every query: windows of one rollup, by time.
SCHEMA = """
CREATE TABLE IF NOT EXISTS rollups (
    rollup TEXT NOT NULL,
    window TEXT NOT NULL,
    time INTEGER NOT NULL,
    tags TEXT NOT NULL,
    fields TEXT NOT NULL,
    PRIMARY KEY (rollup, window, time, tags)
) WITHOUT ROWID;
"""

#: Tags are part of an address, so equal ones must give equal text: no option may ever change here.
_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

_LAST = 2**63 - 1

#: Of so many keys at most the rows are looked up one by one in each window. Beyond, all rows are read.
MOST_LOOKED_UP = 1000

_fields = msgspec.json.Decoder(list[dict[str, int | float]]).decode
_tags = msgspec.json.Decoder(list[dict[str, str]]).decode
#: Half the time of a call of the class.
_point: Callable[[tuple[object, ...]], Point] = partial(tuple.__new__, Point)
_place = attrgetter("time", "tags")

#: Its time, the tags and the fields of its rows, joined by commas, and how many rows these are.
_Window: TypeAlias = tuple[int, str, str, int]
_tags_text: Callable[[_Window], str] = itemgetter(1)


class SqliteRollups:
    """Opening and closing are those of ``database``, which may hold other tables too. A point without a field
    says nothing and is not written. ``keys``, the key tags of each rollup in their order, makes it quick to find the
    rows of a few keys among those of many."""

    name = "rollups"

    def __init__(self, database: Database, *, keys: Mapping[str, Sequence[str]] | None = None) -> None:
        self._database = database
        self._keys = keys or {}

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def write(self, points: Sequence[Point]) -> None:
        """All of them in one transaction. ``Refused``: none was written."""
        # In a thread, and before the transaction: 5000 points take 20 ms.
        records = await asyncio.to_thread(lambda: [_record(point) for point in points if point.fields])
        if not records:
            return
        await self._database.write(
            lambda connection: connection.executemany("REPLACE INTO rollups VALUES (?, ?, ?, ?, ?)", records)
        )

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
        return await self._database.read(totals(rollup, window, since, until, by, folds, each_window))

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
        values = {tag: list(filter(_is_text, wanted)) for tag, wanted in wanted_values(where).items()}
        if limit <= 0 or not all(values.values()):
            return []
        range_ = _Range(rollup, window, -_LAST if since is None else since, _LAST if until is None else until)
        key = self._keys.get(rollup, ())
        if key and set(key) == set(values) and math.prod(map(len, values.values())) <= MOST_LOOKED_UP:
            statement, given = _looked_up(range_, key, values)
        else:
            statement, given = _scanned(range_, values)

        def select(connection: sqlite3.Connection) -> list[Point]:
            with contextlib.closing(connection.execute(statement, given)) as windows:
                return _points(rollup, window, windows, limit)

        return await self._database.read(select)


class _Range(NamedTuple):
    """Rows of one rollup and window whose time is in [since, until)."""

    rollup: str
    window: str
    since: int
    until: int


_JOINED = "SELECT time, group_concat(tags), group_concat(fields), count(*)"
_IN_RANGE = "rollup = ? AND window = ? AND time >= ? AND time < ?"


def _scanned(range_: _Range, values: Mapping[str, Sequence[str]]) -> tuple[str, Sequence[str | int]]:
    """A statement that reads all rows of the range, in the order of the index, and what it is of. So does
    ``_looked_up``: a row of the answer is a window, with the tags and the fields of its rows joined by commas. That
    is one step of SQLite, one turn of the interpreter's lock and two texts a window, not a row."""
    conditions = [_IN_RANGE]
    given: list[str | int] = [*range_]
    for tag, wanted in values.items():
        # The path is a value too: a tag's name is never part of the statement.
        conditions.append(f"json_extract(tags, ?) IN ({_places(wanted)})")
        given += [f'$."{tag}"', *wanted]
    conditions_ = " AND ".join(conditions)
    return f"{_JOINED} FROM rollups WHERE {conditions_} GROUP BY time ORDER BY time", given


def _looked_up(
    range_: _Range, key: Sequence[str], values: Mapping[str, Sequence[str]]
) -> tuple[str, Sequence[str | int]]:
    """A statement that steps from window to window and looks up the rows of these keys in each."""
    addresses = [
        _written(dict(zip(key, tags, strict=True)))
        for tags in itertools.product(*(dict.fromkeys(values[tag]) for tag in key))
    ]
    statement = (
        "WITH RECURSIVE windows(at) AS ("  # noqa: S608 - places and names, no values
        f"SELECT min(time) FROM rollups WHERE {_IN_RANGE}"
        " UNION ALL "
        "SELECT (SELECT min(time) FROM rollups WHERE rollup = ? AND window = ? AND time > at AND time < ?)"
        " FROM windows WHERE at IS NOT NULL) "
        f"{_JOINED} FROM windows CROSS JOIN rollups"
        f" WHERE rollup = ? AND window = ? AND time = at AND tags IN ({_places(addresses)})"
        " GROUP BY time ORDER BY time"
    )
    of = (range_.rollup, range_.window)
    return statement, (*range_, *of, range_.until, *of, *addresses)


def _places(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _points(rollup: str, window: str, windows: Iterable[_Window], limit: int) -> list[Point]:
    """The first points of windows that ascend by time, in the order that is promised. Reads no more windows than it
    needs, and each of them whole: within one, tags as text come in another order than tags as values."""
    points: list[Point] = []
    # Mostly the keys are those of the window before: they are read once, and the fields of all these windows at once.
    for tags, alike in groupby(_needed(windows, limit), key=_tags_text):
        keys = [tuple(each.items()) for each in _tags(f"[{tags}]")]
        times, texts = zip(*((time, fields) for time, _, fields, _ in alike), strict=True)
        at = chain.from_iterable(map(repeat, times, repeat(len(keys))))
        fields = _fields(f"[{','.join(texts)}]")
        made = map(_point, zip(repeat(rollup), repeat(window), at, cycle(keys), fields))
        points += made if keys == sorted(keys) else sorted(made, key=_place)
    return points[:limit]


def _needed(windows: Iterable[_Window], limit: int) -> Iterator[_Window]:
    """So many of them that they have ``limit`` rows, if there are."""
    for window in windows:
        yield window
        limit -= window[3]
        if limit <= 0:
            return


def _record(point: Point) -> tuple[str, str, int, str, str]:
    tags = _written(dict(point.tags))
    if not _is_text(tags):
        raise Refused(f"a tag of {point.rollup!r} is no text: {tags!r}")
    try:
        fields = _written(dict[str, Value](point.fields))
    except ValueError:
        raise Refused(f"a field of {point.rollup!r} is no finite number: {dict(point.fields)}") from None
    return point.rollup, point.window, point.time, tags, fields


def _is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: half of a surrogate pair is in Python's strings, and nowhere else."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
