"""The AsyncAPI 3.0 document: what may be published to the exchange, and what is found there.

    messages   canonical, of Clowder 1, of pyclowder, several in lines     from the structs that read them
    operations eventsink receives all of them, and sends what comes to its web application

Any producer may publish, and anybody may bind a queue of their own: events are no secret between eventsink and Clowder.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import msgspec

from schemas import clowder1, pyclowder
from schemas.events import ANY_EVENT
from topology.log import ID_HEADER, JSON, NDJSON, RECEIVED_HEADER
from web import examples
from web.openapi import foreign
from web.operations import REF, Schema, ref

EXCHANGE = "clowder.metrics"
_CHANNEL = "events"

_ABOUT = """\
Events fan out from one durable exchange into a stream, which eventsink reads and rolls up. An event is a flat JSON
object with a `type`; messages of Clowder 1 and pyclowder are read as they are. The same `source`, `id` and `time` are
the same event and count once. Bodies over 1 MiB, and what cannot be read, become dead letters."""

_MESSAGES: Mapping[str, tuple[str, str, Schema, object]] = {
    "event": ("A canonical event.", JSON, ref("Event"), examples.EVENTS["one"]),
    "clowder1": (
        "A message of Clowder 1, v1.15.0 too.",
        JSON,
        ref("Clowder1Message"),
        examples.EVENTS["Clowder 1, as it is"],
    ),
    "pyclowderStatus": (
        "A status message of pyclowder, 1.x to 3.x.",
        JSON,
        ref("PyclowderStatus"),
        None,
    ),
    "lines": (
        "Several of these, one a line.",
        NDJSON,
        {"type": "string", "description": "Blank lines are skipped."},
        examples.LINES["lines"],
    ),
}


def document(exchange: str = EXCHANGE) -> dict[str, Any]:
    """The whole document, for an exchange of this name."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "eventsink",
            "version": version("eventsink"),
            "description": _ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": JSON,
        "servers": {
            "broker": {
                "host": "{host}",
                "protocol": "amqp",
                "protocolVersion": "0-9-1",
                "description": "RabbitMQ 3.9 or later; amqps with TLS.",
                "variables": {"host": {"default": "localhost:5672", "description": "Name and port."}},
            }
        },
        "channels": {
            _CHANNEL: {
                "address": exchange,
                "title": "The exchange",
                "description": "Every queue that is bound gets every event. The routing key is of no account.",
                "servers": [{"$ref": "#/servers/broker"}],
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _MESSAGES},
                "bindings": {
                    "amqp": {
                        "is": "routingKey",
                        "exchange": {
                            "name": exchange,
                            "type": "fanout",
                            "durable": True,
                            "autoDelete": False,
                        },
                        "bindingVersion": "0.3.0",
                    }
                },
            }
        },
        "operations": {
            "receiveEvents": _operation("receive", "eventsink reads every event."),
            "sendEvents": _operation(
                "send", "The web application, `eventsink send` and `dead retry` publish what they accepted."
            ),
        },
        "components": {
            "messages": {name: _message(name, *parts) for name, parts in _MESSAGES.items()},
            "schemas": _schemas(),
        },
    }


def _operation(action: str, summary: str) -> Schema:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{_CHANNEL}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{_CHANNEL}/messages/{name}"} for name in _MESSAGES],
        "bindings": {"amqp": {"deliveryMode": 2, "bindingVersion": "0.3.0"}},
    }


def _message(name: str, summary: str, content_type: str, payload: Schema, example: object) -> Schema:
    message: Schema = {
        "name": name,
        "summary": summary,
        "contentType": content_type,
        "headers": _headers(),
        "payload": payload,
    }
    return message if example is None else {**message, "examples": [{"payload": example}]}


def _headers() -> Schema:
    return {
        "type": "object",
        "description": "Both or neither: a message that is published again with the same two is recognised.",
        "properties": {
            ID_HEADER: {"type": "string", "description": "Of our own producers: names this message."},
            RECEIVED_HEADER: {
                "type": "integer",
                "description": "Of our own producers: when it came, in epoch milliseconds.",
            },
        },
    }


def _schemas() -> Schema:
    (event,), canonical = msgspec.json.schema_components([ANY_EVENT], ref_template=f"{REF}{{name}}")
    schemas: Schema = {
        "Event": event,
        **canonical,
        **foreign("Clowder1Message", clowder1.ANY_CURRENT),
        **foreign("PyclowderStatus", pyclowder.StatusGiven),
    }
    return {name: _plain(schema) for name, schema in schemas.items()}


def _plain(value: Any) -> Any:
    """A schema of OpenAPI as AsyncAPI has it, where a discriminator is no more than a name."""
    if isinstance(value, dict):
        return {
            key: member["propertyName"]
            if key == "discriminator" and isinstance(member, dict)
            else _plain(member)
            for key, member in value.items()
        }
    return [_plain(member) for member in value] if isinstance(value, list) else value
