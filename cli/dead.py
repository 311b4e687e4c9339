"""``eventsink dead``: events that could not be processed."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from cli import parts
from cli.options import examples, format_option, takes_settings
from cli.settings import Settings
from cli.tables import plain, print_csv, print_json, print_table
from schemas.times import rfc3339_with_milliseconds
from topology.errors import EventsinkError
from topology.position import written
from topology.sinks import DeadLetter, DeadLetters

T = TypeVar("T")

COLUMNS = ("id", "received", "agent", "reason", "pointer", "bytes")


@click.group(
    short_help="Show events that could not be processed.",
    epilog=examples("eventsink dead list", "eventsink dead show 0-1523-4"),
)
def command() -> None:
    """Events that could not be processed, with their bytes and the reason.

    Nothing is lost by being here: everything after them went on.
    """


@command.command(
    "list", epilog=examples("eventsink dead list", "eventsink dead list --format json --limit 1000")
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=100,
    show_default=True,
    help="At most this many.",
)
@format_option
@takes_settings
def list_(settings: Settings, limit: int, form: str) -> None:
    """Show dead letters, the newest first."""

    async def read(letters: DeadLetters) -> tuple[list[DeadLetter], int]:
        return list(await letters.list(limit=limit)), await letters.count()

    letters, count = asyncio.run(_with_letters(settings, read))
    if form == "json":
        print_json({"dead": [_summary(letter) for letter in letters], "count": count})
    elif form == "csv":
        print_csv(COLUMNS, [tuple(_summary(letter).values()) for letter in letters])
    elif not letters:
        click.echo("no dead letters", err=True)
    else:
        more = f"{count - len(letters):,} older ones: --limit" if count > len(letters) else None
        print_table(
            COLUMNS,
            [tuple(_summary(letter).values()) for letter in letters],
            right=frozenset({"bytes"}),
            wrap=frozenset({"reason"}),
            caption=more,
        )


@command.command(
    epilog=examples("eventsink dead show 0-1523-4", "eventsink dead show 0-1523-4 --body > event.json")
)
@click.argument("id_", metavar="ID")
@click.option("--body", "body_only", is_flag=True, help="Print the bytes as they came and nothing else.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print.",
)
@takes_settings
def show(settings: Settings, id_: str, body_only: bool, form: str) -> None:
    """Show one dead letter with its body; ID is from `eventsink dead list`."""

    async def read(letters: DeadLetters) -> DeadLetter | None:
        return await letters.get(id_)

    letter = asyncio.run(_with_letters(settings, read))
    if letter is None:
        raise EventsinkError(f"there is no dead letter {plain(id_)}: `eventsink dead list` shows all")
    if body_only:
        sys.stdout.buffer.write(letter.body)
        sys.stdout.buffer.flush()
    elif form == "json":
        print_json(
            {
                **_summary(letter),
                "position": written(letter.position),
                "sha256": letter.sha256,
                **_body(letter),
            }
        )
    else:
        _print_letter(letter)


def _print_letter(letter: DeadLetter) -> None:
    facts = {
        **_summary(letter),
        "bytes": f"{letter.length:,}",
        "position": written(letter.position),
        "sha256": letter.sha256,
    }
    for name, value in facts.items():
        if value != "":
            click.echo(f"{name:<9} {plain(str(value))}")
    kept = len(letter.body)
    click.echo("" if kept == letter.length else f"\nthe first {kept:,} bytes:")
    text = letter.body.decode(errors="backslashreplace")
    for line in text.split("\n"):
        click.echo(plain(line.removesuffix("\r")))


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "received": rfc3339_with_milliseconds(letter.received),
        "agent": letter.agent,
        "reason": letter.reason,
        "pointer": letter.pointer,
        "bytes": letter.length,
    }


def _body(letter: DeadLetter) -> dict[str, str]:
    try:
        return {"body": letter.body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(letter.body).decode()}


async def _with_letters(settings: Settings, act: Callable[[DeadLetters], Awaitable[T]]) -> T:
    letters = parts.dead_letters(settings, parts.Shared(settings, create=False))
    try:
        await letters.open()
        return await act(letters)
    finally:
        await letters.close()
