"""pyclowder: what an extractor says about its jobs, in all versions, read as canonical events.

    2.3.1 on    ``message_type`` "StatusMessage.start", ``status`` "StatusMessage.start: text"
    2.3.0       ``message_type`` "STARTED", ``status`` "STARTED: text"
    2.0 to 2.2  no ``message_type`` and no ``job_id``, ``status`` "StatusMessage.start: text"
    1.x         free text as ``status``

Clowder 1's rows of them (its collection ``extractions``) have the ``status`` alone, and "SUBMITTED" besides.

An extractor's clock is an hour off in half of the world for half of the year, so no message says when it
happened: it is placed at its arrival, and its ``start`` serves for durations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from schemas.events import (
    Event,
    Extraction,
    ExtractionFailed,
    ExtractionProgressed,
    ExtractionRetried,
    ExtractionSkipped,
    ExtractionStarted,
    ExtractionSubmitted,
    ExtractionSucceeded,
)
from schemas.refusals import Refusal
from schemas.times import MAX_TIME_MS, from_clowder

#: By the name of the state: the Enum's member as 2.3.1 prints it, and its value, which 2.3.0 sent.
_STATES: dict[str, type[Extraction]] = {
    "StatusMessage.start": ExtractionStarted,
    "StatusMessage.processing": ExtractionProgressed,
    "StatusMessage.done": ExtractionSucceeded,
    "StatusMessage.skip": ExtractionSkipped,
    "StatusMessage.error": ExtractionFailed,
    "StatusMessage.retry": ExtractionRetried,
    "STARTED": ExtractionStarted,
    "PROCESSING": ExtractionProgressed,
    "SUCCEEDED": ExtractionSucceeded,
    "SKIPPED": ExtractionSkipped,
    "ERROR": ExtractionFailed,
    "RESUBMITTED": ExtractionRetried,
}
#: What a ``status`` may begin with: Clowder 1 itself writes one state more.
_STATUSES: dict[str, type[Extraction]] = {**_STATES, "SUBMITTED": ExtractionSubmitted}

#: Of a value that the sender chose, this much is repeated to them.
_SHOWN_CHARACTERS = 60

#: It prints the offset as hours with two decimals and puts a colon for the point: Nepal has "+05:75".
_OFFSET = re.compile(r"(.+)([+-])([0-9]{2}):([0-9]{2})")


class Status(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message, or one row. ``start`` and ``message`` are read as far as they can be, and refuse nothing."""

    #: Not read. With a dot in it the event is canonical, and with a category it is Clowder's, whatever else it holds.
    type: Annotated[str, Meta(pattern=r"^[^.]*$")] | None = None
    category: None = None

    file_id: str | None = None
    extractor_id: Annotated[str, Meta(min_length=1)]
    job_id: str | None = None
    user_id: str | None = None
    status: str | None = None
    start: Any = None
    message_type: str | None = None
    message: Any = None

    def event(self) -> Event | Refusal:
        """The canonical event. Raises nothing."""
        if not self.job_id and not self.file_id:
            return Refusal("/file_id", "is required where there is no job_id")
        told, text = _told(self.status or "")
        if self.message_type:
            happened = _STATES.get(self.message_type)
            if happened is None:
                shown = repr(self.message_type[:_SHOWN_CHARACTERS])[:_SHOWN_CHARACTERS]
                return Refusal("/message_type", f"unknown message_type {shown}")
        elif self.status:
            happened = told
        else:
            return Refusal("/status", "must not be empty" if self.status == "" else "is required")
        message = self.message if isinstance(self.message, str) else ""
        # A submission was written by another clock than the extractor's: no difference to that one is right.
        clock_ms = None if happened is ExtractionSubmitted else _clock_ms(self.start)
        return happened(
            user_id=self.user_id or None,
            job_id=self.job_id or None,
            extractor=self.extractor_id,
            # A dataset's where the job is one of a dataset, and no message says which.
            resource_id=self.file_id or None,
            message=message or text or None,
            clock_ms=clock_ms,
        )


class StatusGiven(Status, frozen=True, kw_only=True):
    """As all versions send it."""

    status: str | None


#: Straight from bytes, for the hot path. Without a ``status`` it depends on ``shape`` whose message it is.
DECODER: msgspec.json.Decoder[StatusGiven] = msgspec.json.Decoder(StatusGiven)


def shape(value: Mapping[str, object]) -> Any:
    """The struct to read ``value`` as, None if it is no message of pyclowder."""
    told = "extractor_id" in value and ("status" in value or "message_type" in value)
    return Status if told and value.get("category") is None else None


def _told(status: str) -> tuple[type[Extraction], str]:
    """What a ``status`` says by itself, and the words after the state."""
    status = status.strip()
    state, _, words = status.partition(":")
    happened = _STATUSES.get(state)
    if happened is not None:
        return happened, words.strip()
    # 1.x: an error is a text like any other, and "Done" follows it.
    if status == "Done":
        return ExtractionSucceeded, status
    if status.startswith("Started processing file"):
        return ExtractionStarted, status
    return ExtractionProgressed, status


def _clock_ms(start: object) -> int | None:
    """By the clock of the extractor. Whatever its offset means, it is the same in all messages of a job."""
    ms = from_clowder(start)
    if ms is not None or not isinstance(start, str):
        return ms
    match = _OFFSET.fullmatch(start)
    if match is None:
        return None
    local_ms = from_clowder(match[1])
    if local_ms is None:
        return None
    offset_ms = (int(match[3]) * 60 + int(match[4])) * 60_000
    ms = local_ms + offset_ms if match[2] == "-" else local_ms - offset_ms
    return ms if 0 <= ms <= MAX_TIME_MS else None
