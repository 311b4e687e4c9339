"""Amplitude, by HTTP V2 or Batch: https://amplitude.com/docs/apis/analytics/batch-event-upload."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from topology.agents import Batches, agent
from topology.batch import LogEvent
from topology.forwarding.outcomes import Delivered, Halve, Held, Later, Rejected, Stopped, Verdict
from topology.forwarding.properties import derived, properties, user_of
from topology.forwarding.vendor import Answer, Limits, Parcel, Request, Trial
from topology.position import written

#: Takes 1000 events a second of one user, where HTTP V2 takes 30.
URL = "https://api2.amplitude.com/batch"
BATCH = Limits(events=2000, bytes=10_000_000)
#: Fewer than 2000 events, 1 MB.
HTTP_V2 = Limits(events=1000, bytes=900_000)
MIN_ID_LENGTH = 5
HELD_S = 30.0

_LISTS = ("events_with_invalid_fields", "events_with_missing_fields", "events_with_invalid_id_lengths")
_THROTTLED = ("throttled_users", "throttled_devices")
_OVER_QUOTA = ("exceeded_daily_quota_users", "exceeded_daily_quota_devices")


@agent(group="amplitude")
async def amplitude(batches: Batches) -> None:
    async for batch in batches:
        await batch.forward()


class Amplitude:
    """``url``: of either endpoint; without a path, of Batch. What it sends again is known by ``insert_id``."""

    repeatable = True

    def __init__(self, api_key: str, url: str = URL) -> None:
        self.where = url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/batch"
        self.limits = HTTP_V2 if self.where.rstrip("/").endswith("/httpapi") else BATCH
        self.secrets = (api_key,)
        self._head = b'{"api_key":%b,"options":{"min_id_length":%d},"events":[' % (
            json.dumps(api_key).encode(),
            MIN_ID_LENGTH,
        )

    def parcel(self, event: LogEvent) -> Parcel | None:
        """Whoever is not known is a device of ours, one for each installation."""
        occurred = event.event
        user = user_of(occurred)
        device = f"eventsink-{derived(occurred.source, user)}"
        mapped: dict[str, Any] = {
            "event_type": occurred.type,
            "device_id": device,
            "time": event.time_ms,
            # By the time too: a log that was thrown away leaves its positions to the next one, within the week for
            # which they are remembered.
            "insert_id": f"eventsink-{written(event.position)}-{event.time_ms}",
            "event_properties": properties(occurred),
        }
        if user is not None:
            mapped["user_id"] = user
        return Parcel(msgspec.json.encode(mapped), (device,) if user is None else (user, device))

    def request(self, parcels: Sequence[Parcel]) -> Request:
        body = self._head + b",".join(parcel.body for parcel in parcels) + b"]}"
        return Request(url=self.where, body=body, headers={"Content-Type": "application/json"})

    def verdict(self, answer: Answer, parcels: Sequence[Parcel]) -> Verdict:
        said = f"Amplitude answers {answer.words}"
        document = answer.document()
        match answer.status:
            case 200 if document.get("code") == 200:
                return Delivered()
            case 200:
                return Later(f"{said}, but not as Amplitude does: check EVENTSINK_AMPLITUDE_URL")
            case 400 if "api key" in str(document.get("error", "")).lower().replace("_", " "):
                return _wrong_key(said)
            case 401 | 403:
                return _wrong_key(said)
            case 404 | 405 | 407 | 410:
                return Stopped(f"{said}: mend EVENTSINK_AMPLITUDE_URL, and start again")
            case 400 if listed := _listed(document, len(parcels)):
                return Rejected(listed)
            case 413:
                return Halve(said)
            case 429:
                return _throttled(document, said, answer.retry_after_s)
            case 400:
                return Halve(said)
            case _:
                return Later(said, answer.retry_after_s)

    def trials(self, at_ms: int) -> Sequence[Trial]:
        return ()

    def fault(self, answer: Answer) -> str | None:
        return None


def _wrong_key(said: str) -> Stopped:
    return Stopped(f"{said}: set EVENTSINK_AMPLITUDE_API_KEY to a key that it knows, and start again")


def _listed(document: Mapping[str, Any], events: int) -> dict[int, str]:
    """Why each event is refused that the answer names. The answer need not name all."""
    reasons: dict[int, str] = {}
    for name in _LISTS:
        fields = document.get(name)
        for field, indexes in fields.items() if isinstance(fields, dict) else ():
            for index in _indexes(indexes, events):
                reasons.setdefault(index, f"{name.replace('_', ' ')}: {field}")
    for index in _indexes(document.get("silenced_events"), events):
        reasons.setdefault(index, "the device of this event is silenced")
    return reasons


def _throttled(document: Mapping[str, Any], said: str, retry_after_s: float | None) -> Verdict:
    ids = frozenset(
        throttled
        for name in (*_THROTTLED, *_OVER_QUOTA)
        if isinstance(named := document.get(name), dict)
        for throttled in named
    )
    indexes = frozenset(_indexes(document.get("throttled_events"), BATCH.events))
    if not ids and not indexes:
        return Later(said, HELD_S if retry_after_s is None else retry_after_s)
    return Held(said, indexes, ids, HELD_S if retry_after_s is None else max(HELD_S, retry_after_s))


def _indexes(found: object, events: int) -> Iterable[int]:
    return (
        [each for each in found if type(each) is int and 0 <= each < events]
        if isinstance(found, list)
        else []
    )
