"""``POST /v1/events``: events in, and 202 only once they are durable.

1. the key           401, 403
2. the headers       413, 415
3. the body          received, inflated, taken apart: 400, 408, 413
4. each item         read; one that is no event, or outside the key's scope, is rejected by itself
5. one message       stamped with id and arrival, so that publishing it again is harmless
6. delivered         to the broker, the spool or the embedded log; 503 if that is not certain
7. 202               with what was accepted and what was not
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import HttpVersion11, web

from schemas.reading import Refusal, read
from topology.errors import Refused
from topology.log import JSON, NDJSON, Outgoing
from topology.uuid7 import uuid7
from web import bodies
from web.access import Access
from web.delivery import Delivery, Durable
from web.keys import Key
from web.metrics import IngestMetrics
from web.problems import Handler, Problem, answered, encoded


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The items of one request, told apart."""

    accepted: Sequence[bytes]
    rejected: Sequence[dict[str, Any]]
    out_of_scope: bool


class Ingest:
    """The handler. ``delivery`` says where the events are."""

    def __init__(
        self,
        delivery: Delivery,
        access: Access,
        *,
        clock: Callable[[], int],
        metrics: IngestMetrics,
    ) -> None:
        self._delivery = delivery
        self._access = access
        self._clock = clock
        self._metrics = metrics

    def route(self) -> web.RouteDef:
        """Where it listens. Every answer is counted, those to ``Expect: 100-continue`` included."""
        return web.post("/v1/events", self._counted(self._receive), expect_handler=self._expected)

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        key = self._access.sending(request)
        bodies.check_headers(request)
        body = await bodies.received(request)
        items = bodies.items(body, request.content_type)
        found = _sorted(items, key)
        outcome = {
            "accepted": len(found.accepted),
            "rejected": found.rejected,
            "durable": self._delivery.durable,
        }
        if not found.accepted:
            raise _nothing_accepted(items, found, key, outcome)
        outcome["durable"] = await self._deliver(found.accepted)
        return web.Response(body=encoded(outcome), status=202, content_type=JSON)

    async def _deliver(self, accepted: Sequence[bytes]) -> Durable:
        now = self._clock()
        message = Outgoing(
            body=b"\n".join(accepted),
            content_type=JSON if len(accepted) == 1 else NDJSON,
            event_id=uuid7(now),
            received_ms=now,
        )
        try:
            return await self._delivery.deliver(message)
        except Refused as error:
            raise Problem(413, f"{error}, or in parts") from error

    async def _expected(self, request: web.Request) -> web.StreamResponse | None:
        """Let a client that asks first send its body, or refuse before it does."""
        if request.version != HttpVersion11:
            return None

        async def refused(request: web.Request) -> web.StreamResponse:
            if request.headers["Expect"].lower() != "100-continue":
                raise Problem(417, "of expectations only 100-continue is known here")
            self._access.sending(request)
            bodies.check_headers(request)
            return web.Response()

        response = await answered(refused)(request)
        if response.status != 200:
            self._metrics.answered(response.status)
            return response
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # As aiohttp's own handler does: what follows is the response, of which nothing is sent yet.
        request.writer.output_size = 0
        return None

    def _counted(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            response = await answered(handler)(request)
            self._metrics.answered(response.status)
            return response

        return handle


def _sorted(items: Sequence[bytes], key: Key) -> _Sorted:
    accepted: list[bytes] = []
    rejected: list[dict[str, Any]] = []
    out_of_scope = False
    for index, item in enumerate(items):
        event = read(item)
        if isinstance(event, Refusal):
            rejected.append({"index": index, "pointer": event.pointer, "error": event.reason})
        elif "events" in key.scopes or event.type.startswith("health."):
            accepted.append(item)
        else:
            out_of_scope = True
            error = f"the key {key.name} may send health.* only, this is {event.type}"
            rejected.append({"index": index, "pointer": "/type", "error": error})
    return _Sorted(accepted, rejected, out_of_scope)


def _nothing_accepted(items: Sequence[bytes], found: _Sorted, key: Key, outcome: dict[str, Any]) -> Problem:
    if found.out_of_scope:
        said = f"the key {key.name} may send health.* only: use one with the scope events"
        return Problem(403, said, **outcome)
    if not items:
        return Problem(422, "there is no event in the body", **outcome)
    if not any(map(bodies.is_json, items)):
        return Problem(400, f"the body is not JSON: {found.rejected[0]['error']}", **outcome)
    return Problem(422, "nothing in the body could be read as an event: see rejected", **outcome)
