"""``eventsink monitor``: the health probes."""

from __future__ import annotations

from pathlib import Path

import click

from cli import maintenance
from cli.options import examples

CONFIG = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="TOML file: where to post, and the probes.",
)


@click.group(
    invoke_without_command=True,
    short_help="Run the health probes and post what they find.",
    epilog=examples(
        "eventsink monitor --config monitors.toml",
        "eventsink monitor --config monitors.toml --once",
        "eventsink monitor maintenance start --config monitors.toml --service clowder",
    ),
)
@CONFIG
@click.option("--once", is_flag=True, help="Check everything once, post, and end: for cron.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of /metrics and /healthz.")
@click.option(
    "--port", default=8082, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@click.pass_context
def command(ctx: click.Context, config: Path | None, once: bool, host: str, port: int) -> None:
    """Run the health probes and post what they find.

    It runs anywhere and needs nothing but the address of an eventsink and a key with the scope health. While nothing
    answers there, results wait in its folder and are posted in order, with their own times, when it is back.
    """
    if ctx.invoked_subcommand is not None:
        return
    if config is None:
        raise click.UsageError("name the configuration with --config FILE", ctx)
    from cli import monitoring  # the help text does not wait for aiohttp

    monitoring.run(config, once=once, host=host, port=port)


command.add_command(maintenance.command, "maintenance")
