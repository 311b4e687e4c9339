"""``eventsink rollups``: which there are, and the rows of one."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from datetime import datetime

import click

from agents import ROLLUPS
from cli import parts
from cli.options import epoch_s, examples, format_option, range_options, takes_settings
from cli.settings import Settings
from cli.tables import print_bytes, print_csv, print_json, print_table
from topology.rollups.operators import AnyRollup
from topology.sinks import Point
from web.documents import rollup_csv, rollup_document, rollups_document

#: More than any store holds: without --since everything is printed.
NO_LIMIT = 2**31 - 1


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


@click.command(
    short_help="Show the rows of a rollup.",
    epilog=examples(
        "eventsink rollups",
        "eventsink rollups space_storage --window 1h --since now-7d",
        "eventsink rollups resource_traffic --window 1d --where action=downloaded --format csv",
    ),
)
@click.argument("name", required=False)
@click.option(
    "--window", default="1m", show_default=True, metavar="W", help="Size of the windows: 1m, 1h or 1d."
)
@range_options
@click.option("--where", type=Where(), multiple=True, help="Only rows with this key tag; repeat to narrow.")
@format_option
@takes_settings
def command(
    settings: Settings,
    name: str | None,
    window: str,
    since: datetime | None,
    until: datetime | None,
    where: tuple[tuple[str, str], ...],
    form: str,
) -> None:
    """Show the rows of a rollup, or without NAME which rollups there are.

    A row belongs to the range if its window starts in it. Times are in UTC.
    """
    if name is None:
        _print_rollups(form)
        return
    rollup = rollup_named(name)
    if window not in rollup.windows:
        raise click.BadParameter(
            f"{window} is no window of {name}: choose of {', '.join(rollup.windows)}", param_hint="--window"
        )
    conditions = dict(where)
    for tag in conditions:
        if tag not in rollup.key:
            raise click.BadParameter(
                f"{tag} is no key of {name}: choose of {', '.join(rollup.key)}", param_hint="--where"
            )
    points = asyncio.run(_points(settings, name, window, epoch_s(since), epoch_s(until), conditions))
    if form == "json":
        print_json(rollup_document(rollup, window, points))
    elif form == "csv":
        print_bytes(rollup_csv(rollup, points).encode())
    else:
        _print_points(rollup, window, points)


def rollup_named(name: str) -> AnyRollup:
    """The rollup. Raises ``click.BadParameter``."""
    rollup = ROLLUPS.get(name)
    if rollup is None:
        close = difflib.get_close_matches(name, list(ROLLUPS), n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose of {', '.join(ROLLUPS)}"
        raise click.BadParameter(f"there is no rollup {name}: {hint}", param_hint="NAME")
    return rollup


async def _points(
    settings: Settings,
    name: str,
    window: str,
    since: int | None,
    until: int | None,
    where: Mapping[str, str],
) -> Sequence[Point]:
    sink = parts.rollup_sink(settings, parts.Shared(settings, create=False))
    try:
        await sink.open()
        return await sink.query(name, window, since=since, until=until, where=where, limit=NO_LIMIT)
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
        print_table(columns, rows, wrap=frozenset({"fields", "key"}))


def _print_points(rollup: AnyRollup, window: str, points: Sequence[Point]) -> None:
    rows = rollup_document(rollup, window, points)["rows"]
    if not rows:
        click.echo(
            "no rows in this range: what is read is here a second later, while `eventsink up` or `worker` runs",
            err=True,
        )
        return
    # Columns that no row fills only push the others off the screen.
    fields = [field for field in rollup.fields if any(field in row for row in rows)]
    columns = ("time", *rollup.key, *fields)
    print_table(
        columns,
        [[row.get(name) for name in columns] for row in rows],
        right=frozenset(fields),
        gather="fields",
    )
