"""``eventsink up``: everything in one process."""

from __future__ import annotations

import ssl
import sys
from contextlib import AsyncExitStack

import click

from cli import logs, process
from cli.data_folder import DataFolder
from cli.options import examples, takes_settings
from cli.settings import Settings
from cli.tls import context_for_command
from cli.worker import GROUPS
from web.keys import SCOPES, Keys

FIRST_KEY_NAME = "first"
ANOTHER_PORT = "choose another with --host or --port (`make run PORT=9090`)"


@click.command(
    epilog=examples("eventsink up", "eventsink up --port 9000 --data /var/lib/eventsink"),
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@takes_settings
def command(settings: Settings, host: str, port: int) -> None:
    """Run log, agents and web application in one process.

    Prints the address of the page and, on the first start, a new API key. SIGTERM or Ctrl-C ends it within
    10 seconds; nothing is lost, whatever ends it.
    """
    tls = context_for_command(settings.web.tls)
    # A start that fails leaves no folder behind; in one that is there, another `up` is the likelier reason.
    fresh = not settings.data.exists()
    if fresh:
        process.can_listen(host, port, instead=ANOTHER_PORT)
    with DataFolder(settings.data):
        if not fresh:
            process.can_listen(host, port, instead=ANOTHER_PORT)
        logs.configure(settings.log_format, sys.stderr, secrets=settings.secrets)
        process.run(_up(settings, host, port, tls))


async def _up(settings: Settings, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    from cli.running import Running, opened  # the help text does not wait for Faust

    async with AsyncExitStack() as stack:
        part = await opened(stack, settings, patience=process.START_PATIENCE)
        running = Running(stack, settings, part)
        await running.start_agents(GROUPS)
        keys = Keys(settings.keys_file)
        first_start = not settings.keys_file.exists()
        application = await running.web_application(host, keys)
        address = await running.serve(application, host, port, tls=tls)
        if first_start:
            key = keys.create(FIRST_KEY_NAME, SCOPES, None, now=process.clock_ms())
            click.echo(f"new API key ({', '.join(SCOPES)}), shown this once: {key}")
        click.echo(address.page)
        await process.first_failure(*running.failures)
