"""``eventsink report``: a range on one page, to be mailed or kept."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path

import click

from cli import parts
from cli.options import TIME, TIMES, epoch_s, examples, takes_settings
from cli.reports.findings import Findings, gathered
from cli.reports.html import html
from cli.reports.markdown import markdown
from cli.settings import Settings
from cli.tables import print_bytes
from schemas.times import rfc3339
from topology.errors import EventsinkError

WRITERS = {"html": html, "markdown": markdown}


@click.command(
    short_help="Write a report on a range, to mail.",
    epilog=examples(
        "eventsink report --out week.html",
        "eventsink report --since now-30d --format markdown",
        "eventsink report --since 2026-11-01 --until 2026-12-01 --out november.html",
    ),
)
@click.option("--since", type=TIME, default="now-7d", show_default=True, help=f"From this time on: {TIMES}.")
@click.option("--until", type=TIME, default="now", show_default=True, help="Before this time.")
@click.option(
    "--format",
    "form",
    type=click.Choice([*WRITERS]),
    default="html",
    show_default=True,
    help="How to write it.",
)
@click.option("--title", default="Usage report", show_default=True, metavar="T", help="Its heading.")
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it there.  [default: standard output]",
)
@takes_settings
def command(
    settings: Settings, since: datetime, until: datetime, form: str, title: str, out: Path | None
) -> None:
    """Write a report: uptime, storage, traffic, extractors and activity, with charts.

    It is one file that loads nothing and holds no user. What is counted is whole windows, of a minute, an hour or,
    beyond 8 days, a day: the range is widened to them, and the report says so.
    """
    since_s, until_s = epoch_s(since) or 0, epoch_s(until) or 0
    if since_s >= until_s:
        raise click.UsageError("the range is empty: --since must come before --until")
    findings = asyncio.run(_findings(settings, since_s, until_s))
    made = rfc3339(time.time_ns() // 1_000_000_000 * 1000)
    written = WRITERS[form](findings, title=title, made=made).encode(errors="replace")
    if out is None:
        print_bytes(written)
        return
    try:
        out.write_bytes(written)
    except OSError as error:
        raise EventsinkError(f"{out} cannot be written ({error.strerror}): name another file") from None
    click.echo(f"{out}: {len(written):,} bytes", err=True)


async def _findings(settings: Settings, since_s: int, until_s: int) -> Findings:
    shared = parts.Shared(settings, create=False)
    sink = parts.rollup_sink(settings, shared)
    letters = parts.dead_letters(settings, shared)
    try:
        await sink.open()
        await letters.open()
        return await gathered(sink, letters, since_s=since_s, until_s=until_s, now_s=int(time.time()))
    finally:
        await letters.close()
        await sink.close()
