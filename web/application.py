"""The web application, from parts handed to it.

GET  /                    page.py       what there is, the latest events, how to send one
POST /v1/events           ingest.py     events in
POST /service             ingest.py     results of the existing health monitors
GET  /v1/rollups[/NAME]   queries.py    rows of a rollup
GET  /v1/events           queries.py    raw events
GET  /openapi.json /docs  docs.py       the contract, and its page
GET  /healthz /readyz /metrics          probes.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry

from topology.sinks import DeadLetters, RawEvents, RollupSink
from web import openapi, probes
from web.access import Access, logged
from web.attempts import FailedAttempts
from web.clients import Clients
from web.cors import cross_origin
from web.delivery import Delivery
from web.docs import Docs
from web.documents import Described
from web.idempotency import Idempotency
from web.ingest import Ingest
from web.keys import Keys
from web.limits import Limits, TokenBuckets
from web.metrics import IngestMetrics
from web.page import Page
from web.probes import Ready
from web.problems import answered, problems
from web.queries import Queries


@dataclass(frozen=True, slots=True, kw_only=True)
class WebParts:
    """What the application works on. Whoever builds the parts opens them before, and closes them after.

    ``delivery``: takes what is accepted. ``requests``: those that may come again. ``loopback``: bound to a loopback
    address, so that reading needs no key. ``clock``: epoch milliseconds. ``registry``: what ``/metrics`` shows; the
    application's own metrics are added to it. ``limits``: whom is believed, and how much is taken from each.
    """

    delivery: Delivery
    requests: Idempotency
    rollup_sink: RollupSink
    raw_events: RawEvents
    dead_letters: DeadLetters
    rollups: Mapping[str, Described]
    keys: Keys
    loopback: bool
    clock: Callable[[], int]
    ready: Ready
    registry: CollectorRegistry
    limits: Limits = field(default_factory=Limits)


def build(parts: WebParts) -> web.Application:
    """The whole application. Run it with ``web.connections.runner_of``. The logger ``web.access`` has a line for each
    request; aiohttp's own would show queries."""
    application = web.Application(middlewares=middlewares(parts))
    application.add_routes(routes(parts))
    return application


def middlewares(parts: WebParts) -> Sequence[Middleware]:
    """What every request goes through, for an application that has routes of its own too."""
    limits = parts.limits
    return [logged(Clients(limits.trusted_proxies)), cross_origin(limits.cors_origins), problems]


def routes(parts: WebParts) -> Sequence[web.AbstractRouteDef]:
    """All routes, for an application that has others too. Each answers its errors itself; build them once
    for a registry."""
    access = _access(parts)
    ingest = Ingest(
        parts.delivery,
        access,
        parts.requests,
        clock=parts.clock,
        metrics=IngestMetrics(parts.registry),
    )
    queries = Queries(parts.rollups, parts.rollup_sink, parts.raw_events, access, clock=parts.clock)
    page = Page(
        parts.rollups, parts.raw_events, parts.dead_letters, access, ready=parts.ready, clock=parts.clock
    )
    docs = Docs(openapi.document(parts.rollups, loopback=parts.loopback))
    return [
        web.get("/", answered(page.show)),
        *ingest.routes(),
        web.get("/v1/rollups", answered(queries.list_rollups)),
        web.get("/v1/rollups/{name}", answered(queries.rollup)),
        web.get("/v1/events", answered(queries.events)),
        *docs.routes(),
        *probes.routes(parts.ready, parts.registry, lambda: parts.delivery.spooling),
    ]


def _access(parts: WebParts) -> Access:
    limits = parts.limits
    clients = Clients(limits.trusted_proxies)
    failed = TokenBuckets(limits.failed_attempts_rate, monotonic=limits.monotonic)
    return Access(
        parts.keys,
        rates=TokenBuckets(limits.key_rate, monotonic=limits.monotonic),
        attempts=FailedAttempts(failed, clients, parts.registry),
        clients=clients,
        loopback=parts.loopback,
        clock=parts.clock,
    )
