"""``eventsink schema``: what an event looks like and what the routes answer, for other people's tools."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cli.options import examples
from schemas.published import json_schemas
from topology.errors import EventsinkError

#: As a server answers it that is not bound to a loopback address.
OPENAPI_FILE = "openapi.json"


@click.command(epilog=examples("eventsink schema", "eventsink schema --out schemas.d"))
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), help="Write a file for each into this folder."
)
def command(out: Path | None) -> None:
    """Print the JSON Schemas of the events.

    One for each event type and one, "event", for any of them. Without --out all go to standard output
    as one JSON object, by name. With it the OpenAPI document of the web application is written too.
    """
    schemas = json_schemas()
    if out is None:
        click.echo(_written(schemas))
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, schema in schemas.items():
            (out / f"{name}.schema.json").write_text(f"{_written(schema)}\n", encoding="utf-8")
        (out / OPENAPI_FILE).write_text(f"{_written(_openapi())}\n", encoding="utf-8")
    except OSError as error:
        raise EventsinkError(f"{out} cannot be written ({error.strerror}): name another folder") from None
    click.echo(f"{len(schemas)} schemas and {OPENAPI_FILE} in {out}")


def _openapi() -> object:
    from agents import ROLLUPS  # the help text does not wait for the agents
    from web.openapi import document

    return document(ROLLUPS, loopback=False)


def _written(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)
