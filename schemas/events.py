"""The canonical events, as frozen structs: a tagged union over ``type`` with one decoder, built once.

    storage.*      FileUploaded  FileDeleted  Archived  Unarchived
    extraction.*   ExtractionSubmitted  …Started  …Progressed  …Succeeded  …Failed  …Skipped  …Retried
    traffic.*      PageViewed  ResourceViewed  ResourceDownloaded
    activity.*     SignedUp  LoggedIn  ResourceCreated
    health.*       Pinged  PageFetched  ConnectionsCounted  QueueMeasured
                   MaintenanceStarted  MaintenanceEnded  OutageStarted  OutageEnded

A new field has a default, and a tag never changes: what is in the log stays readable. A field that is
``… | None`` and has no default must be given by who sends canonical events; None stands for "the
foreign shape does not say". Unknown fields are ignored here; the original keeps them.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.times import MAX_TIME_MS, RFC3339_PATTERN

#: The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
MAX_COUNT = 2**53 - 1
MAX_ID_CHARACTERS = 128

if TYPE_CHECKING:
    Time = int | None
else:
    # What may come in. The readers put epoch milliseconds in place of a text before anybody sees the
    # event, so everyone else reads ``int | None``.
    Time = (
        Annotated[int, Meta(ge=0, le=MAX_TIME_MS, description="Epoch milliseconds.")]
        | Annotated[
            str,
            Meta(
                description="RFC 3339 with a zone, in the years 1970 to 9999.",
                extra_json_schema={"format": "date-time", "pattern": f"^{RFC3339_PATTERN}$"},
            ),
        ]
        | None
    )

Id = Annotated[str, Meta(max_length=MAX_ID_CHARACTERS)]
Bytes = Annotated[int, Meta(ge=0, le=MAX_COUNT, description="Size in bytes.")]
Items = Annotated[int, Meta(ge=0, le=MAX_COUNT, description="Number of files and folders.")]
Counted = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
#: Bounded like the integers: what is larger is no measurement, and infinity is no number in JSON.
Duration = Annotated[float, Meta(ge=0, le=MAX_COUNT)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
#: Epoch milliseconds by a clock that may be wrong.
Clock = Annotated[
    int,
    Meta(
        ge=0,
        le=MAX_TIME_MS,
        description="The producer's own clock in epoch milliseconds: right only between the events of one job.",
    ),
]
# Shown to people and counted nowhere: no result is lost because somebody else's monitor means something else by them.
# Such a value is left out (``reading``); the raw event has it.
Problem = Annotated[Any, Meta(description="Why it is down, a text for people.")]
Note = Annotated[
    Any, Meta(description="How it was measured where that is not the usual way, a text for people.")
]
DaysLeft = Annotated[Any, Meta(description="Days, of the certificate; negative once it has expired.")]
PHASES = ("resolve", "connect", "tls", "first_byte", "transfer")
Phases = Annotated[
    Any,
    Meta(
        description=f"Milliseconds by phase of the fetch: {', '.join(PHASES)}; one that did not happen is left out."
    ),
]
ShownCount = Annotated[Any, Meta(description="A number, for people.")]
Validity = Annotated[
    float, Meta(ge=1, le=3600, description="Seconds for which the result holds unless another follows.")
]


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag_field="type"):
    """One thing that happened.

    ``time``: epoch milliseconds, None = the arrival decides. ``source``: which installation. The same
    ``source``, ``id`` and ``time`` are the same event; an empty ``id`` or ``user_id`` is read as none.
    ``consent`` False: the event is counted here, and goes to no other service.
    """

    time: Annotated[Time, Meta(description="When it happened; missing = when it arrives.")] = None
    id: Annotated[Id | None, Meta(description="Same source, id and time = same event.")] = None
    source: Annotated[str | None, Meta(description="Which installation it comes from.")] = None
    user_id: Annotated[str | None, Meta(description="Who did it.")] = None
    consent: Annotated[bool | None, Meta(description="false: never forwarded to anybody else.")] = None

    @property
    def type(self) -> str:
        """The canonical name, ``storage.file_uploaded``."""
        return str(self.__struct_config__.tag)


# -- storage --


class FileUploaded(Event, frozen=True, kw_only=True, tag="storage.file_uploaded"):
    """A file was added. ``file_id`` is null where the producer does not know it (Clowder 1)."""

    file_id: str | None
    dataset_id: str | None = None
    space_id: str | None = None
    bytes: Bytes


class FileDeleted(Event, frozen=True, kw_only=True, tag="storage.file_deleted"):
    """A file was removed; ``bytes`` is the size that is free now."""

    file_id: str
    dataset_id: str | None = None
    space_id: str | None = None
    bytes: Bytes


class Archived(Event, frozen=True, kw_only=True, tag="storage.archived"):
    """A file (``bytes``) or dataset (``items``) went to the archive."""

    resource_type: str
    resource_id: str
    bytes: Bytes | None = None
    items: Items | None = None


class Unarchived(Event, frozen=True, kw_only=True, tag="storage.unarchived"):
    """A file (``bytes``) or dataset (``items``) came back from the archive."""

    resource_type: str
    resource_id: str
    bytes: Bytes | None = None
    items: Items | None = None


# -- extraction --


class Extraction(Event, frozen=True, kw_only=True):
    """What the events of an extractor's job share. ``job_id`` is null where the producer does not know it."""

    job_id: str | None
    extractor: str
    resource_type: str | None = None
    resource_id: str | None = None
    message: str | None = None
    clock_ms: Clock | None = None


class ExtractionSubmitted(Extraction, frozen=True, kw_only=True, tag="extraction.submitted"):
    """A job was handed to an extractor."""


class ExtractionStarted(Extraction, frozen=True, kw_only=True, tag="extraction.started"):
    """An attempt at a job began."""


class ExtractionProgressed(Extraction, frozen=True, kw_only=True, tag="extraction.progressed"):
    """A running job said how far it is."""


class ExtractionSucceeded(Extraction, frozen=True, kw_only=True, tag="extraction.succeeded"):
    """A job ended well."""


class ExtractionFailed(Extraction, frozen=True, kw_only=True, tag="extraction.failed"):
    """A job ended in an error."""


class ExtractionSkipped(Extraction, frozen=True, kw_only=True, tag="extraction.skipped"):
    """An extractor decided that there is nothing to do; a done may follow and changes nothing."""


class ExtractionRetried(Extraction, frozen=True, kw_only=True, tag="extraction.retried"):
    """A job went back into the queue."""


# -- traffic --


class PageViewed(Event, frozen=True, kw_only=True, tag="traffic.page_viewed"):
    """Somebody saw a page."""

    url: str
    resource_id: str | None = None


class ResourceViewed(Event, frozen=True, kw_only=True, tag="traffic.resource_viewed"):
    """Somebody looked at a dataset, file, collection or space."""

    resource_type: str
    resource_id: str
    space_id: str | None = None


class ResourceDownloaded(Event, frozen=True, kw_only=True, tag="traffic.resource_downloaded"):
    """Somebody took a file (``bytes``) or dataset (``items``). ``resource_id`` is null where the producer
    does not know it (files of Clowder 1.15.0)."""

    resource_type: str
    resource_id: str | None
    space_id: str | None = None
    bytes: Bytes | None = None
    items: Items | None = None


# -- activity --


class SignedUp(Event, frozen=True, kw_only=True, tag="activity.signed_up"):
    """A user registered."""


class LoggedIn(Event, frozen=True, kw_only=True, tag="activity.logged_in"):
    """A user logged in."""


class ResourceCreated(Event, frozen=True, kw_only=True, tag="activity.resource_created"):
    """A user made a dataset, collection or space."""

    resource_type: str
    resource_id: str
    space_id: str | None = None


# -- health --


class ResponseTimes(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Of the probes of one check, in milliseconds."""

    min: Duration | None = None
    avg: Duration | None = None
    max: Duration | None = None


class Pinged(Event, frozen=True, kw_only=True, tag="health.pinged"):
    """A check found a service up or down, seen from a region. ``loss``: share of lost probes, 0 to 1."""

    service: str
    region: str
    up: bool
    problem: Problem = None
    check: Literal["ping", "healthz", "port"] | None = None
    response_ms: ResponseTimes | None = None
    loss: Ratio | None = None
    certificate_days_left: DaysLeft = None
    note: Note = None
    valid_for_s: Validity = 120.0


class PageFetched(Event, frozen=True, kw_only=True, tag="health.page_fetched"):
    """A page of a service was fetched, or was not to be had. ``status``: of HTTP."""

    service: str
    region: str
    up: bool
    problem: Problem = None
    status: Counted | None = None
    bytes: Bytes | None = None
    elapsed_ms: Duration | None = None
    phases_ms: Phases = None
    certificate_days_left: DaysLeft = None
    valid_for_s: Validity = 120.0


class ConnectionsCounted(Event, frozen=True, kw_only=True, tag="health.connections_counted"):
    """Connections that a service had, in the last ``period_s`` seconds where that is given. What they were made of
    stands beside them: ``requests`` and ``clients`` of the whole period, ``active`` now."""

    service: str
    region: str | None = None
    connections: Counted
    period_s: Duration | None = None
    requests: ShownCount = None
    clients: ShownCount = None
    active: ShownCount = None
    unreadable: ShownCount = None


class QueueMeasured(Event, frozen=True, kw_only=True, tag="health.queue_measured"):
    """Messages that wait in a queue, and those that are out with consumers where ``unacknowledged`` is given."""

    service: str
    queue: str
    messages: Counted
    ready: ShownCount = None
    unacknowledged: ShownCount = None
    consumers: ShownCount = None


class MaintenanceStarted(Event, frozen=True, kw_only=True, tag="health.maintenance_started"):
    """From here a service may be away, in all regions, without being down."""

    service: str
    reason: str | None = None


class MaintenanceEnded(Event, frozen=True, kw_only=True, tag="health.maintenance_ended"):
    """The maintenance is over."""

    service: str
    reason: str | None = None


class OutageStarted(Event, frozen=True, kw_only=True, tag="health.outage_started"):
    """Somebody declared an outage; it changes no rollup."""

    service: str
    region: str | None = None
    reason: str | None = None


class OutageEnded(Event, frozen=True, kw_only=True, tag="health.outage_ended"):
    """Somebody declared an outage over; it changes no rollup."""

    service: str
    region: str | None = None
    reason: str | None = None


EVENT_TYPES: tuple[type[Event], ...] = (
    FileUploaded,
    FileDeleted,
    Archived,
    Unarchived,
    ExtractionSubmitted,
    ExtractionStarted,
    ExtractionProgressed,
    ExtractionSucceeded,
    ExtractionFailed,
    ExtractionSkipped,
    ExtractionRetried,
    PageViewed,
    ResourceViewed,
    ResourceDownloaded,
    SignedUp,
    LoggedIn,
    ResourceCreated,
    Pinged,
    PageFetched,
    ConnectionsCounted,
    QueueMeasured,
    MaintenanceStarted,
    MaintenanceEnded,
    OutageStarted,
    OutageEnded,
)

#: The union of them, for decoders and schemas.
ANY_EVENT: Any = functools.reduce(operator.or_, EVENT_TYPES)

#: Used by ``reading`` alone: an event fresh from it can still hold its time as text.
DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(ANY_EVENT)
