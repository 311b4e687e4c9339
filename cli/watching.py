"""Tables on the screen, once or again and again (``--watch``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias, TypeVar

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cli.tables import made_table, print_table, room_of_a_pager

P = ParamSpec("P")
R = TypeVar("R")

EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tabular:
    """A table, as ``tables.print_table`` takes it. ``ends``: its last rows matter most, else its first."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    right: frozenset[str] = frozenset()
    wrap: frozenset[str] = frozenset()
    gather: str | None = None
    caption: str | None = None
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """In place of a table: why there is none, and what to do."""

    said: str


Shown: TypeAlias = Tabular | Nothing


def nothing(what: str, *, ranged: bool) -> Nothing:
    """There are none of ``what``. ``ranged``: not of all that is kept, but in a range that somebody chose."""
    where = "in this range: try another --since or --until" if ranged else "yet"
    return Nothing(
        f"no {what} {where}{';' if ranged else ':'} what was sent is here a second later, while `eventsink up` or "
        "`worker` runs"
    )


def option(command: Callable[P, R]) -> Callable[P, R]:
    """``--watch``."""
    return click.option(
        "--watch", is_flag=True, help=f"Show it again every {EVERY_S:g} s, until interrupted."
    )(command)


def is_terminal() -> bool:
    """Whether stdout is one."""
    return Console().is_terminal


def show(
    made: Callable[[], Awaitable[Shown]],
    *,
    watch: bool,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Show what ``made`` gives: once on stdout, or on the terminal until interrupted, which is how it ends."""
    if not watch:
        asyncio.run(_once(made))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        raise click.UsageError("--watch needs a terminal: leave it out, or use --format json")
    try:
        asyncio.run(_again(made, console, sleep))
    except KeyboardInterrupt:
        pass  # the one way to leave


async def _once(made: Callable[[], Awaitable[Shown]]) -> None:
    shown = await made()
    if isinstance(shown, Nothing):
        click.echo(shown.said, err=True)
        return
    print_table(
        shown.columns,
        shown.rows,
        right=shown.right,
        wrap=shown.wrap,
        gather=shown.gather,
        caption=shown.caption,
        at_most=room_of_a_pager(),
    )


async def _again(
    made: Callable[[], Awaitable[Shown]], console: Console, sleep: Callable[[float], Awaitable[None]]
) -> None:
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(_drawn(await made(), console), refresh=True)
            await sleep(EVERY_S)


def _drawn(shown: Shown, console: Console) -> Any:
    if isinstance(shown, Nothing):
        return Text(shown.said)
    room = max(1, console.height - 4)
    table, _ = made_table(
        shown.columns,
        shown.rows[-room:] if shown.ends else shown.rows[:room],
        console.width,
        right=shown.right,
        wrap=shown.wrap,
        gather=shown.gather,
    )
    return Group(table, Text(shown.caption or "", style="dim"))
