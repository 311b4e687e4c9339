"""``eventsink schema``: what an event looks like and what the routes answer, for other people's tools."""

from __future__ import annotations

import json
from pathlib import Path

import click
from msgspec.structs import fields

from cli.options import examples
from cli.tables import print_table
from schemas.events import EVENT_TYPES, Event
from schemas.published import json_schemas
from topology.errors import EventsinkError

#: As a server answers it that is not bound to a loopback address.
OPENAPI_FILE = "openapi.json"
#: Of the exchange by its usual name.
ASYNCAPI_FILE = "asyncapi.json"


@click.command(
    epilog=examples("eventsink schema --list", "eventsink schema", "eventsink schema --out schemas.d")
)
@click.option("--list", "listed", is_flag=True, help="List the types of events and their fields instead.")
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), help="Write a file for each into this folder."
)
def command(out: Path | None, *, listed: bool) -> None:
    """Print the JSON Schemas of the events.

    One for each event type and one, "event", for any of them. Without --out all go to standard output
    as one JSON object, by name. With it the OpenAPI document of the web application and the AsyncAPI
    document of the exchange are written too.
    """
    if listed:
        if out is not None:
            raise click.UsageError("--list and --out exclude one another: leave one out")
        _print_types()
        return
    schemas = json_schemas()
    if out is None:
        click.echo(_written(schemas))
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, schema in schemas.items():
            (out / f"{name}.schema.json").write_text(f"{_written(schema)}\n", encoding="utf-8")
        (out / OPENAPI_FILE).write_text(f"{_written(_openapi())}\n", encoding="utf-8")
        (out / ASYNCAPI_FILE).write_text(f"{_written(_asyncapi())}\n", encoding="utf-8")
    except OSError as error:
        raise EventsinkError(f"{out} cannot be written ({error.strerror}): name another folder") from None
    click.echo(f"{len(schemas)} schemas, {OPENAPI_FILE} and {ASYNCAPI_FILE} in {out}")


def _print_types() -> None:
    common = [field.name for field in fields(Event)]
    rows = []
    for kind in EVENT_TYPES:
        own = [each for each in fields(kind) if each.name not in common]
        said = " ".join(f"{each.name}{'' if each.required else '?'}" for each in own)
        rows.append((kind.__struct_config__.tag, said))
    print_table(
        ("type", "fields"),
        rows,
        wrap=frozenset({"fields"}),
        caption=f"?: may be left out. Every event may have {', '.join(common)}.",
        at_most=100,
    )


def _openapi() -> object:
    from agents import ROLLUPS  # the help text does not wait for the agents
    from web.openapi import document

    return document(ROLLUPS, loopback=False)


def _asyncapi() -> object:
    from web.asyncapi import document

    return document()


def _written(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)
