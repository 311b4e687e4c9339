"""The OpenAPI 3.1 document: all routes, with every status that they can answer.

    routes     operations.py
    bodies     from the structs that read them       schemas/
    answers    from the structs in answers.py        tests hold every answer against them
    rollups    from the rollups that are declared    agents/

Nothing else is described here than what outsiders may rely on.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import msgspec

from schemas import clowder1, pyclowder
from schemas.events import ANY_EVENT
from web import answers, cloudevents, monitors, operations
from web.documents import Described
from web.operations import REF, Schema, ref
from web.overview.shapes import Overview

_ANSWERS = (
    answers.Accepted,
    answers.Rejection,
    answers.Problem,
    answers.Ready,
    answers.NotReady,
    answers.RollupList,
    answers.EventsPage,
    Overview,
)

_ABOUT = """\
An event is a flat JSON object with a `type`. The same `source`, `id` and `time` are the same event and count once.
A request that is answered with 202 is durable. Every error is a problem (RFC 9457) whose `detail` says what to do."""

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key made by `eventsink keys create`."},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "API-KEY",
        "description": "As older monitors send it.",
    },
    "xApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "For browsers: the key as the password."},
}


def document(rollups: Mapping[str, Described], *, loopback: bool) -> dict[str, Any]:
    """The whole document. ``loopback``: reading needs no key where only this machine can ask."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "eventsink",
            "version": version("eventsink"),
            "summary": "Takes the events of a Clowder installation in, and answers questions about them.",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "Where this document came from."}],
        "tags": [
            {"name": "events", "description": "In, and back out again."},
            {"name": "rollups", "description": "Numbers by window of event time."},
            {"name": "operation", "description": "For machines and browsers; no key is needed."},
        ],
        "paths": operations.paths(rollups, loopback=loopback),
        "components": {"schemas": _schemas(rollups), "securitySchemes": _SECURITY},
    }


def _schemas(rollups: Mapping[str, Described]) -> Schema:
    _, answered = msgspec.json.schema_components(_ANSWERS, ref_template=f"{REF}{{name}}")
    (event,), canonical = msgspec.json.schema_components([ANY_EVENT], ref_template=f"{REF}{{name}}")
    event["description"] = "A canonical event. Members that are not named here are kept, and ignored."
    return {
        **answered,
        "Rollup": {"oneOf": [ref(f"Rollup.{name}") for name in rollups]},
        **{f"Rollup.{name}": _rows(rollup) for name, rollup in rollups.items()},
        "Message": {
            "description": "An event: canonical, or a message of Clowder 1 or pyclowder as it is (v1.15.0 too).",
            "anyOf": [ref("Event"), ref("Clowder1Message"), ref("PyclowderStatus")],
        },
        "Event": event,
        **canonical,
        **foreign("Clowder1Message", clowder1.ANY_CURRENT),
        **foreign("PyclowderStatus", pyclowder.StatusGiven),
        "CloudEvent": _cloudevent(),
        "ServiceBody": {"anyOf": [ref("ServiceReport"), ref("ServiceMeasurement")]},
        **foreign("ServiceReport", monitors.Report),
        **foreign("ServiceMeasurement", monitors.Measurement),
    }


def foreign(name: str, kind: Any) -> Schema:
    """Schemas of foreign structs, whose names could be those of ours, under names of their own."""
    (whole,), parts = msgspec.json.schema_components([kind], ref_template=f"{REF}{name}.{{name}}")
    schemas = {f"{name}.{part}": schema for part, schema in parts.items()}
    # A single struct comes as a reference to its own definition: the schema is that definition.
    own = whole.get("$ref", "").removeprefix(REF)
    return {name: schemas.pop(own, whole), **schemas}


def _cloudevent() -> Schema:
    schema: Schema = foreign("CloudEvent", cloudevents.Context)["CloudEvent"]
    data = {
        "data": {"description": "The members of the event; or an event, or a foreign message, as it is."},
        "data_base64": {"type": "string", "contentEncoding": "base64"},
    }
    description = (
        "CloudEvents 1.0: `type`, `source`, `id` and `time` are those of the event; others are kept."
    )
    return {**schema, "description": description, "properties": {**schema["properties"], **data}}


def _rows(rollup: Described) -> Schema:
    row = {
        "type": "object",
        "properties": {
            "time": {"type": "string", "format": "date-time", "description": "Start of the window."},
            **{tag: {"type": "string"} for tag in rollup.key},
            **{field: {"type": ["number", "null"]} for field in rollup.fields},
        },
        "required": ["time"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "rollup": {"const": rollup.name},
            "window": {"enum": list(rollup.windows)},
            "rows": {"type": "array", "items": row},
            "cursor": {
                "type": ["string", "null"],
                "description": "With `limit`: asks for the rows after these; null: there are no more.",
            },
            "left_out": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Fields that cannot be had of rows taken together, each with why.",
            },
        },
        "required": ["rollup", "window", "rows"],
    }
