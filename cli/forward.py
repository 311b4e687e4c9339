"""``eventsink forward --dry-run``: what would be sent to a vendor."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

import click

from cli import forwarders, parts
from cli.events import pages
from cli.options import epoch_ms, examples, range_options, takes_settings
from cli.settings import Settings
from schemas.reading import Refusal, read
from topology.batch import LogEvent
from topology.forwarding.batching import Waiting
from topology.forwarding.breaker import Pace
from topology.forwarding.consignments import Consignment, Item
from topology.forwarding.forwarder import Forwarding
from topology.sinks import RawEvent

VENDORS = ("amplitude", "google", "webhook")
MOST_EVENTS = 1000
#: What it is called that an event was left out, for people.
MEANINGS: Mapping[str, str] = {
    "type": "of a type that is not selected",
    "sample": "not in the sample",
    "consent": "without consent",
    "too_old": "too old for the vendor",
    "unknown_to_vendor": "of a kind that the vendor has nothing for",
    "unreadable": "not readable",
}


@click.command(
    short_help="Show what would be sent to a vendor.",
    epilog=examples(
        "eventsink forward --dry-run amplitude --since now-1h",
        "eventsink forward --dry-run google --limit 10",
    ),
)
@click.option(
    "--dry-run",
    "vendor",
    type=click.Choice(VENDORS),
    required=True,
    help="Print the requests to this vendor and send nothing.",
)
@range_options
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=MOST_EVENTS,
    show_default=True,
    metavar="N",
    help="Of the newest N events of that time.",
)
@takes_settings
def command(
    settings: Settings, vendor: str, since: datetime | None, until: datetime | None, limit: int
) -> None:
    """Print the requests that a forwarder would make of archived events, an event a line. Nothing is sent.

    How many there are, and what was left out and why, is said at the end, on stderr. Secrets are
    shown as ***. The vendor need not be set. A running `up` or `worker` does the sending.
    """
    asyncio.run(_print(settings, vendor, limit, epoch_ms(since), epoch_ms(until)))


async def _print(settings: Settings, vendor: str, limit: int, since: int | None, until: int | None) -> None:
    archive = parts.raw_events(settings, parts.Shared(settings, create=False))
    try:
        await archive.open()
        found = [
            event
            async for page in pages(archive, limit + 1, since=since, until=until, type_=None)
            for event in page
        ]
    finally:
        await archive.close()
    _show(forwarders.shown(settings)[vendor], found[:limit][::-1])
    if len(found) > limit:
        click.echo(f"These are the newest {limit} events: --limit N shows more.", err=True)


def _show(forwarding: Forwarding, events: list[RawEvent]) -> None:
    vendor = forwarding.vendor
    most_ms = vendor.limits.max_age_ms
    oldest_ms = None if most_ms is None else time.time_ns() // 1_000_000 - most_ms
    left_out: Counter[str] = Counter()
    waiting = Waiting(vendor.limits, Pace())
    consignment = Consignment(0)
    sent = 0
    for raw in events:
        occurred = read(raw.event)
        if isinstance(occurred, Refusal):
            left_out["unreadable"] += 1
            continue
        event = LogEvent(raw.position, raw.time, raw.received, occurred, raw.original)
        reason = "too_old" if oldest_ms is not None and raw.time < oldest_ms else None
        reason = reason or forwarding.selection.reason(event)
        parcel = None if reason is not None else vendor.parcel(event)
        if parcel is None:
            left_out[reason or "unknown_to_vendor"] += 1
        else:
            sent += 1
            waiting.put([Item(event, parcel, consignment)])
    requests = 0
    while items := waiting.take():
        requests += 1
        request = vendor.request([item.parcel for item in items])
        click.echo(f"POST {request.url}")
        for name, value in request.headers.items():
            click.echo(f"{name}: {value}")
        click.echo()
        click.echo(_readable(request.body))
        click.echo()
    click.echo(
        f"{_counted(sent, 'event')} in {_counted(requests, 'request')} to {vendor.where}, nothing was sent"
        + "".join(f"; {count} left out: {MEANINGS[reason]}" for reason, count in sorted(left_out.items())),
        err=True,
    )


def _readable(body: bytes) -> str:
    """JSON, a member a line, and of a list an item a line."""
    document = json.loads(body)
    if not isinstance(document, dict):
        return json.dumps(document, ensure_ascii=False)
    return (
        "{\n" + ",\n".join(f"  {json.dumps(name)}: {_value(each)}" for name, each in document.items()) + "\n}"
    )


def _value(value: object) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value, ensure_ascii=False)
    return "[\n" + ",\n".join(f"    {json.dumps(each, ensure_ascii=False)}" for each in value) + "\n  ]"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
