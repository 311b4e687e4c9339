"""``eventsink demo``: a made-up platform whose events go into the log, for ever."""

from __future__ import annotations

import asyncio
from random import Random

import click
import msgspec

from cli import parts, process
from cli.demonstration import Platform
from cli.options import examples, takes_settings
from cli.process import clock_ms
from cli.publishing import Packed, opened, publish, stamped
from cli.settings import Settings
from topology.errors import Unavailable
from topology.log import Log

#: Seconds between two looks at what has happened meanwhile.
TICK_S = 0.5


@click.command(
    short_help="Send made-up events, until it is stopped.",
    epilog=examples("eventsink demo", "eventsink demo --rate 50", "eventsink demo --events 1000"),
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, max=1000, min_open=True),
    default=5.0,
    show_default=True,
    metavar="N",
    help="Users do N things a second, on average.",
)
@click.option("--events", type=click.IntRange(min=1), metavar="N", help="End after about N events.")
@takes_settings
def command(settings: Settings, rate: float, events: int | None) -> None:
    """Send made-up events straight to the log, as they happen, until it is stopped.

    Users log in, view, upload and download; extractors work on the files, some fail; two monitors watch two services,
    which are down now and then. It runs beside `up` on the same data folder, and on any broker. Their source is "demo".
    """
    process.run(_demo(settings, rate, events))


async def _demo(settings: Settings, rate: float, events: int | None) -> None:
    log = parts.open_log(settings)
    sent = 0
    try:
        await opened(log, settings.log, waiting=_waiting)
        click.echo(
            f"sending what users do, {rate:g} things a second, and what follows from it; Ctrl-C ends it"
        )
        platform = Platform(Random(), began_ms=clock_ms(), rate=rate)  # noqa: S311 - keeps no secret
        while events is None or sent < events:
            await asyncio.sleep(TICK_S)
            sent += await tick(log, platform, clock_ms())
    finally:
        await log.close()
        click.echo(f"sent {sent}")


async def tick(log: Log, platform: Platform, now_ms: int) -> int:
    """Publish what has happened by now; returns how many events that is."""
    happened = platform.until(now_ms)
    if happened:
        body = b"\n".join(msgspec.json.encode(event) for event in happened)
        await publish(log, stamped([Packed(body, len(happened), 1)], now_ms), waiting=_waiting)
    return len(happened)


def _waiting(error: Unavailable) -> None:
    click.echo(f"trying again: {error}", err=True)
