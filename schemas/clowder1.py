"""Clowder 1: what it puts into the exchange ``clowder.metrics``, read as canonical events.

    current    names its kind in ``category`` and its time in ``created``
    v1.15.0    has neither, and other names: the kind shows in which keys are there

Each struct holds the keys that are read, with the names of the wire so that refusals point at them, and
turns itself into the canonical event. Personal names are never read. Where an id may be missing, null
and "" mean that it is; where the canonical event needs one, they are refused.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.events import (
    MAX_COUNT,
    Archived,
    Counted,
    Event,
    ExtractionSubmitted,
    FileUploaded,
    LoggedIn,
    Pinged,
    ResourceDownloaded,
    ResourceViewed,
    ResponseTimes,
    SignedUp,
    Unarchived,
)
from schemas.quantities import Measured, milliseconds, share
from schemas.refusals import Refusal
from schemas.times import from_clowder

#: The user id of whoever is not logged in. It stays as it is: one user, everywhere.
ANONYMOUS = "0" * 24

RequiredId = Annotated[str, Meta(min_length=1)]
#: A ``type`` with a dot is canonical, whatever else the event holds.
UndottedType = Annotated[str, Meta(pattern=r"^[^.]*$")]


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="category"):
    """``created`` in any form; what cannot be read counts as missing."""

    created: Any = None

    def event(self) -> Event | Refusal:
        """The canonical event. Raises nothing."""
        raise NotImplementedError  # each kind says its own


# -- current --


class Upload(Message, frozen=True, kw_only=True, tag="upload"):
    type: UndottedType | None = None
    dataset_id: str | None = None
    user_id: str | None = None
    size: Counted

    def event(self) -> Event:
        return FileUploaded(
            time=from_clowder(self.created),
            user_id=self.user_id or None,
            file_id=None,
            dataset_id=self.dataset_id or None,
            bytes=self.size,
        )


class Download(Message, frozen=True, kw_only=True, tag="download"):
    """``size``: bytes of a file; of a dataset the number of its files and folders."""

    type: Literal["file", "dataset"]
    resource_id: RequiredId
    user_id: str | None = None
    size: Counted | None = None

    def event(self) -> Event:
        is_file = self.type == "file"
        return ResourceDownloaded(
            time=from_clowder(self.created),
            user_id=self.user_id or None,
            resource_type=self.type,
            resource_id=self.resource_id,
            bytes=self.size if is_file else None,
            items=None if is_file else self.size,
        )


class View(Message, frozen=True, kw_only=True, tag="view_resource"):
    type: Literal["dataset", "file", "collection", "space"]
    resource_id: RequiredId
    user_id: str | None = None

    def event(self) -> Event:
        return ResourceViewed(
            time=from_clowder(self.created),
            user_id=self.user_id or None,
            resource_type=self.type,
            resource_id=self.resource_id,
            space_id=self.resource_id if self.type == "space" else None,
        )


class Submission(Message, frozen=True, kw_only=True, tag="extraction"):
    type: Literal["file", "dataset", "selection"]
    extractor_name: RequiredId
    resource_id: str | None = None
    user_id: str | None = None

    def event(self) -> Event:
        return ExtractionSubmitted(
            time=from_clowder(self.created),
            user_id=self.user_id or None,
            job_id=None,
            extractor=self.extractor_name,
            resource_type=self.type,
            resource_id=self.resource_id or None,
        )


class UserActivity(Message, frozen=True, kw_only=True, tag="user_activity"):
    type: Literal["signup", "login"]
    user_id: str | None = None

    def event(self) -> Event:
        happened = SignedUp if self.type == "signup" else LoggedIn
        return happened(time=from_clowder(self.created), user_id=self.user_id or None)


class Archival(Message, frozen=True, kw_only=True):
    """``size`` as in a download."""

    type: Literal["file", "dataset"]
    resource_id: RequiredId
    user_id: str | None = None
    size: Counted | None = None


class Archive(Archival, frozen=True, kw_only=True, tag="archive"):
    def event(self) -> Event:
        return _archival(Archived, self)


class Unarchive(Archival, frozen=True, kw_only=True, tag="unarchive"):
    def event(self) -> Event:
        return _archival(Unarchived, self)


def _archival(happened: type[Archived | Unarchived], message: Archival) -> Event:
    is_file = message.type == "file"
    return happened(
        time=from_clowder(message.created),
        user_id=message.user_id or None,
        resource_type=message.type,
        resource_id=message.resource_id,
        bytes=message.size if is_file else None,
        items=None if is_file else message.size,
    )


class ServiceStatus(Message, frozen=True, kw_only=True, tag="service_status"):
    """A result of the old emergency API. What was measured decides (``healthy``), else the ``type``.

    A time or loss that cannot be read is left out: up or down is worth keeping. ``uptime`` means nothing.
    """

    type: UndottedType | None = None
    service_name: RequiredId
    healthy: bool | int | str | None = None
    response_time_avg: Measured | None = None
    response_time_min: Measured | None = None
    response_time_max: Measured | None = None
    response_time_loss: Measured | None = None

    def event(self) -> Event | Refusal:
        if self.healthy is None or self.healthy == "":
            up = _UP.get(self.type or "")
            wrong = Refusal("/type", "must be up or down")
        else:
            up = _HEALTHY.get(str(self.healthy).lower())
            wrong = Refusal("/healthy", "must be true or false")
        if up is None:
            return wrong
        times = ResponseTimes(
            min=milliseconds(self.response_time_min),
            avg=milliseconds(self.response_time_avg),
            max=milliseconds(self.response_time_max),
        )
        return Pinged(
            time=from_clowder(self.created),
            service=self.service_name,
            region="unknown",
            up=up,
            response_ms=None if times == ResponseTimes() else times,
            loss=share(self.response_time_loss),
        )


_UP = {"up": True, "down": False}
_HEALTHY = {"true": True, "1": True, "false": False, "0": False}

CURRENT: tuple[type[Message], ...] = (
    Upload,
    Download,
    View,
    Submission,
    UserActivity,
    Archive,
    Unarchive,
    ServiceStatus,
)
ANY_CURRENT: Any = functools.reduce(operator.or_, CURRENT)

#: Straight from bytes to a current message, for the hot path.
DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(ANY_CURRENT)


# -- v1.15.0 --


class Message115(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """It sent no time; where somebody added one, it is read."""

    created: Any = None

    def event(self) -> Event:
        """The canonical event. Raises nothing."""
        raise NotImplementedError  # each kind says its own


class Upload115(Message115, frozen=True, kw_only=True):
    dataset_id: str | None = None
    uploader_id: str | None = None
    length: Counted

    def event(self) -> Event:
        return FileUploaded(
            time=from_clowder(self.created),
            user_id=self.uploader_id or None,
            file_id=None,
            dataset_id=self.dataset_id or None,
            bytes=self.length,
        )


class FileDownload115(Message115, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """It does not say which file."""

    downloader_id: str | None = None
    length: Counted | None = None

    def event(self) -> Event:
        return ResourceDownloaded(
            time=from_clowder(self.created),
            user_id=self.downloader_id or None,
            resource_type="file",
            resource_id=None,
            bytes=self.length,
        )


class DatasetDownload115(Message115, frozen=True, kw_only=True, tag_field="type", tag="dataset"):
    dataset_id: RequiredId
    downloader_id: str | None = None
    files_length: Counted | None = None
    folder_length: Counted | None = None

    def event(self) -> Event:
        files, folders = self.files_length, self.folder_length
        known = files is not None or folders is not None
        return ResourceDownloaded(
            time=from_clowder(self.created),
            user_id=self.downloader_id or None,
            resource_type="dataset",
            resource_id=self.dataset_id,
            items=min((files or 0) + (folders or 0), MAX_COUNT) if known else None,
        )


class View115(Message115, frozen=True, kw_only=True):
    """Whoever was not logged in has the id "" (and the name "Anonymous")."""

    type: Literal["dataset", "file", "collection", "space"]
    resource_id: RequiredId
    viewer_id: str | None = None

    def event(self) -> Event:
        return ResourceViewed(
            time=from_clowder(self.created),
            user_id=ANONYMOUS if self.viewer_id == "" else self.viewer_id,
            resource_type=self.type,
            resource_id=self.resource_id,
            space_id=self.resource_id if self.type == "space" else None,
        )


class Submission115(Message115, frozen=True, kw_only=True):
    type: Literal["file", "dataset", "selection"]
    extractor_name: RequiredId
    resource_id: str | None = None
    submitter_id: str | None = None

    def event(self) -> Event:
        return ExtractionSubmitted(
            time=from_clowder(self.created),
            user_id=self.submitter_id or None,
            job_id=None,
            extractor=self.extractor_name,
            resource_type=self.type,
            resource_id=self.resource_id or None,
        )


class UserActivity115(Message115, frozen=True, kw_only=True):
    type: Literal["signup", "login"]
    user_id: str | None = None

    def event(self) -> Event:
        happened = SignedUp if self.type == "signup" else LoggedIn
        return happened(time=from_clowder(self.created), user_id=self.user_id or None)


#: The key that only one kind has. A download names the uploader too, so it is looked for first.
_TELLING: tuple[tuple[str, Any], ...] = (
    ("downloader_id", FileDownload115 | DatasetDownload115),
    ("viewer_id", View115),
    ("submitter_id", Submission115),
    ("uploader_id", Upload115),
)


def shape(value: Mapping[str, object]) -> Any:
    """The struct (or union of structs) to read ``value`` as, None if it is no message of Clowder 1."""
    if value.get("category") is not None:
        return ANY_CURRENT
    for key, kind in _TELLING:
        if key in value:
            return kind
    if value.get("type") in ("signup", "login"):
        return UserActivity115
    return None
