"""``eventsink keys``: API keys of the web application."""

from __future__ import annotations

import time
from datetime import datetime

import click

from cli import data_folder
from cli.options import TIME, epoch_ms, examples, takes_settings
from cli.settings import Settings
from cli.tables import print_table
from schemas.times import rfc3339
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


@click.group(epilog=examples("eventsink keys create --name report --scopes read", "eventsink keys list"))
def command() -> None:
    """API keys of the web application.

    A key is shown once, when it is made; the file keeps its hash only. A running `up` or `web`
    sees each change at once.
    """


@command.command(
    epilog=examples(
        "eventsink keys create --name monitor-eu --scopes health",
        "eventsink keys create --name report --scopes read --expires 2027-01-01T00:00:00Z",
    )
)
@click.option("--name", required=True, metavar="N", help="What to call it: letters, digits and . _ -")
@click.option(
    "--scopes",
    required=True,
    type=Scopes(),
    help="What it may do: events, health, read; several with commas.",
)
@click.option("--expires", type=TIME, help="Until when it holds.  [default: for ever]")
@takes_settings
def create(settings: Settings, name: str, scopes: tuple[str, ...], expires: datetime | None) -> None:
    """Make a key and print it, the only time it can be seen."""
    until = epoch_ms(expires)
    if until is not None and until <= _now_ms():
        raise click.BadParameter("lies in the past", param_hint="--expires")
    data_folder.make(settings.keys_file.parent)
    try:
        secret = Keys(settings.keys_file).create(name, scopes, until)
    except ValueError as error:
        raise EventsinkError(str(error)) from None
    click.echo(secret)
    click.echo(f"key {name} is in {settings.keys_file}; the line above is not kept: copy it now", err=True)


@command.command("list", epilog=examples("eventsink keys list"))
@takes_settings
def list_(settings: Settings) -> None:
    """Show names, scopes and expiry of all keys."""
    keys = Keys(settings.keys_file).list()
    if not keys:
        click.echo("no keys; make one with: eventsink keys create --name N --scopes events,read", err=True)
        return
    print_table(
        ("name", "scopes", "expires"), [(key.name, ",".join(key.scopes), _expiry(key)) for key in keys]
    )


@command.command(epilog=examples("eventsink keys revoke monitor-eu"))
@click.argument("name")
@takes_settings
def revoke(settings: Settings, name: str) -> None:
    """Forget a key; whoever has it is let in no more."""
    if not Keys(settings.keys_file).revoke(name):
        raise EventsinkError(f"there is no key {name}: `eventsink keys list` shows all")
    click.echo(f"revoked {name}")


def _expiry(key: Key) -> str:
    if key.expires is None:
        return "never"
    return f"{rfc3339(key.expires)} (expired)" if key.expires <= _now_ms() else rfc3339(key.expires)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
