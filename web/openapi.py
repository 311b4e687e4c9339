"""The OpenAPI 3.1 document: all routes, with every status that they can answer.

    bodies     from the structs that read them       schemas/
    answers    from the structs in answers.py        tests hold every answer against them
    rollups    from the rollups that are declared    agents/

Nothing else is described here than what outsiders may rely on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, TypeAlias

import msgspec

from schemas import clowder1, pyclowder
from schemas.events import ANY_EVENT
from topology.log import JSON, NDJSON
from web import answers, bodies, examples
from web.documents import Described
from web.problems import PROBLEM_JSON
from web.queries import DEFAULT_EVENTS, DEFAULT_WINDOW, MAX_EVENTS

Schema: TypeAlias = dict[str, Any]

CLOUDEVENT = "application/cloudevents+json"
CLOUDEVENTS = "application/cloudevents-batch+json"
HTML, TEXT, CSV = "text/html", "text/plain", "text/csv"

_REF = "#/components/schemas/"
_ANSWERS = (
    answers.Accepted,
    answers.Rejection,
    answers.Problem,
    answers.Ready,
    answers.NotReady,
    answers.RollupList,
    answers.EventsPage,
)

#: Why each status; a route says which of them it can answer.
_WRONG = {
    400: "What was sent cannot be read: see `detail`.",
    401: "No key, or one that is unknown, revoked or expired.",
    403: "The key lacks the scope; or, for events, none of them is within it.",
    404: "There is no such rollup.",
    408: "The request did not arrive in time.",
    409: "A request with this Idempotency-Key is being worked on.",
    413: f"Over 1 MiB, as it came or inflated, or over {bodies.MAX_ITEMS} items: send it in parts.",
    415: "A content type or encoding that is not known here.",
    417: "An expectation other than 100-continue.",
    431: "The header is too large.",
    422: "Nothing was accepted: see `rejected`. Or the Idempotency-Key was used with another body.",
    429: "Too many requests with this key, or too many wrong keys from this address.",
    500: "A mistake of eventsink's.",
    503: "What is needed is away, or there are too many connections: nothing was accepted.",
}
#: To be tried again after a while, which they name.
_LATER = frozenset({409, 429, 503})
#: What any request can be answered.
_ANYWHERE = (400, 408, 417, 431, 500, 503)

_KEY: tuple[Schema, ...] = ({"bearer": []}, {"apiKey": []}, {"xApiKey": []})
#: A page of a browser asks a person, who gives the key as the password.
_READING_KEY: tuple[Schema, ...] = (*_KEY, {"basic": []})

_WHEN = {
    "type": "string",
    "description": "RFC 3339 with a zone, `now`, or a span before now: `now-1h` (ms, s, m, h, d, w).",
    "anyOf": [
        {"format": "date-time"},
        {"pattern": "^now(-[0-9]{1,4}(ms|s|m|h|d|w))?$"},
    ],
}


def document(rollups: Mapping[str, Described], *, loopback: bool) -> dict[str, Any]:
    """The whole document. ``loopback``: reading needs no key where only this machine can ask."""
    reading = [{}, *_READING_KEY] if loopback else list(_READING_KEY)
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
        "paths": {
            "/v1/events": {"post": _post_events(), "get": _get_events(reading)},
            "/service": {"post": _post_service()},
            "/v1/rollups": {"get": _get_rollups(reading)},
            "/v1/rollups/{name}": {"get": _get_rollup(rollups, reading)},
            "/healthz": {"get": _plain("isAlive", "Whether the process is alive.", TEXT)},
            "/readyz": {"get": _readyz()},
            "/metrics": {"get": _plain("getMetrics", "Metrics in the text format of Prometheus.", TEXT)},
            "/openapi.json": {"get": _openapi()},
            "/docs": {"get": _plain("getDocs", "This document as a page.", HTML)},
            "/": {"get": _page(reading)},
        },
        "components": {"schemas": _schemas(rollups), "securitySchemes": _SECURITY},
    }


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


# -- routes --


def _post_events() -> Schema:
    accepted = {
        **_content({JSON: {"schema": _ref("Accepted"), "examples": _examples(examples.ACCEPTED)}}),
        "description": "What was accepted is durable.",
        "headers": {
            "Idempotency-Replayed": _header(
                "`true`: the answer to an earlier request with the same Idempotency-Key.", {"const": "true"}
            )
        },
    }
    return {
        "operationId": "sendEvents",
        "tags": ["events"],
        "summary": "Send events.",
        "description": (
            "One event, an array, or NDJSON; CloudEvents 1.0 structured, in batches, or binary (`ce-*` headers). "
            "`Content-Encoding: gzip` is understood. Good items are taken, bad ones named in `rejected`. "
            "A key with the scope `health` alone may send `health.*` only."
        ),
        "security": list(_KEY),
        "parameters": [_IDEMPOTENCY_KEY, *_CLOUDEVENT_HEADERS],
        "requestBody": {"required": True, "content": _event_bodies()},
        "responses": {
            "202": accepted,
            **_problems(401, 403, 409, 413, 415, 422, 429, schema="Rejection"),
        },
    }


def _post_service() -> Schema:
    return {
        "operationId": "sendServiceStatus",
        "tags": ["events"],
        "summary": "Send the result of a health check, as older monitors do.",
        "security": list(_KEY),
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": _ref("ServiceBody"), "examples": _examples(examples.SERVICE)}},
        },
        "responses": {
            "202": {
                **_content({JSON: {"schema": _ref("Accepted")}}),
                "description": "What was accepted is durable.",
            },
            **_problems(401, 403, 413, 415, 422, 429, schema="Rejection"),
        },
    }


def _get_events(security: list[Schema]) -> Schema:
    return {
        "operationId": "listEvents",
        "tags": ["events"],
        "summary": "Raw events, the newest first, a page at a time.",
        "security": security,
        "parameters": [
            _query("type", "Only events of this type.", {"type": "string"}, "storage.file_uploaded"),
            *_times("Only events whose time is"),
            _query(
                "limit",
                "Events on a page.",
                {"type": "integer", "minimum": 1, "maximum": MAX_EVENTS, "default": DEFAULT_EVENTS},
            ),
            _query("cursor", "That of the page before, as it is.", {"type": "string"}),
        ],
        "responses": {"200": _ok("A page of events.", "EventsPage"), **_problems(401, 403, 429)},
    }


def _get_rollups(security: list[Schema]) -> Schema:
    return {
        "operationId": "listRollups",
        "tags": ["rollups"],
        "summary": "Which rollups there are.",
        "security": security,
        "responses": {"200": _ok("All rollups.", "RollupList"), **_problems(401, 403, 429)},
    }


def _get_rollup(rollups: Mapping[str, Described], security: list[Schema]) -> Schema:
    windows = list(dict.fromkeys(window for rollup in rollups.values() for window in rollup.windows))
    keys = list(dict.fromkeys(tag for rollup in rollups.values() for tag in rollup.key))
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": list(rollups)},
    }
    return {
        "operationId": "getRollup",
        "tags": ["rollups"],
        "summary": "Rows of a rollup, ascending by time.",
        "security": security,
        "parameters": [
            name,
            _query(
                "window",
                "Size of the windows.",
                {"type": "string", "enum": windows, "default": DEFAULT_WINDOW},
            ),
            *_times("Only windows whose start is"),
            _query(
                "format", "How to answer.", {"type": "string", "enum": ["json", "csv"], "default": "json"}
            ),
            *(
                _query(tag, f"Only rows of this {tag}: {_of(tag, rollups)}.", {"type": "string"})
                for tag in keys
            ),
        ],
        "responses": {
            "200": {
                "description": "The rows.",
                **_content(
                    {JSON: {"schema": _ref("Rollup")}, CSV: {"schema": {"type": "string"}}},
                ),
            },
            **_problems(401, 403, 404, 429),
        },
    }


def _readyz() -> Schema:
    return {
        "operationId": "isReady",
        "tags": ["operation"],
        "summary": "Whether events can be accepted.",
        "security": [],
        "responses": {"200": _ok("They can.", "Ready"), **_problems(), **_problems(503, schema="NotReady")},
    }


def _openapi() -> Schema:
    return {
        "operationId": "getOpenapi",
        "tags": ["operation"],
        "summary": "This document.",
        "security": [],
        "responses": {
            "200": {
                "description": "OpenAPI 3.1.",
                **_content({JSON: {"schema": {"type": "object", "required": ["openapi", "info", "paths"]}}}),
            },
            **_problems(),
        },
    }


def _page(security: list[Schema]) -> Schema:
    page = _plain("getPage", "A page: what there is, the latest events, how to send one.", HTML)
    return {**page, "security": security, "responses": {**page["responses"], **_problems(401, 403, 429)}}


def _plain(operation: str, summary: str, kind: str) -> Schema:
    return {
        "operationId": operation,
        "tags": ["operation"],
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": summary, **_content({kind: {"schema": {"type": "string"}}})},
            **_problems(),
        },
    }


# -- what they are made of --


def _event_bodies() -> Schema:
    return {
        JSON: {
            "schema": {
                "anyOf": [
                    _ref("Message"),
                    {"type": "array", "items": _ref("Message"), "minItems": 1, "maxItems": bodies.MAX_ITEMS},
                ]
            },
            "examples": _examples(examples.EVENTS),
        },
        NDJSON: {
            "schema": {"type": "string", "description": "A `Message` a line; blank lines are skipped."},
            "examples": _examples(examples.LINES),
        },
        CLOUDEVENT: {"schema": _ref("CloudEvent"), "examples": _examples(examples.CLOUDEVENT)},
        CLOUDEVENTS: {
            "schema": {
                "type": "array",
                "items": _ref("CloudEvent"),
                "minItems": 1,
                "maxItems": bodies.MAX_ITEMS,
            },
            "examples": _examples(examples.CLOUDEVENTS),
        },
    }


def _schemas(rollups: Mapping[str, Described]) -> Schema:
    _, answered = msgspec.json.schema_components(_ANSWERS, ref_template=f"{_REF}{{name}}")
    (event,), canonical = msgspec.json.schema_components([ANY_EVENT], ref_template=f"{_REF}{{name}}")
    event["description"] = "A canonical event. Members that are not named here are kept, and ignored."
    return {
        **answered,
        "Rollup": {"oneOf": [_ref(f"Rollup.{name}") for name in rollups]},
        **{f"Rollup.{name}": _rows(rollup) for name, rollup in rollups.items()},
        "Message": {
            "description": "An event: canonical, or a message of Clowder 1 or pyclowder as it is (v1.15.0 too).",
            "anyOf": [_ref("Event"), _ref("Clowder1Message"), _ref("PyclowderStatus")],
        },
        "Event": event,
        **canonical,
        **_foreign("Clowder1Message", clowder1.ANY_CURRENT),
        **_foreign("PyclowderStatus", pyclowder.StatusGiven),
        "CloudEvent": examples.CLOUDEVENT_SCHEMA,
        "ServiceBody": examples.SERVICE_SCHEMA,
    }


def _foreign(name: str, kind: Any) -> Schema:
    """Schemas of foreign structs, whose names could be those of ours, under names of their own."""
    (whole,), parts = msgspec.json.schema_components([kind], ref_template=f"{_REF}{name}.{{name}}")
    return {name: whole, **{f"{name}.{part}": schema for part, schema in parts.items()}}


def _rows(rollup: Described) -> Schema:
    row = {
        "type": "object",
        "properties": {
            "time": {"type": "string", "format": "date-time", "description": "Start of the window."},
            **{tag: {"type": "string"} for tag in rollup.key},
            **{field: {"type": "number"} for field in rollup.fields},
        },
        "required": ["time", *rollup.key],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "rollup": {"const": rollup.name},
            "window": {"enum": list(rollup.windows)},
            "rows": {"type": "array", "items": row},
        },
        "required": ["rollup", "window", "rows"],
    }


def _problems(*statuses: int, schema: str = "Problem") -> Schema:
    """Answers of these statuses, and of those that any route can give."""
    every = dict.fromkeys((*statuses, *_ANYWHERE))
    return {str(status): _problem(status, schema) for status in sorted(every)}


def _problem(status: int, schema: str) -> Schema:
    answer = {"description": _WRONG[status], **_content({PROBLEM_JSON: {"schema": _ref(schema)}})}
    headers = {}
    if status in _LATER:
        headers["Retry-After"] = _header("Seconds.", {"type": "integer", "minimum": 0})
    if status == 401:
        headers["WWW-Authenticate"] = _header("How to show a key.", {"type": "string"})
    return {**answer, "headers": headers} if headers else answer


def _ok(description: str, schema: str) -> Schema:
    return {"description": description, **_content({JSON: {"schema": _ref(schema)}})}


def _content(by_type: Mapping[str, Schema]) -> Schema:
    return {"content": dict(by_type)}


def _examples(named: Mapping[str, object]) -> Schema:
    return {name: {"value": value} for name, value in named.items()}


def _header(description: str, schema: Schema) -> Schema:
    return {"description": description, "schema": schema}


def _query(name: str, description: str, schema: Schema, example: str | None = None) -> Schema:
    parameter = {"name": name, "in": "query", "description": description, "schema": schema}
    return parameter if example is None else {**parameter, "example": example}


def _times(what: str) -> Iterable[Schema]:
    yield _query("since", f"{what} this or later.", _WHEN, "now-1h")
    yield _query("until", f"{what} before this.", _WHEN, "now")


def _of(tag: str, rollups: Mapping[str, Described]) -> str:
    return ", ".join(f"`{name}`" for name, rollup in rollups.items() if tag in rollup.key)


def _ref(name: str) -> Schema:
    return {"$ref": f"{_REF}{name}"}


def _request_header(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "description": description, "schema": schema}


_IDEMPOTENCY_KEY = _request_header(
    "Idempotency-Key",
    "Any text of yours. The same one with the same body gets the same answer again, for 24 hours.",
    {"type": "string", "minLength": 1, "maxLength": 255},
)
_CLOUDEVENT_HEADERS = [
    _request_header(f"ce-{name}", f"`{name}` of a CloudEvent in binary mode; its data is the body.", schema)
    for name, schema in examples.CLOUDEVENT_SCHEMA["properties"].items()
    if name in {"specversion", "id", "source", "type", "time"}
]
