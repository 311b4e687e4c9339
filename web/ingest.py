"""``POST /v1/events`` and ``POST /service``: events in, and 202 only once they are durable.

1. the key           401, 403
2. the headers       400, 413, 415
3. the body          received, inflated, taken apart: 400, 408, 413
4. each item         read; one that is no event, or outside the key's scope, is rejected by itself
5. a repetition      known by its Idempotency-Key: 409, 422, or the answer that was given already
6. one message       of what came at the same time, stamped with id and arrival: publishing it again is harmless
7. delivered         to the broker, the spool or the embedded log; 503 if that is not certain
8. 202               with what was accepted and what was not
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiohttp import HttpVersion11, web

from schemas.reading import Refusal
from topology.log import JSON, NDJSON, Outgoing
from topology.metrics import IngestMetrics
from web import bodies, cloudevents, idempotency, monitors
from web.access import Access
from web.bundles import Bundles
from web.delivery import Delivery
from web.idempotency import Idempotency
from web.items import Item, read_items
from web.keys import Key
from web.problems import Handler, Problem, answered, encoded, with_headers

#: Checks what the headers alone say of a request, and gives its key. Raises a ``Problem``.
_Check = Callable[[web.Request], Key]

_HEADERS = with_headers(JSON)


class _Read(NamedTuple):
    """What the body brought, as it came and as it was read."""

    raw: Sequence[bytes]
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The items of one request, told apart."""

    accepted: Sequence[bytes]
    rejected: Sequence[dict[str, Any]]
    out_of_scope: bool


class Ingest:
    """The handlers. ``delivery`` says where the events are."""

    def __init__(
        self,
        delivery: Delivery,
        access: Access,
        requests: Idempotency,
        *,
        clock: Callable[[], int],
        metrics: IngestMetrics,
    ) -> None:
        self._delivery = delivery
        self._access = access
        self._requests = requests
        self._bundles = Bundles(delivery, clock=clock)
        self._metrics = metrics
        self._room = bodies.Room()

    def routes(self) -> Sequence[web.RouteDef]:
        """Where it listens. Every answer is counted, those to ``Expect: 100-continue`` included."""
        return [
            self._route("/v1/events", self._check_events, _read_events),
            self._route("/service", self._check_report, _read_report),
        ]

    def _route(self, path: str, check: _Check, read: Callable[[web.Request, bytes], _Read]) -> web.RouteDef:
        async def receive(request: web.Request) -> web.StreamResponse:
            key = check(request)
            repeated_by = idempotency.key_of(request)
            with self._room.place() as place:
                body = await bodies.received(request, place)
                accepted, outcome = self._accepted(read(request, body), key)
                if repeated_by is None:
                    durable = await self._bundles.deliver(*_kept(accepted))
                    return _taken(encoded({**outcome, "durable": durable}))
                digest = idempotency.digest_of(request, body)
                return await self._once(key, repeated_by, digest, accepted, outcome)

        async def expected(request: web.Request) -> web.StreamResponse | None:
            return await self._expected(request, check)

        return web.post(path, self._counted(receive), expect_handler=expected)

    async def _once(
        self, key: Key, repeated_by: str, digest: bytes, accepted: Sequence[bytes], outcome: dict[str, Any]
    ) -> web.Response:
        async with self._requests.attempt(key.name, repeated_by, digest) as attempt:
            if attempt.answer is not None:
                return _taken(attempt.answer, {idempotency.REPLAYED_HEADER: "true"})
            durable = await self._delivery.deliver(Outgoing(*_kept(accepted), *attempt.stamp))
            answer = encoded({**outcome, "durable": durable})
            await attempt.keep(answer)
            return _taken(answer)

    def _check_events(self, request: web.Request) -> Key:
        key = self._access.sending(request)
        bodies.check_headers(request)
        return key

    def _check_report(self, request: web.Request) -> Key:
        key = self._access.sending(request, ("health",))
        # Whatever the body is announced as: monitors that say nothing, or that it is a form, cannot be mended.
        bodies.check_size(request)
        return key

    def _accepted(self, read: _Read, key: Key) -> tuple[Sequence[bytes], dict[str, Any]]:
        found = _sorted(read.items, key)
        outcome = {
            "accepted": len(found.accepted),
            "rejected": found.rejected,
            "durable": self._delivery.durable,
        }
        if not found.accepted:
            raise _nothing_accepted(read.raw, found, key, outcome)
        return found.accepted, outcome

    async def _expected(self, request: web.Request, check: _Check) -> web.StreamResponse | None:
        """Let a client that asks first send its body, or refuse before it does."""
        if request.version != HttpVersion11:
            return None

        async def refused(request: web.Request) -> web.StreamResponse:
            if request.headers["Expect"].lower() != "100-continue":
                raise Problem(417, "of expectations only 100-continue is known here")
            check(request)
            return web.Response()

        response = await answered(refused)(request)
        if response.status != 200:
            self._metrics.ingest_requests(code=str(response.status)).inc()
            return response
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # As aiohttp's own handler does: what follows is the response, of which nothing is sent yet.
        request.writer.output_size = 0
        return None

    def _counted(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            response = await answered(handler)(request)
            self._metrics.ingest_requests(code=str(response.status)).inc()
            return response

        return handle


def _read_events(request: web.Request, body: bytes) -> _Read:
    if request.content_type not in (cloudevents.STRUCTURED, cloudevents.BATCH) and cloudevents.in_headers(
        request.headers
    ):
        # Without a body there is no data, and the headers say it all.
        return _Read([body or b"{}"], [cloudevents.read_binary(request.headers, body)])
    raw = bodies.items(body, request.content_type)
    if request.content_type in (cloudevents.STRUCTURED, cloudevents.BATCH):
        return _Read(raw, [cloudevents.read_structured(item) for item in raw])
    return _Read(raw, read_items(raw))


def _read_report(request: web.Request, body: bytes) -> _Read:
    return _Read([body], monitors.read_report(body))


def _sorted(items: Sequence[Item], key: Key) -> _Sorted:
    accepted: list[bytes] = []
    rejected: list[dict[str, Any]] = []
    out_of_scope = False
    everything = "events" in key.scopes
    for index, item in enumerate(items):
        if isinstance(item, Refusal):
            rejected.append({"index": index, "pointer": item.pointer, "error": item.reason})
        elif everything or item.event.type.startswith("health."):
            accepted.append(item.line)
        else:
            out_of_scope = True
            error = f"the key {key.name} may send health.* only, this is {item.event.type}"
            rejected.append({"index": index, "pointer": "/type", "error": error})
    return _Sorted(accepted, rejected, out_of_scope)


def _kept(accepted: Sequence[bytes]) -> tuple[bytes, str]:
    """The body of a message with these events, and its type."""
    if len(accepted) == 1:
        return accepted[0], JSON
    body = b"\n".join(accepted)
    if len(body) > bodies.MAX_BODY_BYTES:  # CloudEvents take a few bytes more in the form that is kept
        raise bodies.too_large()
    return body, NDJSON


def _nothing_accepted(raw: Sequence[bytes], found: _Sorted, key: Key, outcome: dict[str, Any]) -> Problem:
    if found.out_of_scope:
        said = f"the key {key.name} may send health.* only: use one with the scope events"
        return Problem(403, said, **outcome)
    if not raw:
        return Problem(422, "there is no event in the body", **outcome)
    first = found.rejected[0]
    if not any(map(bodies.is_json, raw)):
        if not any(each.strip() for each in raw):
            return Problem(400, "the body is empty", **outcome)
        why = first["error"].removeprefix("not JSON: ")
        return Problem(400, f"the body is not JSON: {why}", **outcome)
    if len(found.rejected) == 1:
        where = f"{first['pointer']}: " if first["pointer"] else ""
        return Problem(422, f"what is in the body is no event: {where}{first['error']}", **outcome)
    return Problem(422, "nothing in the body could be read as an event: see rejected", **outcome)


def _taken(answer: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    response = web.Response(body=answer, status=202, headers=_HEADERS)
    if headers is not None:
        response.headers.update(headers)
    return response
