"""``eventsink dead``: events that could not be processed."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from cli import parts, publishing, retrying
from cli.options import TIME, epoch_ms, examples, format_option, takes_settings
from cli.retrying import Outcome
from cli.settings import Settings
from cli.tables import plain, print_csv, print_json, print_table
from schemas.times import rfc3339_with_milliseconds
from topology.errors import EventsinkError, Unavailable
from topology.log import Outgoing
from topology.position import written
from topology.sinks import DeadLetter, DeadLetters
from topology.state import GroupState

T = TypeVar("T")

REMOVED_AT_A_TIME = 1000

COLUMNS = ("id", "received", "agent", "reason", "pointer", "bytes")


@click.group(
    short_help="Show, retry or purge events that could not be processed.",
    epilog=examples(
        "eventsink dead list",
        "eventsink dead show 0-1523-4",
        "eventsink dead retry --all",
        "eventsink dead purge",
    ),
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


@command.command(epilog=examples("eventsink dead retry 0-1523-4", "eventsink dead retry --all"))
@click.argument("ids", metavar="[ID…]", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@click.option("--force", is_flag=True, help="Those too whose messages a group is still to read itself.")
@takes_settings
def retry(settings: Settings, ids: tuple[str, ...], every: bool, force: bool) -> None:
    """Publish dead letters again, with their bytes and the time at which they came.

    Worth it once this program reads what it could not read before: a letter that would be refused again is kept. One
    is forgotten only when the log has it, and one that is published twice counts once. Letters of an agent or a
    sink are kept: all others have counted the event. So are those that a group which is behind still reads by itself.
    Ends with 1 if any was kept.
    """
    if bool(ids) == every:
        raise click.UsageError("name the letters to retry, or all of them with --all")
    outcome = asyncio.run(_retry(settings, ids, force=force))
    for id_, reason in outcome.kept:
        click.echo(f"eventsink dead retry: {plain(id_)} is kept: {plain(reason)}", err=True)
    click.echo(f"published {outcome.published} again, kept {len(outcome.kept)}")
    if outcome.kept:
        raise click.exceptions.Exit(1)


async def _retry(settings: Settings, ids: Sequence[str], *, force: bool) -> Outcome:
    shared = parts.Shared(settings, create=False)
    letters = parts.dead_letters(settings, shared)
    state = parts.state_store(settings, shared)
    outcome = Outcome()
    try:
        await letters.open()
        await state.open()

        async def groups() -> Mapping[str, GroupState]:
            return {} if force else await state.read_groups()

        chosen = await _named(letters, ids) if ids else None
        log = parts.open_log(settings)
        try:
            await log.open()

            async def publish(messages: Sequence[Outgoing]) -> None:
                await publishing.publish(log, messages, waiting=_waiting)

            if chosen is not None:
                await retrying.retry(chosen, letters, await groups(), publish, outcome)
            else:
                async for page in retrying.all_letters(letters):
                    await retrying.retry(page, letters, await groups(), publish, outcome)
        finally:
            await log.close()
    finally:
        await state.close()
        await letters.close()
    return outcome


def _waiting(error: Unavailable) -> None:
    click.echo(f"eventsink dead retry: waiting for the log: {error}", err=True)


async def _named(letters: DeadLetters, ids: Sequence[str]) -> list[DeadLetter]:
    """These letters, each once. Raises before anything is done if one is not there."""
    found = []
    for id_ in dict.fromkeys(ids):
        letter = await letters.get(id_)
        if letter is None:
            raise EventsinkError(f"there is no dead letter {plain(id_)}: `eventsink dead list` shows all")
        found.append(letter)
    return found


@command.command(
    epilog=examples(
        "eventsink dead purge", "eventsink dead purge --before now-30d --yes", "eventsink dead purge 0-1523-4"
    )
)
@click.argument("ids", metavar="[ID…]", nargs=-1)
@click.option("--before", type=TIME, help="Only what came before this time.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@takes_settings
def purge(settings: Settings, ids: tuple[str, ...], before: datetime | None, yes: bool) -> None:
    """Forget dead letters, all of them unless told otherwise. There is no way back.

    Asks first; where nobody can be asked, it needs --yes. Letters that come meanwhile stay.
    """
    if ids and before is not None:
        raise click.UsageError("name the letters, or all before a time: not both")

    async def choose(letters: DeadLetters) -> list[str]:
        if ids:
            return [letter.id for letter in await _named(letters, ids)]
        bound = epoch_ms(before)
        return [
            letter.id
            async for page in retrying.all_letters(letters)
            for letter in page
            if bound is None or letter.received < bound
        ]

    chosen = asyncio.run(_with_letters(settings, choose))
    if not chosen:
        click.echo("no dead letters", err=True)
        return
    if not yes:
        if not asked_at_a_terminal():
            raise click.UsageError(f"{len(chosen)} dead letters would be gone for good: say --yes")
        click.confirm(f"Forget {len(chosen)} dead letters for good?", abort=True, err=True)

    async def remove(letters: DeadLetters) -> int:
        return sum(
            [
                await letters.remove(chosen[first : first + REMOVED_AT_A_TIME])
                for first in range(0, len(chosen), REMOVED_AT_A_TIME)
            ]
        )

    click.echo(f"purged {asyncio.run(_with_letters(settings, remove))}")


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


def asked_at_a_terminal() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin.isatty()
