"""Any HTTP server of your own: events as JSON, signed.

    POST …
    X-Eventsink-Signature: sha256=HEX       HMAC-SHA256 of the body, keyed with EVENTSINK_WEBHOOK_SECRET

    {"events":[{"id","type","time","user_id", …}]}

``id`` is the same whenever the event comes again, and never that of another one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

from schemas.times import rfc3339_with_milliseconds
from topology.agents import Batches, agent
from topology.batch import LogEvent
from topology.forwarding.addresses import shown, tokens
from topology.forwarding.outcomes import Delivered, Halve, Later, Stopped, Verdict
from topology.forwarding.properties import properties, user_of
from topology.forwarding.vendor import Answer, Limits, Parcel, Request, Trial
from topology.position import written

SIGNATURE = "X-Eventsink-Signature"


@agent(group="webhook")
async def webhook(batches: Batches) -> None:
    async for batch in batches:
        await batch.forward()


class Webhook:
    """Whoever receives leaves out the ids that it has already."""

    repeatable = True
    limits = Limits(events=500, bytes=1_000_000)

    def __init__(self, url: str, secret: str) -> None:
        self.where = shown(url)
        self.secrets = (secret, *tokens(url))
        self._url = url
        self._secret = secret.encode()

    def parcel(self, event: LogEvent) -> Parcel | None:
        mapped: dict[str, Any] = {
            "id": f"{written(event.position)}-{event.time_ms}",
            "type": event.event.type,
            "time": rfc3339_with_milliseconds(event.time_ms),
            "user_id": user_of(event.event),
            **properties(event.event),
        }
        return Parcel(json.dumps(mapped, separators=(",", ":")).encode())

    def request(self, parcels: Sequence[Parcel]) -> Request:
        body = b'{"events":[%b]}' % b",".join(parcel.body for parcel in parcels)
        signature = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        return Request(
            url=self._url,
            body=body,
            headers={"Content-Type": "application/json", SIGNATURE: f"sha256={signature}"},
        )

    def verdict(self, answer: Answer, parcels: Sequence[Parcel]) -> Verdict:
        said = f"{self.where} answers {answer.words}"
        match answer.status:
            case status if 200 <= status < 300:
                return Delivered()
            case 401 | 403 | 404 | 405 | 407 | 410:
                return Stopped(
                    f"{said}: mend EVENTSINK_WEBHOOK_URL or EVENTSINK_WEBHOOK_SECRET, and start again"
                )
            case 400 | 413 | 422:
                return Halve(said)
            case _:
                return Later(said, answer.retry_after_s)

    def trials(self, at_ms: int) -> Sequence[Trial]:
        return ()

    def fault(self, answer: Answer) -> str | None:
        return None
