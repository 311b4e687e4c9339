"""The web application, from parts handed to it.

GET  /                    page/         the page
GET  /v1/overview         overview/     what it shows, once or live
POST /v1/events           ingest.py     events in
POST /service             ingest.py     results of the existing health monitors
GET  /v1/rollups[/NAME]   queries.py    rows of a rollup
GET  /v1/events           queries.py    raw events
GET  /openapi.json /docs  docs.py       the contract, and its page
GET  /docs/runbook        runbook.py    what to do about each alert
GET  /healthz /readyz /metrics          probes.py
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CollectorRegistry

from topology.metrics import IngestMetrics
from topology.sinks import DeadLetters, RawEvents, RollupSink
from web import openapi, probes, runbook
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
from web.overview import present
from web.overview.figures import Figures
from web.overview.present import Progress
from web.overview.route import OverviewRoute
from web.overview.shapes import Readiness, Span
from web.overview.snapshots import Part, Snapshots
from web.page import Page
from web.probes import Ready, Spared, nothing_spared, refusing
from web.problems import answered, problems
from web.queries import Queries


@dataclass(frozen=True, slots=True, kw_only=True)
class WebParts:
    """What the application works on. Whoever builds the parts opens them before, and closes them after.

    ``delivery``: takes what is accepted. ``requests``: those that may come again. ``loopback``: bound to a loopback
    address, so that reading needs no key. ``clock``: epoch milliseconds. ``registry``: what ``/metrics`` shows; the
    application's own metrics are added to it. ``limits``: whom is believed, and how much is taken from each.
    ``progress``: how far the agents of other processes are. ``spared``: what of ``ready`` keeps no event out.
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
    progress: Callable[[], Awaitable[Progress]] | None = None
    spared: Spared = nothing_spared


def build(parts: WebParts) -> web.Application:
    """The whole application. Run it with ``web.connections.runner_of``. The logger ``web.access`` has a line for each
    request; aiohttp's own would show queries."""
    application = web.Application()
    install(application, parts)
    return application


def install(application: web.Application, parts: WebParts) -> None:
    """Serve everything from ``application``, which may have routes of its own too. Once for a registry."""
    limits = parts.limits
    allowed = [cross_origin(limits.cors_origins)] if limits.cors_origins else []
    application.middlewares.extend([logged(Clients(limits.trusted_proxies)), *allowed, problems])
    metrics = IngestMetrics(parts.registry)
    for code in ("202", "503"):  # there as 0, so that the first one is seen to be one more
        metrics.ingest_requests(code=code)
    access = _access(parts, metrics)
    ingest = Ingest(
        parts.delivery,
        access,
        parts.requests,
        clock=parts.clock,
        metrics=metrics,
    )
    queries = Queries(parts.rollups, parts.rollup_sink, parts.raw_events, access, clock=parts.clock)
    overview = OverviewRoute(Snapshots(_overview(parts), parts.clock), access)
    docs = Docs(openapi.document(parts.rollups, loopback=parts.loopback))
    application.add_routes(
        [
            *Page(access).routes(),
            web.get("/v1/overview", answered(overview.show)),
            *ingest.routes(),
            web.get("/v1/rollups", answered(queries.list_rollups)),
            web.get("/v1/rollups/{name}", answered(queries.rollup)),
            web.get("/v1/events", answered(queries.events)),
            *docs.routes(),
            *runbook.routes(),
            *probes.routes(parts.ready, parts.registry, lambda: parts.delivery.spooling, parts.spared),
        ]
    )
    # Before the runner waits for open requests: live pages would be open for ever.
    application.on_shutdown.append(overview.close)


def _overview(parts: WebParts) -> Mapping[str, Part]:
    """What the document of the page is made of, by its members."""
    figures = Figures(parts.rollup_sink, parts.rollups)

    async def agents(span: Span) -> object:
        return await present.agents(parts.registry, parts.progress, span.now)

    async def events(span: Span) -> object:
        return await present.events(parts.raw_events)

    async def dead(span: Span) -> object:
        return await present.dead(parts.dead_letters)

    async def ready(span: Span) -> object:
        dependencies = await parts.ready()
        return Readiness(
            accepting=not refusing(dependencies, parts.spared()), wrong=dict(refusing(dependencies, ()))
        )

    return {
        "uptime": figures.uptime,
        "storage": figures.storage,
        "extractors": figures.extractors,
        "activity": figures.activity,
        "agents": agents,
        "events": events,
        "dead": dead,
        "ready": ready,
    }


def _access(parts: WebParts, metrics: IngestMetrics) -> Access:
    limits = parts.limits
    clients = Clients(limits.trusted_proxies)
    failed = TokenBuckets(limits.failed_attempts_rate, monotonic=limits.monotonic)
    return Access(
        parts.keys,
        rates=TokenBuckets(limits.key_rate, monotonic=limits.monotonic),
        attempts=FailedAttempts(failed, clients, metrics),
        clients=clients,
        loopback=parts.loopback,
        clock=parts.clock,
    )
