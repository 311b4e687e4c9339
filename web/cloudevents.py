"""CloudEvents 1.0 (https://github.com/cloudevents/spec), read as canonical events.

    structured   one JSON object                                  application/cloudevents+json
    batch        an array of them                                 application/cloudevents-batch+json
    binary       attributes as headers ``ce-…``, data as body     application/json, and all that ends in +json

``source``, ``id`` and ``time`` are the event's, the members of ``data`` its fields. ``type`` is one of ours, which may
stand behind a prefix (``org.example.storage.file_uploaded``); where it is not, data says by itself what it is: with
a ``type`` of its own, or in a foreign shape. All other attributes are kept in the member ``cloudevent``, where no
field can have the name of one. Why no library does this: docs/decisions/0027.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Raw
from multidict import CIMultiDictProxy

from schemas.events import EVENT_TYPES
from schemas.reading import Refusal, read
from schemas.refusals import refusal
from schemas.selecting import LONGEST_TYPE, instead_of
from web.items import Item, Taken, fitted

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
HEADER_PREFIX = "ce-"
#: Where the attributes are kept that are no fields of ours.
KEPT_IN = "cloudevent"

_REQUIRED = ("specversion", "id", "source", "type")
#: Attributes that become fields. What of them data says too does not count.
_FIELDS = frozenset({"id", "source", "type", "time"})
_DATA = frozenset({"data", "data_base64"})
_OURS = frozenset(str(kind.__struct_config__.tag) for kind in EVENT_TYPES)
_ESCAPED = re.compile(r"\\(.)")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Of a value that the sender chose, this much is repeated to them.
_SHOWN_CHARACTERS = 60

Text = Annotated[str, Meta(min_length=1)]


class Context(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The attributes that mean something here; extensions may have any other name."""

    specversion: Literal["1.0"]
    id: Text
    source: Text
    type: Text
    time: Text | None = None
    datacontenttype: str | None = None


class _Data(NamedTuple):
    """``pointer`` is where it stands in the item; ``opaque``: no pointer leads into it."""

    content: bytes
    pointer: str
    opaque: bool = False

    def refused(self, inner: Refusal) -> Refusal:
        """What was said of the content, said of the item."""
        if not self.opaque:
            return Refusal(self.pointer + inner.pointer, inner.reason)
        return Refusal(self.pointer, f"{inner.pointer}: {inner.reason}" if inner.pointer else inner.reason)


_encode = msgspec.json.Encoder().encode
#: Members in their bytes: numbers, escapes and the order of inner members stay what they were.
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_text = msgspec.json.Decoder(str).decode


_REQUIRED_HEADERS = tuple(f"{HEADER_PREFIX}{name}" for name in _REQUIRED)


def in_headers(headers: Mapping[str, str]) -> bool:
    """Whether a request is a CloudEvent in binary mode."""
    return any(name in headers for name in _REQUIRED_HEADERS)


def is_json_type(content_type: str) -> bool:
    """Whether data of this media type is JSON, parameters aside."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("application/json", "text/json") or (kind.endswith("+json") and "/" in kind)


def read_structured(item: bytes) -> Item:
    """One CloudEvent in JSON. Raises nothing."""
    fitting = fitted(item)
    if isinstance(fitting, Refusal):
        return fitting
    try:
        found = _members(fitting.removeprefix(_BYTE_ORDER_MARK))
        members = {name: member for name, member in found.items() if not _is_null(member)}
        # A null is an attribute that is not set.
        context = msgspec.convert(
            {name: msgspec.json.decode(members[name]) for name in members.keys() & _ATTRIBUTES}, Context
        )
    except msgspec.ValidationError as error:
        return refusal(error)
    except (ValueError, RecursionError) as error:
        return _not_json(error)
    data = _data(members, context)
    if isinstance(data, Refusal):
        return data
    kept = {name: member for name, member in members.items() if name not in _FIELDS | _DATA}
    return _canonical(context, kept, data)


def read_binary(headers: CIMultiDictProxy[str], body: bytes) -> Item:
    """One CloudEvent in headers and body. Raises nothing; of an attribute the refusal's pointer is that of the whole,
    and its reason names the header."""
    fitting = fitted(body)
    if isinstance(fitting, Refusal):
        return fitting
    attributes = _attributes(headers)
    if isinstance(attributes, Refusal):
        return attributes
    try:
        context = msgspec.convert(attributes, Context)
    except msgspec.ValidationError as error:
        return _of_header(refusal(error))
    kept = {name: value for name, value in attributes.items() if name not in _FIELDS}
    taken = _canonical(context, kept, _Data(fitting.removeprefix(_BYTE_ORDER_MARK).strip() or b"{}", ""))
    if isinstance(taken, Refusal) and taken.pointer.removeprefix("/") in _FIELDS:
        return _of_header(taken)
    return taken


# -- attributes and data --

_ATTRIBUTES = frozenset(Context.__struct_fields__)


def _attributes(headers: CIMultiDictProxy[str]) -> dict[str, str] | Refusal:
    found: dict[str, str] = {}
    if "Content-Type" in headers:
        found["datacontenttype"] = headers["Content-Type"]
    for header, value in headers.items():
        name = header.lower().removeprefix(HEADER_PREFIX)
        if name == header.lower():
            continue
        if name in found and name != "datacontenttype":
            return Refusal("", f"the header ce-{name[:_SHOWN_CHARACTERS]} is there more than once")
        try:
            text = _unescaped(value)
            text.encode()
        except UnicodeError:
            return Refusal("", f"the header ce-{name[:_SHOWN_CHARACTERS]} is not percent-encoded UTF-8")
        found.setdefault(name, text)
    return found


def _unescaped(value: str) -> str:
    """The text of a header (HTTP binding, section 3.1.3.2): maybe quoted, and percent-encoded."""
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        value = _ESCAPED.sub(r"\1", value[1:-1])
    return unquote(value, errors="strict")


def _data(members: Mapping[str, Raw], context: Context) -> _Data | Refusal:
    if not is_json_type(context.datacontenttype or "application/json"):
        return Refusal("/datacontenttype", "must be JSON, such as application/json")
    if "data_base64" not in members:
        return _Data(bytes(members.get("data", b"{}")), "/data")
    if "data" in members:
        return Refusal("/data_base64", "must not stand beside data")
    try:
        content = base64.b64decode(_text(members["data_base64"]), validate=True)
    except (msgspec.ValidationError, binascii.Error, ValueError):
        return Refusal("/data_base64", "must be a text in base64")
    return _Data(content, "/data_base64", opaque=True)


# -- the canonical event --


def _canonical(context: Context, kept: Mapping[str, Any], data: _Data) -> Item:
    try:
        fields = _members(data.content)
    except msgspec.ValidationError as error:
        return data.refused(refusal(error))
    except (ValueError, RecursionError) as error:
        return data.refused(_not_json(error))
    kind = _kind(context.type)
    if kind is None:
        found = _told_by_data(context, fields, data)
        if isinstance(found, Refusal):
            return found
        kind, fields = found
    own = {"type": kind, "id": context.id, "source": context.source}
    if context.time is not None:
        own["time"] = context.time
    if kind != context.type:
        kept = {"type": context.type, **kept}
    # Ours first, and in their place in spite of what data says.
    line = _one_line(_encode({**own, **fields, **own, KEPT_IN: kept}))
    event = read(line)
    if not isinstance(event, Refusal):
        return Taken(line, event)
    if event.pointer.removeprefix("/") in own:
        return event
    return data.refused(event)


def _kind(declared: str) -> str | None:
    """The type of ours that a CloudEvent declares, behind a prefix or not."""
    if declared in _OURS:
        return declared
    last = ".".join(declared.rsplit(".", 2)[-2:])
    return last if last in _OURS else None


def _told_by_data(
    context: Context, fields: dict[str, Raw], data: _Data
) -> tuple[str, dict[str, Raw]] | Refusal:
    """The type and the canonical fields of data that is an event by itself."""
    event = read(data.content)
    if isinstance(event, Refusal):
        if event.pointer == "/type" and "type" not in fields:
            shown = context.type[:_SHOWN_CHARACTERS]
            hint = instead_of(".".join(shown.rsplit(".", 2)[-2:])[:LONGEST_TYPE])
            return Refusal("/type", f"unknown type {shown!r}, and data has no type of its own: {hint}")
        return data.refused(event)
    if bytes(fields.get("type", b"")) == _encode(event.type):
        return event.type, fields
    # A foreign shape: its members stay, the canonical ones beside them.
    return event.type, {**fields, **_members(_encode(event))}


def _one_line(document: bytes) -> bytes:
    return msgspec.json.format(document, indent=-1)


def _is_null(member: Raw) -> bool:
    return bytes(member).strip() == b"null"


def _not_json(error: Exception) -> Refusal:
    if isinstance(error, RecursionError):
        return Refusal("", "nested too deeply")
    return Refusal("", f"not JSON: {str(error).removeprefix('JSON is malformed: ').lower()}")


def _of_header(refused: Refusal) -> Refusal:
    return Refusal("", f"the header ce-{refused.pointer.removeprefix('/')} {refused.reason}")
