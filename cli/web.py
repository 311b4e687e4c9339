"""``eventsink web``: ingest, queries and the page only."""

from __future__ import annotations

import ssl
import sys
from contextlib import AsyncExitStack

import click

from cli import data_folder, logs, process
from cli.options import examples, takes_settings
from cli.settings import Settings
from cli.tls import context_for_command
from web.keys import Keys


@click.command(
    short_help="Run the web application only.",
    epilog=examples("eventsink web", "eventsink web --host 0.0.0.0 --port 8080"),
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@takes_settings
def command(settings: Settings, host: str, port: int) -> None:
    """Run the web application only: it takes events in and answers queries.

    A server that is away does not end it. While the broker is, events go to a spool in the data folder, and to the
    broker when it is back; queries of what is away are answered with 503.
    """
    tls = context_for_command(settings.web.tls)
    data_folder.make(settings.data)
    logs.configure(settings.log_format, sys.stderr, secrets=settings.secrets)
    process.run(_web(settings, host, port, tls))


async def _web(settings: Settings, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    from cli.running import Running, opened  # the help text does not wait for aiohttp

    async with AsyncExitStack() as stack:
        part = await opened(stack, settings, patience=None)
        running = Running(stack, settings, part)
        application = await running.web_application(host, Keys(settings.keys_file))
        address = await running.serve(application, host, port, tls=tls)
        click.echo(address.page)
        await process.first_failure(*running.failures)
