"""The operations of the OpenAPI document: each route with its parameters, bodies, and every status it can answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from topology.log import JSON, NDJSON
from web import bodies, cloudevents, examples, formats, rows
from web.cloudevents import BATCH, HEADER_PREFIX, STRUCTURED
from web.documents import Described
from web.idempotency import HEADER, MAX_KEY_CHARACTERS, REPLAYED_HEADER
from web.overview.route import EVENT_STREAM
from web.overview.spans import DEFAULT_RANGE, RANGES
from web.problems import PROBLEM_JSON
from web.queries import DEFAULT_EVENTS, DEFAULT_WINDOW, FILLS, MAX_EVENTS

Schema: TypeAlias = dict[str, Any]

HTML, TEXT = "text/html", "text/plain"
REF = "#/components/schemas/"

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
    501: "A library that the format needs is not installed.",
    503: "What is needed is away, or there are too many connections: nothing was accepted.",
}
#: To be tried again after a while, which they name.
_LATER = frozenset({409, 429, 503})
#: What any request can be answered.
_ANYWHERE = (400, 408, 417, 431, 500, 503)

_KEY: tuple[Schema, ...] = ({"bearer": []}, {"apiKey": []}, {"xApiKey": []})
#: A page of a browser asks a person, who gives the key as the password.
_READING_KEY: tuple[Schema, ...] = (*_KEY, {"basic": []})

_REPLAYED: Schema = {
    REPLAYED_HEADER: {
        "description": "`true`: the answer to an earlier request with the same Idempotency-Key.",
        "schema": {"const": "true"},
    }
}

_WHEN = {
    "type": "string",
    "description": "RFC 3339 with a zone, a date (its midnight in UTC), `now`, or a span before now: `now-1h` "
    "(ms, s, m, h, d, w).",
    "anyOf": [
        {"format": "date-time"},
        {"format": "date"},
        {"pattern": "^now(-[0-9]{1,4}(ms|s|m|h|d|w))?$"},
    ],
}


def paths(rollups: Mapping[str, Described], *, loopback: bool) -> Schema:
    """All paths. ``loopback``: reading needs no key where only this machine can ask."""
    reading = [{}, *_READING_KEY] if loopback else list(_READING_KEY)
    return {
        "/v1/events": {"post": _post_events(), "get": _get_events(reading)},
        "/service": {"post": _post_service()},
        "/v1/rollups": {"get": _get_rollups(reading)},
        "/v1/rollups/{name}": {"get": _get_rollup(rollups, reading)},
        "/v1/overview": {"get": _get_overview(reading)},
        "/healthz": {"get": _plain("isAlive", "Whether the process is alive.", TEXT)},
        "/readyz": {"get": _readyz()},
        "/metrics": {"get": _plain("getMetrics", "Metrics in the text format of Prometheus.", TEXT)},
        "/openapi.json": {"get": _openapi()},
        "/docs": {"get": _plain("getDocs", "This document as a page.", HTML)},
        "/": {"get": _page(reading)},
    }


def _post_events() -> Schema:
    accepted = {
        **_content({JSON: {"schema": ref("Accepted"), "examples": _examples(examples.ACCEPTED)}}),
        "description": "What was accepted is durable.",
        "headers": _REPLAYED,
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
        "parameters": [_IDEMPOTENCY_KEY],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": ref("ServiceBody"), "examples": _examples(examples.SERVICE)}},
        },
        "responses": {
            "202": {
                **_content({JSON: {"schema": ref("Accepted")}}),
                "description": "What was accepted is durable.",
                "headers": _REPLAYED,
            },
            **_problems(401, 403, 409, 413, 415, 422, 429, schema="Rejection"),
        },
    }


def _get_events(security: list[Schema]) -> Schema:
    return {
        "operationId": "listEvents",
        "tags": ["events"],
        "summary": "Raw events, the newest first, a page at a time.",
        "security": security,
        "parameters": [
            _query(
                "type",
                "Only events of this type, or of one of several; `health.*` means all that begin so.",
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "storage.file_uploaded",
            ),
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
        "description": (
            "Rows may be taken together over tags (`group_by`) and over time (`total`). Sums add up, of the least the "
            "least counts and of the most the most, and `uptime_ratio` and `coverage` are made anew of seconds. "
            "Quantiles, means and `unique_users` cannot be had of stored values: they are left out, `left_out` says "
            "why, and asking for one of them is an error. Over `region` the quorum `all` is left out; asked for "
            "beside other regions it is an error. "
            f"At most {rows.MAX_ROWS} rows without `limit`, made of at most {rows.MAX_GROUPED} that are taken together."
        ),
        "security": security,
        "parameters": [name, *_rollup_parameters(rollups), _IF_NONE_MATCH],
        "responses": {
            "200": {
                "description": "The rows.",
                "headers": {**_CACHING, "Link": _header('`rel="next"`: the next page.', {"type": "string"})},
                **_content(
                    {
                        JSON: {"schema": ref("Rollup")},
                        formats.CSV: {"schema": {"type": "string"}},
                        NDJSON: {"schema": {"type": "string", "description": "A row a line."}},
                        formats.PARQUET: {"schema": {"description": "One row group."}},
                        formats.ARROW: {"schema": {"description": "An IPC stream of one table."}},
                    },
                ),
            },
            "304": {"description": "The answer is the one that you have.", "headers": _CACHING},
            **_problems(401, 403, 404, 429, 501),
        },
    }


def _rollup_parameters(rollups: Mapping[str, Described]) -> Iterable[Schema]:
    every = rollups.values()
    windows = list(dict.fromkeys(window for rollup in every for window in rollup.windows))
    keys = list(dict.fromkeys(tag for rollup in every for tag in rollup.key))
    fields = list(dict.fromkeys(field for rollup in every for field in rollup.fields))
    orders = [f"{sign}{by}" for by in ("time", *fields) for sign in ("", "-")]
    yield _query(
        "window", "Size of the windows.", {"type": "string", "enum": windows, "default": DEFAULT_WINDOW}
    )
    yield from _times("Only windows whose start is")
    for tag in keys:
        yield _query(
            tag,
            f"Only rows of this {tag}, or of one of several: {_of(tag, rollups)}.",
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": rows.MAX_VALUES},
        )
    yield _names(
        "group_by", "The key tags to keep; empty: none. Rows that are alike in them become one.", keys
    )
    yield _query(
        "total",
        "One row for the whole range; its time is that of its first window.",
        {"type": "boolean", "default": False},
    )
    yield _names("fields", "Only these fields.", fields)
    yield _query(
        "fill",
        "A row for each window, also where there is none: of nothing (`null`), or with zero for what is added up. "
        "For each key that has a row in the range, or that is asked for by all of its tags.",
        {"type": "string", "enum": list(FILLS)},
    )
    yield _query(
        "order",
        "By time, or by a field; with `-` descending. What has no value comes last.",
        {"type": "string", "enum": orders, "default": "time"},
    )
    yield _query("limit", "Rows on a page.", {"type": "integer", "minimum": 1, "maximum": rows.MAX_ROWS})
    yield _query("cursor", "That of the page before, as it is, with all else as it was.", {"type": "string"})
    yield _query(
        "format",
        "How to answer. Parquet and Arrow need pyarrow on the server.",
        {"type": "string", "enum": list(formats.FORMATS), "default": "json"},
    )


def _readyz() -> Schema:
    return {
        "operationId": "isReady",
        "tags": ["operation"],
        "summary": "Whether events can be accepted. An agent that a vendor stopped is named, and keeps none out.",
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


def _get_overview(security: list[Schema]) -> Schema:
    live = {
        "type": "string",
        "description": "Where `Accept` asks for it: an event with the document, then one whenever members change, "
        "with those alone.",
    }
    return {
        "operationId": "getOverview",
        "tags": ["rollups"],
        "summary": "What the page shows of a range, at most a moment old.",
        "description": (
            "Sums, and figures of each window. What could not be had is null, and `away` says why: the rest "
            "is there all the same."
        ),
        "security": security,
        "parameters": [
            _query(
                "range",
                "How far back.",
                {"type": "string", "enum": list(RANGES), "default": DEFAULT_RANGE},
            )
        ],
        "responses": {
            "200": {
                "description": "The document.",
                **_content({JSON: {"schema": ref("Overview")}, EVENT_STREAM: {"schema": live}}),
            },
            **_problems(401, 403, 429),
        },
    }


def _page(security: list[Schema]) -> Schema:
    page = _plain("getPage", "The page: how everything is, live.", HTML)
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
                    ref("Message"),
                    {"type": "array", "items": ref("Message"), "minItems": 1, "maxItems": bodies.MAX_ITEMS},
                ]
            },
            "examples": _examples(examples.EVENTS),
        },
        NDJSON: {
            "schema": {"type": "string", "description": "A `Message` a line; blank lines are skipped."},
            "examples": _examples(examples.LINES),
        },
        STRUCTURED: {"schema": ref("CloudEvent"), "examples": _examples(examples.CLOUDEVENT)},
        BATCH: {
            "schema": {
                "type": "array",
                "items": ref("CloudEvent"),
                "minItems": 1,
                "maxItems": bodies.MAX_ITEMS,
            },
            "examples": _examples(examples.CLOUDEVENTS),
        },
    }


def _problems(*statuses: int, schema: str = "Problem") -> Schema:
    """Answers of these statuses, and of those that any route can give."""
    every = dict.fromkeys((*statuses, *_ANYWHERE))
    return {str(status): _problem(status, schema) for status in sorted(every)}


def _problem(status: int, schema: str) -> Schema:
    answer = {"description": _WRONG[status], **_content({PROBLEM_JSON: {"schema": ref(schema)}})}
    headers = {}
    if status in _LATER:
        headers["Retry-After"] = _header("Seconds.", {"type": "integer", "minimum": 0})
    if status == 401:
        headers["WWW-Authenticate"] = _header("How to show a key.", {"type": "string"})
    return {**answer, "headers": headers} if headers else answer


def _ok(description: str, schema: str) -> Schema:
    return {"description": description, **_content({JSON: {"schema": ref(schema)}})}


def _content(by_type: Mapping[str, Schema]) -> Schema:
    return {"content": dict(by_type)}


def _examples(named: Mapping[str, object]) -> Schema:
    return {name: {"value": value} for name, value in named.items()}


def _header(description: str, schema: Schema) -> Schema:
    return {"description": description, "schema": schema}


def _query(name: str, description: str, schema: Schema, example: str | None = None) -> Schema:
    parameter = {"name": name, "in": "query", "description": description, "schema": schema}
    return parameter if example is None else {**parameter, "example": example}


def _names(name: str, description: str, names: list[str]) -> Schema:
    """A list with commas."""
    schema = {"type": "array", "items": {"type": "string", "enum": names}}
    return {**_query(name, description, schema), "style": "form", "explode": False, "allowEmptyValue": True}


def _times(what: str) -> Iterable[Schema]:
    yield _query("since", f"{what} this or later.", _WHEN, "now-1h")
    yield _query("until", f"{what} before this.", _WHEN, "now")


def _of(tag: str, rollups: Mapping[str, Described]) -> str:
    return ", ".join(f"`{name}`" for name, rollup in rollups.items() if tag in rollup.key)


def ref(name: str) -> Schema:
    return {"$ref": f"{REF}{name}"}


def _request_header(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "description": description, "schema": schema}


_IF_NONE_MATCH = _request_header(
    "If-None-Match",
    "The `ETag` of an answer that you have: 304 where it is still the same.",
    {"type": "string"},
)
_CACHING = {
    "ETag": _header("The same as long as the answer is.", {"type": "string"}),
    "Cache-Control": _header("A late event may correct any row.", {"const": "private, no-cache"}),
}
_IDEMPOTENCY_KEY = _request_header(
    HEADER,
    "Any text of yours. The same one with the same body gets the same answer again, for 24 hours.",
    {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS, "pattern": "^[ -~]+$"},
)
_CLOUDEVENT_HEADERS = [
    _request_header(
        f"{HEADER_PREFIX}{name}",
        f"`{name}` of a CloudEvent in binary mode; its data is the body.",
        {"type": "string"},
    )
    for name in cloudevents.Context.__struct_fields__
    if name != "datacontenttype"
]
