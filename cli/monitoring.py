"""The process of ``eventsink monitor``."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import click
from aiohttp import web

from cli import logs, process
from cli.process import clock_ms
from monitors.config import MonitorConfig, read
from monitors.running import Monitor, opened
from monitors.schedule import Clocks
from monitors.secrets import named_secrets
from monitors.words import counted
from topology.metrics import ConnectionMetrics
from web import probes
from web.access import access_log
from web.connections import ConnectionLimits
from web.problems import problems

log = logging.getLogger(__name__)

#: Whoever scrapes, and a few more.
MOST_CONNECTIONS = 100
#: They are answered at once, and the monitor has five seconds for its end.
REQUESTS_END_WITHIN_S = 0.25


def run(file: Path, *, once: bool, host: str, port: int) -> None:
    """Until it is told to end; with ``once``, until everything was checked and posted. Raises ``EventsinkError``."""
    config = read(file)
    # What cron mails is what somebody should look at.
    logs.configure(
        None,
        sys.stderr,
        secrets=named_secrets(config, os.environ),
        level=logging.WARNING if once else logging.INFO,
    )
    # Cron would mail it after every run, and it may be meant.
    if not once or sys.stderr.isatty():
        for line in config.unwatched():
            log.warning("%s: %s", file, line)
    process.run(_once(config) if once else _serving(config, host, port))


async def _once(config: MonitorConfig) -> None:
    async with opened(config, os.environ, Clocks(wall_ms=clock_ms)) as monitor:
        await monitor.once()
    if sys.stdout.isatty():  # cron hears nothing where all is well
        click.echo(f"{counted(len(config.probe), 'probe')} checked, what they found is at {config.endpoint}")


async def _serving(config: MonitorConfig, host: str, port: int) -> None:
    async with AsyncExitStack() as stack:
        monitor = await stack.enter_async_context(opened(config, os.environ, Clocks(wall_ms=clock_ms)))
        address = await process.serve(
            stack,
            _application(monitor),
            host,
            port,
            limits=ConnectionLimits(max_connections=MOST_CONNECTIONS),
            metrics=ConnectionMetrics(monitor.registry),
            requests_end_within_s=REQUESTS_END_WITHIN_S,
        )
        failures = monitor.start()
        stack.push_async_callback(monitor.stop)
        click.echo(
            f"{counted(len(config.probe), 'probe')} from {config.region}; metrics at {address}/metrics, "
            "health at /healthz"
        )
        await process.first_failure(*failures)


def _application(monitor: Monitor) -> web.Application:
    application = web.Application(middlewares=[access_log, problems])
    application.add_routes(probes.routes(monitor.ready, monitor.registry))
    return application
