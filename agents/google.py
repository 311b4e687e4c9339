"""Google Analytics 4, by the Measurement Protocol: https://developers.google.com/analytics/devguides/collection/protocol/ga4.

It answers 2xx to nearly everything and knows nothing again: nothing is sent twice that may have arrived.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from schemas.events import Event
from topology.agents import Batches, agent
from topology.batch import LogEvent
from topology.forwarding.outcomes import Delivered, Doubtful, Stopped, Verdict
from topology.forwarding.properties import derived, properties, user_of
from topology.forwarding.samples import samples
from topology.forwarding.vendor import Answer, Limits, Parcel, Request, Trial

URL = "https://www.google-analytics.com/mp/collect"
PATH = "/mp/collect"
MAX_AGE = timedelta(hours=72)
MAX_NAME_CHARACTERS = 40
MAX_VALUE_CHARACTERS = 100
MAX_PARAMS = 25
SESSION = timedelta(minutes=30)

#: Google's own names for the same things; its reports know them.
NAMES: Mapping[str, str] = {
    "traffic.page_viewed": "page_view",
    "activity.logged_in": "login",
    "activity.signed_up": "sign_up",
}
#: Where a visitor came from, in its reports.
PARAMS: Mapping[str, str] = {"source": "installation"}
_RESERVED = re.compile(
    r"(?:ad_|app_|notification_|dynamic_link_|firebase_|ga_|google_|gtag\.|_).*"
    r"|error|first_open|first_visit|session_start|user_engagement|os_update|screen_view|in_app_purchase"
)


@agent(group="google")
async def google(batches: Batches) -> None:
    async for batch in batches:
        await batch.forward()


class Google:
    """``url``: of ``/mp/collect``; without a path, that of its host. ``validate``: let it look at each shape first."""

    repeatable = False
    limits = Limits(
        events=25,
        bytes=100_000,
        in_flight=16,
        linger_s=0.0,
        max_age_ms=MAX_AGE // timedelta(milliseconds=1),
    )

    def __init__(
        self, measurement_id: str, api_secret: str, url: str = URL, *, validate: bool = False
    ) -> None:
        self.where = url if urlsplit(url).path.strip("/") else url.rstrip("/") + PATH
        written = quote(api_secret, safe="*")  # a secret that is hidden looks the same here
        self.secrets = (api_secret, written)
        self._measurement_id = measurement_id
        self._validate = validate
        self._query = f"?measurement_id={quote(measurement_id, safe='*')}&api_secret={written}"

    def parcel(self, event: LogEvent) -> Parcel | None:
        """One request is of one client at one time: what they share is ``together``."""
        occurred = event.event
        user = user_of(occurred)
        shared: dict[str, Any] = {"client_id": self._client_id(occurred, user)}
        if user is not None:
            shared["user_id"] = user
        shared["timestamp_micros"] = event.time_ms * 1000
        params: dict[str, Any] = {
            name(PARAMS.get(key, key)): value[:MAX_VALUE_CHARACTERS] if isinstance(value, str) else value
            for key, value in properties(occurred).items()
        }
        params = dict(list(params.items())[: MAX_PARAMS - 2])
        params["session_id"] = str(event.time_ms // 1000 // SESSION.seconds)
        params["engagement_time_msec"] = 1
        mapped = {"name": name(NAMES.get(occurred.type, occurred.type)), "params": params}
        return Parcel(_encode(mapped), together=json.dumps(shared, separators=(",", ":")))

    def request(self, parcels: Sequence[Parcel]) -> Request:
        return self._request(self.where, parcels)

    def _request(self, where: str, parcels: Sequence[Parcel]) -> Request:
        events = b",".join(parcel.body for parcel in parcels)
        body = b'%b,"events":[%b]}' % (parcels[0].together.encode()[:-1], events)
        return Request(url=where + self._query, body=body, headers={"Content-Type": "application/json"})

    def verdict(self, answer: Answer, parcels: Sequence[Parcel]) -> Verdict:
        """Once it has answered nothing goes again. A refusal that every request would get stops the agent."""
        said = f"Google Analytics answers {answer.words}"
        if 200 <= answer.status < 300:
            return Delivered()
        if answer.status in {401, 403, 404}:
            return Stopped(
                f"{said}: mend EVENTSINK_GA_MEASUREMENT_ID, EVENTSINK_GA_API_SECRET or EVENTSINK_GA_URL, then restart"
            )
        return Doubtful(said, answer.retry_after_s)

    def trials(self, at_ms: int) -> Sequence[Trial]:
        """Each shape of ours, by the endpoint that counts nothing."""
        if not self._validate:
            return ()
        where = self.where.removesuffix(PATH) + "/debug" + PATH
        found: list[Trial] = []
        for sample in samples(at_ms):
            parcel = self.parcel(sample)
            if parcel is not None:
                found.append(Trial(sample.event.type, self._request(where, [parcel])))
        return found

    def fault(self, answer: Answer) -> str | None:
        messages = answer.document().get("validationMessages")
        if not isinstance(messages, list) or not messages:
            return None
        return "; ".join(
            f"{message.get('fieldPath', '')}: {message.get('description', '')}"
            for message in messages
            if isinstance(message, dict)
        )[:500]

    def _client_id(self, event: Event, user: str | None) -> str:
        """The same for the same user, another in another property; two positive integers."""
        digest = hashlib.sha256(derived(self._measurement_id, event.source, user).encode()).digest()
        first, second = (int.from_bytes(digest[at : at + 4]) % (2**31 - 1) + 1 for at in (0, 4))
        return f"{first}.{second}"


def name(text: str) -> str:
    """A valid name that looks like this one, and is none of Google's reserved ones."""
    found = re.sub(r"[^A-Za-z0-9_]", "_", text)
    if _RESERVED.fullmatch(text) or _RESERVED.fullmatch(found) or not found[:1].isalpha():
        found = f"es_{found}"
    return found[:MAX_NAME_CHARACTERS]


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
