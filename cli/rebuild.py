"""``eventsink rebuild``: windows computed anew from the raw events."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from agents import AGENTS, ROLLUPS
from cli import logs, parts, process
from cli.data_folder import DataFolder
from cli.options import TIME, TIMES, epoch_s, examples, takes_settings
from cli.rollups import rollup_named
from cli.settings import Settings
from topology.errors import FolderInUse
from topology.rebuild.rebuilding import Progress, progress
from topology.rebuild.recomputing import Rebuild
from topology.state import Request, StateStore
from topology.uuid7 import uuid7

#: A worker looks for requests every second; one that waits for a server takes longer.
TAKEN_WITHIN_S = 15.0
#: A worker that carries out another request tells of it, but for the time in which it waits for the archive.
TOLD_WITHIN_S = 60.0
LOOK_EVERY_S = 0.2


@click.command(
    short_help="Compute windows anew from raw events.",
    epilog=examples(
        "eventsink rebuild space_storage --since 2026-01-31 --until 2026-02-01",
        "eventsink rebuild service_uptime --since now-7d --until now --check",
    ),
)
@click.argument("name")
@click.option("--since", type=TIME, required=True, help=f"From this time on: {TIMES}.")
@click.option("--until", type=TIME, required=True, help="Before this time.")
@click.option("--check", is_flag=True, help="Change nothing, print what would change.")
@click.option(
    "--force", is_flag=True, help="Also windows for which the archive holds fewer events than are in them."
)
@takes_settings
def command(settings: Settings, name: str, since: datetime, until: datetime, check: bool, force: bool) -> int:
    """Compute the windows of rollup NAME that overlap the range anew, from the archived raw events.

    The worker that runs does it between two batches; where none runs, this command does. All sizes of window are
    rebuilt; of extractor_runtime and service_uptime whole days, which are merges of their minutes. A
    window that has more events in it than the archive holds is left alone, and named.
    """
    rollup_named(name)
    begins, ends = epoch_s(since), epoch_s(until)
    assert begins is not None and ends is not None  # noqa: S101, PT018 - both are required
    if begins >= ends:
        raise click.BadParameter("the range is empty: give a later --until", param_hint="--until")
    asked = Rebuild(
        rollup=name,
        since=max(0, begins),
        until=ends,
        asked_ms=process.clock_ms(),
        check=check,
        force=force,
    )
    outcome = asyncio.run(_rebuilt(settings, asked))
    return _told(asked, outcome)


async def _rebuilt(settings: Settings, asked: Rebuild) -> Progress:
    group = next(agent.group for agent in AGENTS if ROLLUPS[asked.rollup] in agent.rollups)
    request = Request(id=uuid7(asked.asked_ms), group=group, what=msgspec.json.encode(asked))
    async with AsyncExitStack() as stack:
        store = parts.state_store(settings, parts.Shared(settings, create=False))
        stack.push_async_callback(store.close)
        await store.open()
        await store.put_request(request)
        # Fetched, or given up: nobody else wants it.
        stack.push_async_callback(store.delete_request, request.id)
        folder = DataFolder(settings.data)
        alone = False
        try:
            folder.hold()
        except FolderInUse:
            pass  # a worker of this folder runs
        else:
            stack.callback(folder.release)
            # Of an embedded installation that says that there is none; else one may run on another machine.
            alone = settings.state is None
        console = Console(stderr=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        bar = stack.enter_context(
            Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        )
        task = bar.add_task("waiting for the worker", total=1.0)

        def show(now: Progress) -> None:
            bar.update(
                task, description=f"rebuilding {asked.rollup}, {now.events} events", completed=now.part
            )

        if not alone and (outcome := await _taken(store, request, show)):
            return outcome
        return await _over(store, request.id, show, await _work(stack, settings, group))


async def _taken(store: StateStore, ours: Request, show: Callable[[Progress], None]) -> Progress | None:
    """How it ended; None where no worker takes it in time. One that is at work for others is waited for: whoever took
    the group from it would end it."""
    loop = asyncio.get_running_loop()
    begun, seen = loop.time(), dict[str, int]()
    while True:
        requests = {each.id: each for each in await store.requests(ours.group)}
        request = requests.pop(ours.id, None)
        if request is not None and progress(request) is not None:
            return await _over(store, ours.id, show, None)
        others = {each.id: each.version for each in requests.values()}
        if others != seen:
            begun, seen = loop.time(), others
        at_work = any((now := progress(each)) is not None and not now.over for each in requests.values())
        if loop.time() - begun > (TOLD_WITHIN_S if at_work else TAKEN_WITHIN_S):
            return None
        await asyncio.sleep(LOOK_EVERY_S)


async def _over(
    store: StateStore, id: str, show: Callable[[Progress], None], failed: asyncio.Future[None] | None
) -> Progress:
    """How it ended. ``failed``: of whoever carries it out in this process."""
    while True:
        request = await store.request(id)
        now = None if request is None else progress(request)
        if now is not None:
            show(now)
            if now.over:
                return now
        if failed is not None and failed.done():
            failed.result()
        await asyncio.sleep(LOOK_EVERY_S)


async def _work(stack: AsyncExitStack, settings: Settings, group: str) -> asyncio.Future[None]:
    """Own the group, without reading on. What is returned fails where that cannot go on."""
    from cli.running import Running, opened  # the help text does not wait for Faust

    logs.configure(settings.log_format, sys.stderr, secrets=settings.secrets)
    part = await opened(stack, settings, patience=process.START_PATIENCE)
    return await Running(stack, settings, part).own(group)


def _told(asked: Rebuild, outcome: Progress) -> int:
    """Print it; returns the exit code."""
    if outcome.status == "failed":
        raise click.ClickException(outcome.said)
    for line in outcome.differences:
        click.echo(line)
    if outcome.changed > len(outcome.differences):
        click.echo(f"… and {outcome.changed - len(outcome.differences)} more")
    said = "would change" if asked.check else "changed"
    click.echo(
        f"{asked.rollup}: {outcome.events} events read, {outcome.windows} rows computed, {outcome.changed} {said}",
        err=True,
    )
    if not outcome.left_alone:
        return 0
    for line in outcome.refused[:20]:
        click.echo(f"left alone: {line}", err=True)
    raise click.ClickException(
        f"{outcome.left_alone} row(s) were left alone, the archive holds fewer events than are in them: "
        "find the archive's events, or run again with --force to take what it holds"
    )
