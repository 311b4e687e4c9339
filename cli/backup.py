"""``eventsink backup``: the data folder as it is at one moment, while everything runs."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click

from cli.options import examples, takes_settings
from cli.settings import Settings
from topology.errors import EventsinkError

#: Beside the name of the folder until it is whole.
PARTIAL = ".partial"


@click.command(
    short_help="Copy the data folder, while everything runs.",
    epilog=examples(
        "eventsink backup /backup/2026-01-31", "eventsink backup --data /var/lib/eventsink /backup/2026-01-31"
    ),
)
@click.argument("folder", type=click.Path(path_type=Path))
@takes_settings
def command(settings: Settings, folder: Path) -> None:
    """Copy what is in the data folder into the new folder FOLDER, while everything runs.

    Log, raw events, rollups and positions are one file, copied as it is at one moment: what comes back has each event
    once. Positions that are in a file of their own are copied before it, so that they are never ahead of the log. To
    restore, stop what runs on the data folder and put the backup in its place. Keys go along.
    """
    for file in copied(settings, folder):
        click.echo(f"{file.name}  {file.stat().st_size} bytes")
    click.echo(
        f"the backup is in {folder}: to restore, stop eventsink and put it in place of {settings.data}"
    )
    if settings.state is None and settings.state_file.absolute().parent != settings.data.absolute():
        click.echo(f"{settings.state_file.name} of it goes to {settings.state_file}")
    servers = [
        name
        for name, elsewhere in (
            ("RabbitMQ", not settings.log.embedded),
            ("InfluxDB", settings.influx is not None),
            ("MongoDB", settings.mongo is not None or settings.state is not None),
        )
        if elsewhere
    ]
    if servers:
        click.echo(
            f"not in it: what is in {', '.join(servers)}; back that up with each server's own tools", err=True
        )
    if settings.state is not None and settings.database_file.exists():
        click.echo(
            "positions are in MongoDB: a dump of it has to be older than this backup, and made while no worker runs; "
            "with positions ahead of what is here, events would count twice or never",
            err=True,
        )


def copied(settings: Settings, folder: Path) -> list[Path]:
    """Make ``folder`` and return its files. It is there whole or not at all. Raises ``EventsinkError``."""
    if folder.exists():
        raise EventsinkError(f"{folder} is there already: name a folder that is not")
    databases = [file for file in _databases(settings) if file.exists()]
    if len({file.name for file in databases}) < len(databases):
        raise EventsinkError(
            f"the positions in {settings.state_file} have the name of another file: name theirs otherwise "
            "(EVENTSINK_STATE_URL)"
        )
    others = [file for file in _others(settings) if file.exists()]
    if not databases and not others:
        raise EventsinkError(f"nothing is in {settings.data}: name the data folder with --data")
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)  # of a backup that was cut off
    try:
        partial.mkdir(mode=0o700, parents=True)
        for database in databases:
            _copy_database(database, partial / database.name)
        for other in others:
            shutil.copyfile(other, partial / other.name)
        for file in partial.iterdir():
            file.chmod(0o600)
            _sync(file)
        partial.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        raise EventsinkError(f"{folder} cannot be written ({error.strerror}): choose another place") from None
    except sqlite3.Error as error:
        raise EventsinkError(f"the data folder cannot be copied ({error}): is the disk full?") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(folder.iterdir())


def _databases(settings: Settings) -> Iterator[Path]:
    """In the order of copying: what tells how far something came, before that something. Positions that are behind the
    log are read on from; ahead of its end, they would be those of another log. An answered request whose events
    are not there would lose them when it comes again."""
    yield from dict.fromkeys(
        (settings.requests_file, settings.state_file, settings.database_file, settings.spool_file)
    )


def _others(settings: Settings) -> Iterator[Path]:
    """Files that are put in place whole, so that a plain copy is one of a moment."""
    yield settings.keys_file
    yield settings.keys_file.with_suffix(".used.json")


def _copy_database(source: Path, target: Path) -> None:
    """All pages in one step: one read transaction, which a writer neither disturbs nor waits for (WAL)."""
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as theirs,
        closing(sqlite3.connect(target)) as ours,
    ):
        theirs.backup(ours, pages=-1)
        (found,) = ours.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"{source} is damaged: {found}")


def _sync(path: Path) -> None:
    """Onto the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
