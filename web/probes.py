"""``/healthz``, ``/readyz``, ``/metrics``: for machines, without a key. A worker without an ingest serves them too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from topology.log import JSON
from web.problems import RETRY_AFTER_S, Problem, answered, encoded

#: Each dependency with None, or what is wrong with it.
Ready: TypeAlias = Callable[[], Awaitable[Mapping[str, str | None]]]


#: Why events go into the spool at present; None while they do not.
Spooling: TypeAlias = Callable[[], str | None]


#: Those of the dependencies without which events are accepted all the same: they are told of, and refuse nothing.
Spared: TypeAlias = Callable[[], Collection[str]]


#: Of a dependency that works.
WELL = "ok"


def _never() -> str | None:
    return None


def nothing_spared() -> Collection[str]:
    """Whatever does not work makes this process not ready."""
    return ()


#: Agents that make no progress, and what to say of them.
Stuck: TypeAlias = Callable[[], Mapping[str, str]]


def _nobody() -> Mapping[str, str]:
    return {}


def refusing(dependencies: Mapping[str, str | None], spared: Collection[str]) -> Mapping[str, str]:
    """What makes us not ready, and what it said."""
    return {name: said for name, said in dependencies.items() if said is not None and name not in spared}


def in_words(dependencies: Mapping[str, str | None]) -> Mapping[str, str]:
    """For a person who looks, who would take a null for something that is missing."""
    return {name: WELL if said is None else said for name, said in dependencies.items()}


def routes(
    ready: Ready,
    registry: CollectorRegistry,
    spooling: Spooling = _never,
    spared: Spared = nothing_spared,
    stuck: Stuck = _nobody,
) -> Sequence[web.AbstractRouteDef]:
    """The three. ``/healthz`` is for whoever restarts what is not healthy: it refuses for agents that are ``stuck``,
    which a restart mends, and never for a server that is away, which no restart brings back.

    ``ready`` may look at servers. It is asked anew each time, but not again while it is being asked: anybody may ask
    us, and must not be able to make us ask the servers as often."""
    asking: asyncio.Task[Mapping[str, str | None]] | None = None

    async def asked() -> Mapping[str, str | None]:
        return await ready()

    async def healthz(request: web.Request) -> web.StreamResponse:
        if standing := stuck():
            raise Problem(503, "; ".join(f"{agent} {said}" for agent, said in standing.items()))
        return web.Response(text="healthy\n")

    async def readyz(request: web.Request) -> web.StreamResponse:
        nonlocal asking
        if asking is None or asking.done():
            asking = asyncio.create_task(asked())
        # Who asked first may go; the others still wait for the answer.
        dependencies = dict(await asyncio.shield(asking))
        if wrong := refusing(dependencies, spared()):
            raise Problem(
                503,
                "not ready: " + "; ".join(f"{name}: {said}" for name, said in wrong.items()),
                headers={"Retry-After": str(RETRY_AFTER_S)},
                dependencies=in_words(dependencies),
            )
        document = {"ready": True, "dependencies": in_words(dependencies), "spooling": spooling()}
        return web.Response(body=encoded(document), content_type=JSON)

    async def metrics(request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        )

    return [
        web.get("/healthz", answered(healthz)),
        web.get("/readyz", answered(readyz)),
        web.get("/metrics", answered(metrics)),
    ]
