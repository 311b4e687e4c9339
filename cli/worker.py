"""``eventsink worker``: the agents only."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

import click

from cli import logs, process
from cli.data_folder import DataFolder
from cli.options import examples, takes_settings
from cli.settings import Settings

#: The forwarders' groups have agents where a forwarder is set; else they are empty.
GROUPS = ("rollups", "archive", "amplitude", "google", "webhook")


class Groups(click.ParamType):
    """``rollups,archive``."""

    name = "a,b"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        groups = tuple(dict.fromkeys(filter(None, map(str.strip, str(value).split(",")))))
        for group in groups:
            if group not in GROUPS:
                self.fail(f"there is no group {group}: choose of {', '.join(GROUPS)}", param, ctx)
        if not groups:
            self.fail(f"name at least one of {', '.join(GROUPS)}", param, ctx)
        return groups


@click.command(
    short_help="Run the agents only.",
    epilog=examples("eventsink worker", "eventsink worker --groups archive --port 8083"),
)
@click.option("--groups", type=Groups(), default=",".join(GROUPS), show_default=True, help="Groups to run.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of metrics and health.")
@click.option(
    "--port", default=8081, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@takes_settings
def command(settings: Settings, groups: tuple[str, ...], host: str, port: int) -> None:
    """Run the agents only, with /metrics, /healthz and /readyz beside them.

    One worker for each group: a second one of the same group takes over, and the first one stops.
    """
    with DataFolder(settings.data):
        logs.configure(settings.log_format, sys.stderr, secrets=settings.secrets)
        process.run(_worker(settings, groups, host, port))


async def _worker(settings: Settings, groups: tuple[str, ...], host: str, port: int) -> None:
    from cli.running import Running, opened  # the help text does not wait for Faust

    async with AsyncExitStack() as stack:
        part = await opened(stack, settings, patience=process.START_PATIENCE)
        running = Running(stack, settings, part)
        await running.start_agents(groups)
        address = await running.serve(running.probes_application(), host, port)
        click.echo(f"running {', '.join(running.agents)}; metrics and health at {address}/metrics")
        await process.first_failure(*running.failures)
