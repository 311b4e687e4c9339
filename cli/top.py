"""``eventsink top``: what there is most of."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import click
import msgspec

from agents import ROLLUPS
from cli import parts, watching
from cli.events import pages
from cli.options import TIME, TIMES, epoch_s, examples, format_option, in_order, takes_settings
from cli.rollups import SPARKLINE_BLOCKS, asked, courses
from cli.settings import Settings
from cli.tables import print_csv, print_json
from cli.units import in_words, sparkline
from schemas.times import rfc3339
from topology.sinks import RawEvents, RollupSink, Value
from topology.windows import DAY, HOUR, MINUTE
from web.rows import Order, Wanted

LIMIT = 10
#: Beyond so many windows a range is looked at in coarser ones.
MOST_WINDOWS = 200


class Kind(NamedTuple):
    """A rollup of which the keys are compared, by the fields that are shown."""

    rollup: str
    tag: str
    fields: tuple[str, ...]


KINDS = {
    "spaces": Kind(
        "space_storage",
        "space_id",
        ("bytes_added", "bytes_removed", "files_added", "files_removed"),
    ),
    "extractors": Kind(
        "extractor_runtime",
        "extractor",
        ("succeeded", "failed", "skipped", "retried", "runtime_s_sum", "runtime_s_max"),
    ),
}
USER_FIELDS = ("events", "bytes", "last")


@click.command(
    short_help="Show which spaces, extractors or users come first.",
    epilog=examples(
        "eventsink top spaces",
        "eventsink top extractors --by failed --since now-1d",
        "eventsink top users --limit 20 --format csv",
    ),
)
@click.argument("what", type=click.Choice([*KINDS, "users"]))
@click.option("--since", type=TIME, default="now-7d", show_default=True, help=f"From this time on: {TIMES}.")
@click.option("--until", type=TIME, help="Before this time.")
@click.option("--by", metavar="F", help="By this column.  [default: the first]")
@click.option(
    "--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, metavar="N", help="The first N."
)
@format_option
@watching.option
@takes_settings
def command(
    settings: Settings,
    what: str,
    since: datetime,
    until: datetime | None,
    by: str | None,
    limit: int,
    form: str,
    watch: bool,
) -> None:
    """Show which spaces, extractors or users come first in a range.

    Spaces and extractors are taken from the rollups. Users are counted in the raw events, as no rollup
    names a user: every event of the range is read, so keep it short where there are many.
    Rollups count whole windows: their range begins with the window that --since is in,
    and is stated like that.
    """
    fields = USER_FIELDS[:2] if what == "users" else KINDS[what].fields
    if by is not None and by not in fields:
        raise click.BadParameter(
            f"{what} have no column {by}: choose of {', '.join(fields)}", param_hint="--by"
        )
    if watch and form != "table":
        raise click.UsageError("--watch is for tables: leave --format out")
    in_order(since, until)
    since_s, until_s, window = epoch_s(since) or 0, epoch_s(until), None
    if what != "users":
        window, since_s = whole_windows(since_s, int(time.time()) if until_s is None else until_s)
    ask = Ask(what, since_s, until_s, by or fields[0], limit, window)
    if form == "table":
        watching.show(lambda: _shown(settings, ask), watch=watch)
        return
    key, columns, rows = asyncio.run(ranked(settings, ask))
    if form == "csv":
        print_csv((key, *columns), [(row.name, *map(row.values.get, columns)) for row in rows])
    else:
        print_json(
            {
                "top": what,
                "by": ask.by,
                "since": rfc3339(ask.since_s * 1000),
                "rows": [{key: row.name, **row.values} for row in rows],
            }
        )


class Ask(NamedTuple):
    """The first ``limit`` of ``what`` by ``by``, in [since, until); of a rollup in windows of this size."""

    what: str
    since_s: int
    until_s: int | None
    by: str
    limit: int
    window: str | None


@dataclass(slots=True)
class Ranked:
    """One of them: its name, its numbers, and how the leading one went."""

    name: str
    values: dict[str, Any]
    course: list[Value | None] = field(default_factory=list)


def whole_windows(since_s: int, until_s: int) -> tuple[str, int]:
    """The finest window that shows a range in not too many steps, and the start of the one that ``since_s`` is in:
    what happened before ``since_s`` in that window cannot be told from what happened after."""
    window = next((each for each in (MINUTE, HOUR) if until_s - since_s <= MOST_WINDOWS * each.seconds), DAY)
    return window.name, window.start(since_s)


async def ranked(settings: Settings, ask: Ask) -> tuple[str, Sequence[str], Sequence[Ranked]]:
    """The name of their key, the names of their numbers, and they."""
    shared = parts.Shared(settings, create=False)
    if ask.what == "users":
        archive = parts.raw_events(settings, shared)
        try:
            await archive.open()
            return "user_id", USER_FIELDS, await users(archive, ask)
        finally:
            await archive.close()
    kind = KINDS[ask.what]
    sink = parts.rollup_sink(settings, shared)
    try:
        await sink.open()
        return kind.tag, kind.fields, await keys(sink, kind, ask)
    finally:
        await sink.close()


async def keys(sink: RollupSink, kind: Kind, ask: Ask) -> Sequence[Ranked]:
    """The first keys of a rollup."""
    rollup = ROLLUPS[kind.rollup]
    assert ask.window is not None  # noqa: S101 - of users alone there is none
    wanted = Wanted(
        window=ask.window,
        since=ask.since_s,
        until=ask.until_s,
        total=True,
        fields=kind.fields,
        order=Order(by=ask.by, descending=True),
        limit=ask.limit,
    )
    found = await asked(sink, rollup, wanted)
    rows = [
        Ranked(dict(row.tags)[kind.tag], dict(row.fields)) for row in found.rows if row.fields.get(ask.by)
    ]
    if rows:
        where = {kind.tag: [row.name for row in rows]}
        lines = await courses(sink, rollup, replace(wanted, where=where), ask.by)
        for row in rows:
            row.course = list(lines.get(((kind.tag, row.name),), ()))
    return rows


async def users(archive: RawEvents, ask: Ask) -> Sequence[Ranked]:
    """The first users, counted event by event. Events without a user are nobody's."""
    until = int(time.time()) + 1 if ask.until_s is None else ask.until_s
    step_ms = max(1, (until - ask.since_s) * 1000 // SPARKLINE_BLOCKS + 1)
    found: dict[str, Ranked] = {}
    until_ms = None if ask.until_s is None else ask.until_s * 1000
    async for page in pages(archive, None, since=ask.since_s * 1000, until=until_ms, type_=None):
        for raw in page:
            event = _decode(raw.event)
            if event.user_id is None:
                continue
            row = found.get(event.user_id)
            if row is None:  # the newest events come first
                values = {"events": 0, "bytes": 0, "last": rfc3339(raw.time // 1000 * 1000)}
                row = found[event.user_id] = Ranked(event.user_id, values, [None] * SPARKLINE_BLOCKS)
            row.values["events"] += 1
            row.values["bytes"] += event.bytes or 0
            place = min((raw.time - ask.since_s * 1000) // step_ms, SPARKLINE_BLOCKS - 1)
            row.course[place] = (row.course[place] or 0) + 1
    return heapq.nsmallest(ask.limit, found.values(), key=lambda row: (-row.values[ask.by], row.name))


class _OfAUser(msgspec.Struct, gc=False):
    """What of an event concerns its user."""

    user_id: str | None = None
    bytes: int | None = None


_decode = msgspec.json.Decoder(_OfAUser).decode


async def _shown(settings: Settings, ask: Ask) -> watching.Shown:
    key, fields, rows = await ranked(settings, ask)
    if not rows:
        return watching.Nothing(
            f"no {ask.what} with {ask.by} since {rfc3339(ask.since_s * 1000)}: try another --since"
        )
    course = ask.by if ask.what != "users" else "events"
    combining = ROLLUPS[KINDS[ask.what].rollup].combining[course] if ask.what != "users" else "sum"
    return watching.Tabular(
        columns=(key, f"{course} over time", *fields),
        rows=[
            [
                row.name,
                sparkline(row.course, width=SPARKLINE_BLOCKS, combining=combining),
                *(
                    row.values[name] if name == "last" else in_words(name, row.values.get(name))
                    for name in fields
                ),
            ]
            for row in rows
        ],
        right=frozenset(fields),
        gather="fields",
        caption=f"since {rfc3339(ask.since_s * 1000)}, by {ask.by}",
    )
