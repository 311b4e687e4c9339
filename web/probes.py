"""``/healthz``, ``/readyz``, ``/metrics``: for machines, without a key. A worker without an ingest serves them too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
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


def _never() -> str | None:
    return None


def routes(
    ready: Ready, registry: CollectorRegistry, spooling: Spooling = _never
) -> Sequence[web.AbstractRouteDef]:
    """The three. ``ready`` may look at servers; it is asked anew each time."""

    async def healthz(request: web.Request) -> web.StreamResponse:
        return web.Response(text="healthy\n")

    async def readyz(request: web.Request) -> web.StreamResponse:
        dependencies = dict(await ready())
        wrong = {name: said for name, said in dependencies.items() if said is not None}
        if wrong:
            raise Problem(
                503,
                "not ready: " + "; ".join(f"{name}: {said}" for name, said in wrong.items()),
                headers={"Retry-After": str(RETRY_AFTER_S)},
                dependencies=dependencies,
            )
        document = {"ready": True, "dependencies": dependencies, "spooling": spooling()}
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
