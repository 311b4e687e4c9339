"""``eventsink events``: the archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

from cli import parts, watching
from cli.options import epoch_ms, examples, format_option, range_options, takes_settings
from cli.settings import Settings
from cli.tables import csv_lines, print_bytes
from schemas.selecting import NoSuchType, types_of
from topology.position import Position
from topology.sinks import RawEvent, RawEvents
from web.documents import event_document

PAGE_EVENTS = 1000
#: As many as a person reads. Files and pipes get all.
TABLE_EVENTS = 100

COLUMNS = ("position", "received", "time", "type", "source", "id", "user_id", "event")
#: Have columns of their own in the table.
_APART = frozenset({"position", "received", "time", "type"})


@click.command(
    epilog=examples(
        "eventsink events --since now-1h",
        "eventsink events --type storage.file_uploaded --limit 10",
        "eventsink events --type 'health.*' --watch",
        "eventsink events --since now-7d --format json > week.json",
    )
)
@range_options
@click.option(
    "--type",
    "types",
    metavar="T",
    multiple=True,
    help="Only events of this type, or like 'health.*'; repeat for others.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"The newest N.  [default: all; as a table {TABLE_EVENTS}]",
)
@format_option
@watching.option
@takes_settings
def command(
    settings: Settings,
    since: datetime | None,
    until: datetime | None,
    types: tuple[str, ...],
    limit: int | None,
    form: str,
    watch: bool,
) -> None:
    """Show raw events, the newest first.

    An event belongs to the range if it happened in it; one without a time of its own, if it arrived
    in it. Times are in UTC.
    """
    try:
        wanted = types_of(types) if types else None
    except NoSuchType as error:
        raise click.BadParameter(str(error), param_hint="--type") from None
    range_: dict[str, Any] = {"since": epoch_ms(since), "until": epoch_ms(until), "type_": wanted}
    if form == "table":
        watching.show(lambda: _shown(settings, limit or TABLE_EVENTS, **range_), watch=watch)
        return
    if watch:
        raise click.UsageError("--watch is for tables: leave --format out")
    asyncio.run(_print(settings, form, limit, **range_))


async def _print(settings: Settings, form: str, limit: int | None, **range_: Any) -> None:
    archive = parts.raw_events(settings, parts.Shared(settings, create=False))
    try:
        await archive.open()
        if form == "json":
            await _print_json(pages(archive, limit, **range_))
        else:
            await _print_csv(pages(archive, limit, **range_))
    finally:
        await archive.close()


async def pages(
    archive: RawEvents,
    limit: int | None,
    *,
    since: int | None,
    until: int | None,
    type_: Sequence[str] | None,
) -> AsyncIterator[list[RawEvent]]:
    """Events, the newest first, a page at a time: all of them need not fit into memory."""
    before: tuple[int, Position] | None = None
    left = limit
    while left is None or left > 0:
        wanted = PAGE_EVENTS if left is None else min(left, PAGE_EVENTS)
        page = list(await archive.query(since=since, until=until, type=type_, limit=wanted, before=before))
        if page:
            yield page
        if len(page) < wanted:
            return
        before = (page[-1].time, page[-1].position)
        left = None if left is None else left - len(page)


async def _print_json(found: AsyncIterator[list[RawEvent]]) -> None:
    # The document of GET /v1/events, written a page at a time; there is nothing after its last event.
    separator = b""
    print_bytes(b'{"events":[')
    async for page in found:
        print_bytes(separator + b",".join(msgspec.json.encode(event_document(event)) for event in page))
        separator = b","
    print_bytes(b'],"cursor":null}\n')


async def _print_csv(found: AsyncIterator[list[RawEvent]]) -> None:
    print_bytes(csv_lines([COLUMNS]))
    async for page in found:
        rows = [(event, event_document(event)) for event in page]
        print_bytes(
            csv_lines(
                (*(document.get(name) for name in COLUMNS[:-1]), event.event.decode())
                for event, document in rows
            )
        )


async def _shown(settings: Settings, limit: int, **range_: Any) -> watching.Shown:
    archive = parts.raw_events(settings, parts.Shared(settings, create=False))
    try:
        await archive.open()
        documents = [
            event_document(event) async for page in pages(archive, limit + 1, **range_) for event in page
        ]
    finally:
        await archive.close()
    if not documents:
        return watching.nothing(
            f"events{' of this type' if range_['type_'] is not None else ''}",
            ranged=range_["since"] is not None or range_["until"] is not None,
        )
    return watching.Tabular(
        columns=("position", "time", "type", "event"),
        rows=[
            (document["position"], document.get("time"), document.get("type"), _rest(document))
            for document in documents[:limit]
        ],
        wrap=frozenset({"event"}),
        caption="there are older ones: --limit, --until" if len(documents) > limit else None,
    )


def _rest(document: Mapping[str, Any]) -> str:
    # Why something is down comes before ids.
    names = sorted((name for name in document if name not in _APART), key=lambda name: name != "problem")
    return " ".join(f"{name}={_plain(document[name])}" for name in names)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
