"""The rows of a rollup that somebody asks for. The route and the commands ask the same way and get the same answers,
whatever keeps the rows.

    found      in [since, until), with these tags         the sink
    told       without what is stale or taken back        documents.py
    grouped    over tags, or over time                    grouping.py
    filled     windows that have no row                   grouping.py
    ordered    by time, or by a field
    a page     of so many, after a cursor                 cursors.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from topology.rollups.combining import Lost
from topology.sinks import Point, RollupSink
from web.cursors import Cursor, ForeignCursor
from web.documents import Described, MadeRow, Row, told
from web.grouping import Grouping, filled

#: In one answer: about 20 MB of JSON.
MAX_ROWS = 100_000
#: Rows that one answer is made of where they are taken together: a second of work.
MAX_GROUPED = 250_000
MAX_VALUES = 100
#: More than any store holds.
NO_BOUND = 2**31 - 2

Fill = Literal["null", "zero"]


class Unanswerable(ValueError):
    """The question is wrong. The message says what to ask instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """By ``time``, or by a field; what has no value comes last. Rows that are alike: by time, then by tags."""

    by: str = "time"
    descending: bool = False

    def __str__(self) -> str:
        return f"{'-' if self.descending else ''}{self.by}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A question. ``since`` and ``until``: epoch seconds, [since, until). ``where``: of each tag the values that
    will do. ``group_by``: the tags to keep, None for all; ``total``: one row for all windows. ``limit``: rows on a
    page."""

    window: str
    since: int | None = None
    until: int | None = None
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    group_by: Sequence[str] | None = None
    total: bool = False
    fields: Sequence[str] | None = None
    fill: Fill | None = None
    order: Order = field(default_factory=Order)
    limit: int | None = None
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An answer: rows with ``key`` and ``fields``. ``left_out``: fields that cannot be had of rows taken together, and
    why. ``cursor``: of the next page, None where there is none."""

    rollup: Described
    window: str
    key: tuple[str, ...]
    fields: tuple[str, ...]
    rows: Sequence[Row]
    left_out: Mapping[str, str] = field(default_factory=dict)
    paged: bool = False
    cursor: str | None = None


async def find(
    sink: RollupSink, rollup: Described, wanted: Wanted, *, now_s: int, bounded: bool = True
) -> Found:
    """The answer. ``now_s``: where gaps end that are to be filled up to the present. Not ``bounded``: of any number of
    rows. Raises ``Unanswerable`` for a question that has none, and what ``sink`` raises."""
    grouping = _grouping(rollup, wanted)
    cursor = _cursor(rollup, wanted)
    if cursor is not None:
        since, until = cursor.since, cursor.until
    else:
        since, until = wanted.since, wanted.until
        if wanted.fill is not None and until is None:
            until = now_s + 1
    whole = (
        grouping.merges
        or grouping.renamed
        or wanted.fill is not None
        or wanted.order != Order()
        or wanted.limit is None
    )
    if whole:
        most = NO_BOUND if not bounded else MAX_GROUPED if grouping.merges else MAX_ROWS
        points = await sink.query(
            rollup.name, wanted.window, since=since, until=until, where=wanted.where, limit=most + 1
        )
        if len(points) > most:
            raise Unanswerable(_too_many(most, grouping))
    else:
        points = await _beginning(sink, rollup, wanted, cursor, since, until)
    # Many rows take a while, in which others are to be answered.
    return await asyncio.to_thread(
        _answer, rollup, wanted, grouping, points, cursor, since, until, MAX_ROWS if bounded else NO_BOUND
    )


def _answer(
    rollup: Described,
    wanted: Wanted,
    grouping: Grouping,
    points: Sequence[Point],
    cursor: Cursor | None,
    since: int | None,
    until: int | None,
    most: int,
) -> Found:
    rows: Sequence[Row] = told(rollup, points)
    fields, left_out = _fields(rollup, wanted, grouping)
    if grouping.merges or grouping.renamed:
        rows = grouping.of(rows)
    if wanted.fill is not None:
        try:
            rows = filled(rollup, rows, wanted.window, grouping, wanted, since, until, most=most)
        except OverflowError as error:
            raise Unanswerable(str(error)) from None
    if fields != rollup.fields:
        rows = [
            MadeRow(row.time, row.tags, {name: row.fields[name] for name in fields if name in row.fields})
            for row in rows
        ]
    if wanted.order != Order():
        rows = _ordered(rows, wanted.order)
    next_page = None
    if wanted.limit is not None:
        if cursor is not None:
            rows = cursor.after(rows, wanted.order.by, descending=wanted.order.descending)
        if len(rows) > wanted.limit:
            rows = rows[: wanted.limit]
            next_page = Cursor.at(
                rows[-1], wanted.order.by, since, until, of=_question(rollup, wanted)
            ).written()
    elif len(rows) > most:
        raise Unanswerable(_too_many(most, grouping))
    return Found(
        rollup=rollup,
        window=wanted.window,
        key=grouping.key,
        fields=fields,
        rows=rows,
        left_out=left_out,
        paged=wanted.limit is not None,
        cursor=next_page,
    )


async def _beginning(
    sink: RollupSink,
    rollup: Described,
    wanted: Wanted,
    cursor: Cursor | None,
    since: int | None,
    until: int | None,
) -> Sequence[Point]:
    """At least the rows of the page, where rows come in the order of the sink: not all of them need to be read."""
    assert wanted.limit is not None  # noqa: S101 - else all are wanted
    if cursor is not None:
        since = cursor.time if since is None else max(since, cursor.time)
    size = wanted.limit + 1
    while True:
        points = await sink.query(
            rollup.name, wanted.window, since=since, until=until, where=wanted.where, limit=size
        )
        # Some of them may say nothing any more, and some may be of the page before.
        if len(points) < size or len(points) > MAX_GROUPED:
            return points
        rows = await asyncio.to_thread(told, rollup, points)
        if cursor is not None:
            rows = cursor.after(rows, wanted.order.by, descending=False)
        if len(rows) > wanted.limit:
            return points
        size *= 4


def _grouping(rollup: Described, wanted: Wanted) -> Grouping:
    """How rows are taken together. Checks what the question names. Raises ``Unanswerable``."""
    if wanted.window not in rollup.windows:
        raise Unanswerable(f"window={wanted.window!r} is none of {', '.join(rollup.windows)}")
    for tag, values in wanted.where.items():
        if tag not in rollup.key:
            raise Unanswerable(f"{tag} is no key of {rollup.name}: choose of {', '.join(rollup.key)}")
        if len(values) > MAX_VALUES:
            raise Unanswerable(f"{tag} has {len(values)} values: at most {MAX_VALUES} at a time")
    kept = rollup.key if wanted.group_by is None else tuple(wanted.group_by)
    for tag in kept:
        if tag not in rollup.key:
            raise Unanswerable(
                f"group_by={tag!r} is no key of {rollup.name}: choose of {', '.join(rollup.key)}, or leave it empty"
            )
    if wanted.total and wanted.fill is not None:
        raise Unanswerable(
            "fill is of windows, and with total there is one row for all of them: leave one out"
        )
    # Over a tag that has one value there is nothing to be taken together.
    over = tuple(tag for tag in rollup.key if tag not in kept and len(set(wanted.where.get(tag, ()))) != 1)
    # Rows that are of the others taken together would be counted beside them.
    for tag, all_ in rollup.together.items():
        if tag in over and all_ in wanted.where.get(tag, ()):
            raise Unanswerable(
                f"{tag}={all_} is of the others taken together and cannot be added to them: "
                f"ask for it alone, or leave it out, or add {tag} to group_by"
            )
    return Grouping(
        combining=rollup.combining,
        key=tuple(tag for tag in rollup.key if tag in kept),
        over=over,
        total=wanted.total,
        without={
            tag: all_ for tag, all_ in rollup.together.items() if tag in over and tag not in wanted.where
        },
        renamed=kept != rollup.key,
    )


def _fields(
    rollup: Described, wanted: Wanted, grouping: Grouping
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The fields of the answer, and those that it cannot have."""
    chosen = rollup.fields if wanted.fields is None else tuple(dict.fromkeys(wanted.fields))
    for name in chosen:
        if name not in rollup.fields:
            raise Unanswerable(f"{rollup.name} has no field {name!r}: choose of {', '.join(rollup.fields)}")
    lost = {
        name: combining.why
        for name in chosen
        if grouping.merges and isinstance(combining := rollup.combining[name], Lost)
    }
    had = tuple(name for name in chosen if name not in lost)
    if lost and (wanted.fields is not None or not had):
        name, why = next(iter(lost.items()))
        could = [each for each in rollup.fields if not isinstance(rollup.combining[each], Lost)]
        raise Unanswerable(
            f"{name} cannot be had over {grouping.said()}: {why}; "
            f"leave group_by and total out, or choose of {', '.join(could)}"
        )
    by = wanted.order.by
    if by != "time" and by not in had:
        raise Unanswerable(
            f"order={by!r} is neither time nor a field of the answer: choose of time, {', '.join(had)}"
        )
    return had, lost


def _ordered(rows: Iterable[Row], order: Order) -> list[Row]:
    """Rows that come by time and tags in another order."""
    if order.by == "time":
        # Within one time tags ascend all the same.
        return sorted(rows, key=lambda row: -row.time if order.descending else row.time)
    have = [row for row in rows if row.fields.get(order.by) is not None]
    have_not = [row for row in rows if row.fields.get(order.by) is None]
    sign = -1 if order.descending else 1
    have.sort(key=lambda row: sign * (row.fields[order.by] or 0))
    return have + have_not


def _cursor(rollup: Described, wanted: Wanted) -> Cursor | None:
    if wanted.cursor is None:
        return None
    if wanted.limit is None:
        raise Unanswerable("a cursor is of a page: give the limit of the page before with it")
    try:
        return Cursor.read(wanted.cursor, of=_question(rollup, wanted))
    except ForeignCursor as error:
        raise Unanswerable(str(error)) from None


def _question(rollup: Described, wanted: Wanted) -> str:
    """What has to be the same for every page. Not the range: the cursor brings it, as `now` moves on."""
    return rollup.name + repr(replace(wanted, since=None, until=None, limit=None, cursor=None))


def _too_many(most: int, grouping: Grouping) -> str:
    what = (
        f"this would be made of more than {most} rows"
        if grouping.merges
        else f"there are more than {most} rows"
    )
    pages = "" if grouping.merges else ", or ask for pages with limit"
    return f"{what}: narrow since and until, or use a coarser window{pages}"
