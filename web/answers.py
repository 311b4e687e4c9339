"""What the routes answer, as structs: their schemas are in the OpenAPI document, and tests hold answers against them.

The answers themselves are written by whoever gives them. Members that a struct does not name may be there.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Count = Annotated[int, Meta(ge=0)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class RejectedItem(msgspec.Struct, kw_only=True):
    """An item that was not taken, and why. The others are not affected."""

    index: Annotated[int, Meta(ge=0, description="From 0; blank lines of NDJSON are not counted.")]
    pointer: Annotated[
        str, Meta(description="JSON pointer (RFC 6901) inside the item; empty = the item as a whole.")
    ]
    error: str


Durable = Annotated[
    Literal["broker", "spool", "log"],
    Meta(description="Where the events are safe: with the broker, in our own spool, or in the embedded log."),
]


class Accepted(msgspec.Struct, kw_only=True):
    """Everything in ``accepted`` is durable. Drop what was rejected, or mend it: it will be refused again."""

    accepted: Annotated[int, Meta(ge=1)]
    rejected: list[RejectedItem]
    durable: Durable


class Problem(msgspec.Struct, kw_only=True):
    """RFC 9457. ``detail`` says what to do."""

    type: str
    title: Annotated[str, Meta(min_length=1)]
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: Annotated[str, Meta(min_length=1)]


class Rejection(Problem, kw_only=True):
    """A problem of the whole request. Where its items were looked at, it names those that are wrong."""

    accepted: Annotated[int, Meta(ge=0, le=0)] | UnsetType = UNSET
    rejected: list[RejectedItem] | UnsetType = UNSET
    durable: Durable | UnsetType = UNSET


class Ready(msgspec.Struct, kw_only=True):
    """Able to accept events."""

    ready: bool
    dependencies: Annotated[
        dict[str, str],
        Meta(
            description="Each with `ok`, or with what is wrong with it: an agent that was stopped keeps no event out."
        ),
    ]
    spooling: Annotated[
        str | None, Meta(description="Why events go into the spool at present; null: they do not.")
    ]


class NotReady(Problem, kw_only=True):
    """Not able to accept events. ``dependencies`` is missing where the server is too busy to ask them."""

    dependencies: dict[str, str] | UnsetType = UNSET


class RollupDescription(msgspec.Struct, kw_only=True):
    """A rollup: its windows, the finest first, the tags that are its key, and its fields."""

    name: str
    windows: list[str]
    key: list[str]
    fields: list[str]


class RollupList(msgspec.Struct, kw_only=True):
    """All rollups that there are."""

    rollups: list[RollupDescription]


class StoredEvent(msgspec.Struct, kw_only=True):
    """A canonical event as it is archived, with where it is in the log and when it came."""

    position: str
    received: Time
    type: str
    time: Time


class EventsPage(msgspec.Struct, kw_only=True):
    """Newest first by time, then position. ``cursor`` asks for those after these; null: there are no more."""

    events: list[StoredEvent]
    cursor: str | None
