"""``eventsink monitor maintenance``: says that a service is being worked on, so that being away is not being down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import click

from cli.options import TIME, epoch_ms, examples
from topology.errors import EventsinkError


@click.group(
    short_help="Say that a service is being worked on.",
    epilog=examples(
        "eventsink monitor maintenance start --config m.toml --service clowder --reason disks",
        "eventsink monitor maintenance end --config m.toml --service clowder",
    ),
)
def command() -> None:
    """Say that a service is being worked on: from start to end it is neither up nor down, in all regions.

    Windows that are known before stand in the configuration, as [[maintenance]].
    """


def _said(run: Callable[..., None]) -> Callable[..., None]:
    """The options of both ends."""
    for option in (
        click.option("--at", metavar="T", type=TIME, default="now", show_default=True, help="When."),
        click.option("--reason", metavar="R", help="Why; kept with the event."),
        click.option("--service", metavar="S", required=True, help="The service, as the probes call it."),
        click.option(
            "--config",
            metavar="FILE",
            required=True,
            type=click.Path(path_type=Path),
            help="TOML file of the monitor: where to post, and the key.",
        ),
    ):
        run = option(run)
    return run


@command.command(
    epilog=examples("eventsink monitor maintenance start --config m.toml --service clowder --reason disks")
)
@_said
def start(config: Path, service: str, reason: str | None, at: datetime) -> None:
    """The maintenance of a service begins."""
    _post(config, service, reason, at, "started")


@command.command(
    epilog=examples("eventsink monitor maintenance end --config m.toml --service clowder --at now-10m")
)
@_said
def end(config: Path, service: str, reason: str | None, at: datetime) -> None:
    """The maintenance of a service is over."""
    _post(config, service, reason, at, "ended")


def _post(
    config: Path, service: str, reason: str | None, at: datetime, word: Literal["started", "ended"]
) -> None:
    from cli.process import clock_ms  # the help text does not wait for aiohttp
    from monitors.config import read
    from monitors.running import deliver
    from monitors.schedule import Clocks

    if not service.strip():
        raise click.BadParameter("is empty", param_hint="--service")
    if at > datetime.now(UTC):
        raise click.BadParameter(
            "lies ahead: write a [[maintenance]] into the configuration", param_hint="--at"
        )
    event: dict[str, object] = {
        "type": f"health.maintenance_{word}",
        "service": service,
        "time": epoch_ms(at),
    }
    if reason is not None:
        event["reason"] = reason
    settings = read(config)
    known = {each.service for each in (*settings.probe, *settings.maintenance)}
    if service not in known:
        near = get_close_matches(service, known, n=1)
        which_has = f"did you mean {near[0]}? It has" if near else "which has"
        raise click.BadParameter(
            f"{service!r} is in no probe of {config}, {which_has} {', '.join(sorted(known))}",
            param_hint="--service",
        )
    away = asyncio.run(deliver(settings, [event], os.environ, Clocks(wall_ms=clock_ms)))
    if away is not None:
        raise EventsinkError(
            f"not posted yet: {away}; the event waits in {settings.folder} with its own time, and the running monitor "
            "or the next command of this configuration posts it: do not repeat this one"
        )
    click.echo(f"maintenance of {service} {word}")
