"""``eventsink rollups``: which there are, and the rows of one."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import click

from agents import ROLLUPS
from cli import parts, watching
from cli.options import epoch_s, examples, format_option, range_options, takes_settings
from cli.settings import Settings
from cli.tables import plain, print_bytes, print_csv, print_json, print_table
from cli.units import in_words, sparkline
from topology.rollups.operators import AnyRollup
from topology.sinks import RollupSink, Value
from web import formats
from web.documents import Tags, rollups_document, row_documents
from web.rows import Found, Order, Unanswerable, Wanted, find

#: As many as a person reads. Files and pipes get all.
TABLE_ROWS = 100
SPARKLINE_BLOCKS = 24
#: Of a key tag, where one was asked for that is not there.
VALUES_NAMED = 10


class Where(click.ParamType):
    """``space_id=abc``."""

    name = "k=v"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, wanted = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is no condition: write KEY=VALUE, for example space_id=abc", param, ctx)
        return name, wanted


class Names(click.ParamType):
    """``a,b``."""

    name = "a,b"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(each for each in str(value).split(",") if each)


@click.command(
    short_help="Show the rows of a rollup.",
    epilog=examples(
        "eventsink rollups",
        "eventsink rollups space_storage --window 1h --since now-7d",
        "eventsink rollups resource_traffic --window 1d --where action=downloaded --format csv",
        "eventsink rollups space_storage --since now-1d --total --order -bytes_added --limit 10",
        "eventsink rollups service_uptime --since now-1h --sparkline response_ms_mean --watch",
    ),
)
@click.argument("name", required=False)
@click.option(
    "--window", default="1m", show_default=True, metavar="W", help="Size of the windows: 1m, 1h or 1d."
)
@range_options
@click.option(
    "--where",
    type=Where(),
    multiple=True,
    help="Only rows with this key tag; repeat to narrow, or with the same tag for another of its values.",
)
@click.option(
    "--group-by", type=Names(), help="Take rows together that are alike in these key tags; '' for none."
)
@click.option("--total", is_flag=True, help="One row for the whole range.")
@click.option("--fields", type=Names(), help="Only these fields.")
@click.option(
    "--order", metavar="F", default="time", help="By time or by a field, with - descending.  [default: time]"
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"The first N.  [default: all; as a table on a terminal, without --since, the newest {TABLE_ROWS}]",
)
@click.option(
    "--sparkline",
    metavar="F",
    help=f"One row for the whole range, and how this field went in it. Beyond {SPARKLINE_BLOCKS} windows several share "
    "a block: by the mean of counts and sums, the lowest ratio, the highest of the rest.",
)
@format_option
@watching.option
@takes_settings
def command(
    settings: Settings,
    name: str | None,
    window: str,
    since: datetime | None,
    until: datetime | None,
    where: tuple[tuple[str, str], ...],
    group_by: tuple[str, ...] | None,
    total: bool,
    fields: tuple[str, ...] | None,
    order: str,
    limit: int | None,
    sparkline: str | None,
    form: str,
    watch: bool,
) -> None:
    """Show the rows of a rollup, or without NAME which rollups there are.

    A row belongs to the range if its window starts in it. Times are in UTC. Tables have units; CSV and JSON have
    the numbers as they are kept.
    """
    if name is None:
        _print_rollups(form)
        return
    rollup = rollup_named(name)
    if window not in rollup.windows:
        raise click.BadParameter(
            f"{window} is no window of {name}: choose of {', '.join(rollup.windows)}", param_hint="--window"
        )
    conditions: dict[str, list[str]] = {}
    for tag, value in where:
        if tag not in rollup.key:
            raise click.BadParameter(
                f"{tag} is no key of {name}: choose of {', '.join(rollup.key)}", param_hint="--where"
            )
        conditions.setdefault(tag, []).append(value)
    wanted = Wanted(
        window=window,
        since=epoch_s(since),
        until=epoch_s(until),
        where=conditions,
        group_by=group_by,
        total=total,
        fields=fields,
        order=Order(by=order.removeprefix("-"), descending=order.startswith("-")),
        limit=limit,
    )
    if sparkline is not None and sparkline not in rollup.fields:
        raise click.BadParameter(
            f"{name} has no field {sparkline}: choose of {', '.join(rollup.fields)}", param_hint="--sparkline"
        )
    if form != "table" and (watch or sparkline is not None):
        raise click.UsageError("--watch and --sparkline are for tables: leave --format out")
    if form != "table":
        found = asyncio.run(_found(settings, rollup, wanted))
        print_bytes(formats.FORMATS[form].write(found) + (b"\n" if form == "json" else b""))
        return
    asking = _Asking(rollup, wanted, sparkline)
    watching.show(lambda: _shown(settings, asking), watch=watch)


def rollup_named(name: str) -> AnyRollup:
    """The rollup. Raises ``click.BadParameter``."""
    rollup = ROLLUPS.get(name)
    if rollup is None:
        close = difflib.get_close_matches(name, list(ROLLUPS), n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose of {', '.join(ROLLUPS)}"
        raise click.BadParameter(f"there is no rollup {name}: {hint}", param_hint="NAME")
    return rollup


async def asked(sink: RollupSink, rollup: AnyRollup, wanted: Wanted) -> Found:
    """The answer, of any number of rows. A question that has none is a ``click.UsageError``."""
    try:
        return await find(sink, rollup, wanted, now_s=int(time.time()), bounded=False)
    except Unanswerable as error:
        raise click.UsageError(str(error)) from None


async def _found(settings: Settings, rollup: AnyRollup, wanted: Wanted) -> Found:
    sink = parts.rollup_sink(settings, parts.Shared(settings, create=False))
    try:
        await sink.open()
        return await asked(sink, rollup, wanted)
    finally:
        await sink.close()


def _print_rollups(form: str) -> None:
    if form == "json":
        print_json(rollups_document(ROLLUPS.values()))
        return
    columns = ("name", "windows", "key", "fields")
    rows = [
        (each.name, " ".join(each.windows), " ".join(each.key), " ".join(each.fields))
        for each in ROLLUPS.values()
    ]
    if form == "csv":
        print_csv(columns, rows)
    else:
        print_table(columns, rows, wrap=frozenset({"fields", "key"}), at_most=100)


# -- a table of rows --


class _Asking(NamedTuple):
    rollup: AnyRollup
    wanted: Wanted
    sparkline: str | None


async def _shown(settings: Settings, asking: _Asking) -> watching.Shown:
    sink = parts.rollup_sink(settings, parts.Shared(settings, create=False))
    try:
        await sink.open()
        if asking.sparkline is not None:
            return await _with_sparkline(sink, asking, asking.sparkline)
        wanted = asking.wanted
        newest = (
            watching.is_terminal()
            and wanted.since is None
            and wanted.limit is None
            and wanted.order == Order()
        )
        if newest and not wanted.total:
            found, more = await _newest(sink, asking)
            caption = (
                f"the newest {TABLE_ROWS}; --since, --limit or --format csv show others" if more else None
            )
        else:
            found, caption = await asked(sink, asking.rollup, wanted), None
        if not found.rows:
            return await _why_nothing(sink, asking)
        return _table(found, caption=caption)
    finally:
        await sink.close()


async def _newest(sink: RollupSink, asking: _Asking) -> tuple[Found, bool]:
    """The newest rows in ascending order, and whether there are older ones. Looks further back until there are
    enough: a store may hold millions."""
    rollup, wanted, _ = asking
    size = rollup.windows[wanted.window].seconds
    now = int(time.time())
    for windows in (100, 1000, 10_000):
        found = await asked(sink, rollup, replace(wanted, since=now - windows * size))
        if len(found.rows) > TABLE_ROWS:
            return replace(found, rows=found.rows[-TABLE_ROWS:]), True
    found = await asked(sink, rollup, wanted)
    return replace(found, rows=found.rows[-TABLE_ROWS:]), len(found.rows) > TABLE_ROWS


async def _why_nothing(sink: RollupSink, asking: _Asking) -> watching.Nothing:
    """Of a value that no row has: those that there are."""
    rollup, wanted, _ = asking
    for tag, values in wanted.where.items():
        every = Wanted(
            window=wanted.window, since=wanted.since, until=wanted.until, group_by=(tag,), total=True
        )
        try:
            found = await find(sink, rollup, every, now_s=int(time.time()))
        except Unanswerable:
            continue  # so many rows that nobody should wait for a hint
        there = sorted({value for row in found.rows for _, value in row.tags})
        if there and not set(there).intersection(values):
            more = f" and {len(there) - VALUES_NAMED} more" if len(there) > VALUES_NAMED else ""
            return watching.Nothing(
                f"no rows with {' or '.join(f'{tag}={value}' for value in values)} in this range: "
                f"there are {', '.join(map(plain, there[:VALUES_NAMED]))}{more}"
            )
    return watching.nothing(
        f"rows{' with all of this' if wanted.where else ''}",
        ranged=wanted.since is not None or wanted.until is not None,
    )


def _table(found: Found, *, caption: str | None = None) -> watching.Tabular:
    rows = row_documents(found.rows)
    # Columns that no row fills only push the others off the screen.
    fields = [field for field in found.fields if any(row.get(field) is not None for row in rows)]
    said = [f"{name} is left out: {why}" for name, why in found.left_out.items()]
    return watching.Tabular(
        columns=("time", *found.key, *fields),
        rows=[
            [row["time"], *map(row.get, found.key), *(in_words(field, row.get(field)) for field in fields)]
            for row in rows
        ],
        right=frozenset(fields),
        gather="fields",
        ends=True,
        caption="\n".join([*([caption] if caption else []), *said]) or None,
    )


async def _with_sparkline(sink: RollupSink, asking: _Asking, field: str) -> watching.Shown:
    rollup, wanted, _ = asking
    totals = await asked(sink, rollup, replace(wanted, total=True))
    if not totals.rows:
        return await _why_nothing(sink, asking)
    lines = await courses(sink, rollup, wanted, field)
    columns = [name for name in totals.fields if any(row.fields.get(name) is not None for row in totals.rows)]
    return watching.Tabular(
        columns=(*totals.key, f"{field} by {wanted.window}", *columns),
        rows=[
            [
                *map(dict(row.tags).get, totals.key),
                sparkline(lines.get(row.tags, []), width=SPARKLINE_BLOCKS, combining=rollup.combining[field]),
                *(in_words(name, row.fields.get(name)) for name in columns),
            ]
            for row in totals.rows
        ],
        right=frozenset(columns),
        gather="fields",
    )


async def courses(
    sink: RollupSink, rollup: AnyRollup, wanted: Wanted, field: str
) -> Mapping[Tags, Sequence[Value | None]]:
    """How a field went, window by window, of each key."""
    by_time = replace(wanted, total=False, fields=(field,), order=Order(), limit=None, fill="null")
    lines: dict[Tags, list[Any]] = {}
    for row in (await asked(sink, rollup, by_time)).rows:
        lines.setdefault(row.tags, []).append(row.fields.get(field))
    return lines
