"""The published JSON Schemas of the canonical events, generated from the structs that read them."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.events import ANY_EVENT, EVENT_TYPES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: The name of the union of all types.
ANY = "event"


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas (2020-12) by name: one for each event type, whole in itself, and ``event`` for any."""
    schemas = {_tag(kind): _schema(kind, _tag(kind)) for kind in EVENT_TYPES}
    union = _schema(ANY_EVENT, ANY)
    union["description"] = "One canonical event of any type. Unknown members are kept and ignored."
    return {**schemas, ANY: union}


def _schema(kind: Any, name: str) -> dict[str, Any]:
    generated = msgspec.json.schema(kind)
    definitions = generated.pop("$defs", {})
    if "$ref" in generated:
        # A single struct comes as a reference to its own definition: the schema is that definition.
        generated = definitions.pop(generated["$ref"].removeprefix("#/$defs/"))
    head = {"$schema": DIALECT, "$id": f"urn:eventsink:schema:{name}"}
    tail = {"$defs": definitions} if definitions else {}
    return {**head, **generated, "title": name, **tail}


def _tag(kind: type[msgspec.Struct]) -> str:
    return str(kind.__struct_config__.tag)
