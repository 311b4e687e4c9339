"""``eventsink check``: whether everything that is set can be used."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import click

from cli import forwarders, parts
from cli.options import examples, takes_settings
from cli.settings import MongoSettings, Settings, TlsSettings
from cli.settings_sources import MEANINGS
from cli.tables import print_table
from cli.tls import context_of
from topology.errors import EventsinkError, Unavailable
from topology.forwarding.forwarder import Forwarding
from topology.log import LogStart
from topology.sqlite.file import Database
from web.keys import Keys

#: Seconds. A server that does not answer in this time is away, for a person who waits.
ANSWER_WITHIN_S = 10.0


class Finding(NamedTuple):
    """What became of one part. ``failed`` is the line for stderr, None if all is well."""

    part: str
    where: str
    answer: str
    failed: str | None = None


@click.command(
    epilog=examples("eventsink check", "eventsink check --settings eventsink.toml")
    + "\n\n\b\nSettings:\n"
    + "\n".join(f"  {name:<29}  {meaning}" for name, meaning in MEANINGS.items())
)
@takes_settings
def command(settings: Settings) -> int:
    """Check the settings, reach every server, say what would be done.

    Starts nothing and declares nothing; an empty MongoDB database is marked as ours. Ends with 1 if
    something that is set cannot be used. Settings are environment variables, or the same names in a
    TOML file.
    """
    findings = asyncio.run(_findings(settings))
    print_table(
        ("part", "where", "answer"),
        [(each.part, each.where, "FAILED" if each.failed else each.answer) for each in findings],
        wrap=frozenset({"where", "answer"}),
    )
    failed = [each.failed for each in findings if each.failed is not None]
    for line in failed:
        click.echo(f"eventsink: {' '.join(line.split())}", err=True)
    if not failed:
        for line in _plan(settings):
            click.echo(line)
    return 1 if failed else 0


async def _findings(settings: Settings) -> list[Finding]:
    log, influx, mongo, state = settings.log, settings.influx, settings.mongo, settings.state
    embedded = str(settings.database_file)
    tls = settings.web.tls
    return list(
        await asyncio.gather(
            _finding("data folder", str(settings.data), lambda: asyncio.to_thread(_folder, settings.data)),
            _finding("log", str(log.url), lambda: _file(log.url.path))
            if log.embedded
            else _finding("log", str(log.url), lambda: _stream(settings), silent=_silent_broker()),
            _finding(
                "rollups",
                embedded if influx is None else f"{influx.url} bucket {influx.bucket}",
                lambda: _file(settings.database_file) if influx is None else _influx(settings),
            ),
            _finding(
                "raw events",
                embedded if mongo is None else f"{mongo.url} database {mongo.database}",
                lambda: _raw_events(settings),
            ),
            _finding(
                "state",
                str(settings.state_file) if state is None else f"{state.url} database {state.database}",
                lambda: _file(settings.state_file) if state is None else _mongo(settings, state),
            ),
            _finding("keys", str(settings.keys_file), lambda: asyncio.to_thread(_keys, settings)),
            *([] if tls is None else [_finding("TLS", str(tls.cert), lambda: asyncio.to_thread(_tls, tls))]),
        )
    )


def _silent_broker() -> str:
    from topology.rabbitmq.connection import SILENT  # an embedded log does not wait for aio-pika

    return SILENT


async def _finding(
    part: str, where: str, look: Callable[[], Awaitable[str]], *, silent: str = "is it running?"
) -> Finding:
    """``silent``: what to look at where no answer comes."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return Finding(part, where, await look())
    except EventsinkError as error:
        return Finding(part, where, "", f"{part}: {error}")
    except TimeoutError:
        return Finding(
            part, where, "", f"{part}: {where} does not answer within {ANSWER_WITHIN_S:.0f} s: {silent}"
        )


def _folder(folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise Unavailable(
            f"{there} takes no files: mend its permissions or choose another folder with --data"
        )
    return "ok" if there == folder else "would be made"


async def _file(path: Path) -> str:
    if not await asyncio.to_thread(path.exists):
        await asyncio.to_thread(_folder, path.parent)
        return "embedded, would be made"
    database = Database(path, create=False)
    await database.open()
    await database.close()
    return "embedded, ok"


async def _stream(settings: Settings) -> str:
    from topology.rabbitmq.connection import Broker, end
    from topology.rabbitmq.declarer import Declarer, FanoutExchange, LogDeclaration, StreamQueue

    log = settings.log
    queue = StreamQueue(log.queue, log.max_age, log.max_bytes)
    broker = Broker(log.url.reveal())
    connection = await broker.connect("check")
    try:
        there = await Declarer(broker, LogDeclaration(FanoutExchange(log.exchange), queue)).present(
            connection
        )
        broker_is = str(connection.features)
    finally:
        await end(connection)
    return f"reached {broker_is}; stream {log.queue} {'is there' if there else 'would be declared'}"


async def _influx(settings: Settings) -> str:
    sink = parts.rollup_sink(settings)
    try:
        await sink.open()
    finally:
        await sink.close()
    return "reached"


async def _mongo(settings: Settings, where: MongoSettings) -> str:
    mongo = parts.Shared(settings).mongo(where)
    try:
        await mongo.open()
    finally:
        await mongo.close()
    return "reached"


async def _raw_events(settings: Settings) -> str:
    """Also how many dead letters lie beside them: events that could not be processed, and points that a sink
    refused for good."""
    if settings.mongo is not None:
        reached = await _mongo(settings, settings.mongo)
    else:
        reached = await _file(settings.database_file)
        if not await asyncio.to_thread(settings.database_file.exists):
            return reached
    shared = parts.Shared(settings, create=False)
    letters = parts.dead_letters(settings, shared)
    connection = shared.database() if settings.mongo is None else shared.mongo(settings.mongo)
    await connection.open()
    try:
        count = await letters.count()
    finally:
        await connection.close()
    return f"{reached}, {count} dead letters: eventsink dead list" if count else reached


def _keys(settings: Settings) -> str:
    keys = Keys(settings.keys_file).list()
    return f"{len(keys)} key{'' if len(keys) == 1 else 's'}" if keys else "none yet: eventsink keys create"


def _tls(tls: TlsSettings) -> str:
    context_of(tls)
    return "a certificate and its key"


def _start(start: LogStart) -> str:
    return start if isinstance(start, str) else f"what arrived from {start:%Y-%m-%d %H:%M:%S} UTC on"


def _plan(settings: Settings) -> list[str]:
    log = settings.log
    kept = f"{log.max_age}, at most {log.max_bytes / 1e9:,.3g} GB"
    source = "the embedded log" if log.embedded else f"exchange {log.exchange} by way of stream {log.queue}"
    days = settings.keep.total_seconds() / 86_400
    rollups = "the embedded store" if settings.influx is None else "InfluxDB"
    raw_events = "the embedded store" if settings.mongo is None else "MongoDB"
    lines = [
        f"`eventsink up` would read {source} (kept {kept}),",
        f"write rollups to {rollups} and raw events to {raw_events},",
        f"and let an event correct its window for {days:,.6g} days.",
    ]
    if log.start != "first":
        lines.append(
            f"A group without a saved position would begin at EVENTSINK_LOG_START: {_start(log.start)}."
        )
    for agent, forwarding in forwarders.forwardings(settings).items():
        lines.append(f"Agent {agent} would send to {forwarding.vendor.where}:")
        lines += _selected(forwarding)
    return lines


def _selected(forwarding: Forwarding) -> list[str]:
    """A line for each family of types, and for each share of the users where those differ."""
    found: dict[tuple[str, float], list[str]] = {}
    for name, share in forwarding.selection.types():
        family, _, kind = name.partition(".")
        found.setdefault((family, share), []).append(kind)
    return [
        f"  {f'{family}.':<12}{', '.join(kinds)}"
        + ("" if share == 1.0 else f" (of {share:.3%} of the users)".replace(".000%", "%"))
        for (family, share), kinds in found.items()
    ]
