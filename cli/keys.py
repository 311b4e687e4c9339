"""``eventsink keys``: API keys of the web application."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from cli import data_folder
from cli.options import examples, takes_settings
from cli.settings import Settings
from cli.tables import print_table
from schemas.times import from_person, rfc3339
from topology.errors import EventsinkError
from web.keys import SCOPES, Key, Keys


class Scopes(click.ParamType):
    """``events,read``."""

    name = "a,b"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        scopes = tuple(scope.strip() for scope in str(value).split(",") if scope.strip())
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            self.fail(
                f"{', '.join(unknown) or 'nothing'} is no scope: choose of {', '.join(SCOPES)}", param, ctx
            )
        return scopes


class Expiry(click.ParamType):
    """A time to come."""

    name = "T"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text, now = str(value), datetime.now(UTC)
        until = from_person(text)
        if until is None:
            self.fail(
                f"{text[:40]!r} is no time to come: use a date or RFC 3339 ({now.year + 1}-01-01T00:00:00Z)",
                param,
                ctx,
            )
        if until <= _now_ms():
            self.fail(f"{text[:40]} lies in the past", param, ctx)
        return until


@click.group(epilog=examples("eventsink keys create --name report --scopes read", "eventsink keys list"))
def command() -> None:
    """API keys of the web application.

    A key is shown once, when it is made; the file keeps its hash only. A running `up` or `web`
    sees each change at once.

    To replace a key without a gap: `create` with the same name makes a second one, and once nobody
    uses the first any more, `revoke NAME --oldest` ends it.
    """


@command.command(
    epilog=examples(
        "eventsink keys create --name monitor-eu --scopes health",
        "eventsink keys create --name report --scopes read --expires 2027-01-01",
    )
)
@click.option("--name", required=True, metavar="N", help="What to call it: letters, digits and . _ -")
@click.option(
    "--scopes",
    type=Scopes(),
    help="What it may do: events, health, read; several with commas.  [default: as the live key of this name]",
)
@click.option(
    "--expires",
    type=Expiry(),
    help="Until when it holds: a date (its midnight UTC) or RFC 3339.  [default: for ever]",
)
@takes_settings
def create(settings: Settings, name: str, scopes: tuple[str, ...] | None, expires: int | None) -> None:
    """Make a key and print it, the only time it can be seen.

    A name may have two live keys, one to follow the other.
    """
    now = _now_ms()
    data_folder.make(settings.keys_file.parent)
    keys = Keys(settings.keys_file)
    try:
        secret = keys.create(name, scopes or (), expires, now=now)
    except ValueError as error:
        raise EventsinkError(str(error)) from None
    click.echo(secret)
    click.echo(f"key {name} is in {settings.keys_file}; the line above is not kept: copy it now", err=True)
    if sum(key.name == name and key.lives(now) for key in keys.list()) > 1:
        click.echo(
            f"{name} has two live keys now; once only the new one is used: eventsink keys revoke {name} --oldest",
            err=True,
        )


@command.command("list", epilog=examples("eventsink keys list"))
@takes_settings
def list_(settings: Settings) -> None:
    """Show all keys: what they may do, until when they hold, when they were last used.

    The last use is up to a minute behind.
    """
    file = Keys(settings.keys_file)
    keys = file.list()
    if not keys:
        click.echo("no keys; make one with: eventsink keys create --name N --scopes events,read", err=True)
        return
    used = file.last_used.read()
    print_table(
        ("name", "id", "scopes", "created", "expires", "last used"),
        [
            (
                key.name,
                key.id,
                ",".join(key.scopes),
                "" if key.created is None else rfc3339(key.created),
                _expiry(key),
                rfc3339(used[key.sha256]) if key.sha256 in used else "never",
            )
            for key in keys
        ],
    )


@command.command(
    epilog=examples("eventsink keys revoke monitor-eu", "eventsink keys revoke monitor-eu --oldest")
)
@click.argument("name", metavar="NAME|ID")
@click.option("--oldest", is_flag=True, help="Of two live keys of this name, the older one only.")
@takes_settings
def revoke(settings: Settings, name: str, oldest: bool) -> None:
    """Forget the keys of a name, or the one with an id; whoever has them is let in no more."""
    keys = Keys(settings.keys_file)
    if oldest:
        try:
            gone: Sequence[Key] = [keys.revoke_oldest(name, now=_now_ms())]
        except ValueError as error:
            raise EventsinkError(str(error)) from None
    else:
        gone = keys.revoke(name)
    if not gone:
        raise EventsinkError(f"there is no key {name}: `eventsink keys list` shows all")
    click.echo(f"revoked {', '.join(f'{key.name} ({key.id})' for key in gone)}")


def _expiry(key: Key) -> str:
    if key.expires is None:
        return "never"
    return rfc3339(key.expires) + ("" if key.lives(_now_ms()) else " (expired)")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
