"""The web application on a real socket over the real embedded log, as its tests need it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, BaseRunner, Request
from prometheus_client import CollectorRegistry

from agents import ROLLUPS
from tests.topology.stores import Stores, opened
from topology.log import Message
from web.application import WebParts, build
from web.delivery import LogDelivery
from web.idempotency import Idempotency
from web.keys import Keys
from web.problems import PROBLEM_JSON
from web.server import runner

NOW_MS = 1_795_467_600_000  # 2026-11-23T21:00:00Z
UPLOAD = b'{"type":"storage.file_uploaded","file_id":"f1","space_id":"s1","bytes":7}'
PING = b'{"type":"health.pinged","service":"clowder","region":"eu","up":true}'


class Listening(TestServer):
    """Runs an application as the processes do."""

    async def _make_runner(self, **options: Any) -> BaseRunner:
        return runner(self.app, **options)


@dataclass
class Served:
    """A running application. ``wrong`` is what ``/readyz`` is told, ``secrets`` a key of each scope."""

    stores: Stores
    registry: CollectorRegistry
    keys: Keys
    secrets: Mapping[str, str]
    wrong: dict[str, str | None] = field(default_factory=lambda: {"log": None})
    client: TestClient[Request, Application] = field(init=False)

    async def post(
        self, body: bytes, *, key: str | None = "events", path: str = "/v1/events", **headers: str
    ) -> ClientResponse:
        """``POST`` events as JSON unless a header says otherwise (``content_type=…``)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("content-type", "application/json")
        if key is not None:
            named.setdefault("authorization", f"Bearer {self.secrets.get(key, key)}")
        # As a file: of a large body in bytes aiohttp's client warns.
        return await self.client.post(path, data=io.BytesIO(body), headers=named)

    async def get(self, path: str, **headers: str) -> ClientResponse:
        return await self.client.get(path, headers={name.replace("_", "-"): v for name, v in headers.items()})

    async def published(self) -> Sequence[Message]:
        """Everything in the log."""
        log = self.stores.log
        found = [await log.message_at(offset) for offset in range(await log.end_offset())]
        return [message for message in found if message is not None]

    def counted(self, code: int) -> float:
        """``eventsink_ingest_requests_total`` of this code."""
        return self.registry.get_sample_value("eventsink_ingest_requests_total", {"code": str(code)}) or 0.0


@asynccontextmanager
async def served(folder: Path, **changes: Any) -> AsyncIterator[Served]:
    """The application over embedded stores in ``folder``; ``changes`` are of its ``WebParts``."""
    async with prepared(folder, **changes) as (running, parts):
        server = Listening(build(parts))
        await server.start_server()
        async with TestClient(server) as running.client:
            yield running


@asynccontextmanager
async def prepared(folder: Path, **changes: Any) -> AsyncIterator[tuple[Served, WebParts]]:
    """What ``served`` serves, for whoever serves it in another way."""
    async with opened(folder) as stores:
        keys = Keys(folder / "keys.json")
        secrets = {
            scope: keys.create(scope, [scope], None, now=NOW_MS) for scope in ("events", "health", "read")
        }
        registry = CollectorRegistry()
        running = Served(stores, registry, keys, secrets)

        async def ready() -> Mapping[str, str | None]:
            return running.wrong

        parts = WebParts(
            delivery=LogDelivery(stores.log),
            requests=Idempotency(folder / "requests.db", clock=lambda: NOW_MS),
            rollup_sink=stores.rollups,
            raw_events=stores.raw_events,
            dead_letters=stores.dead_letters,
            rollups=ROLLUPS,
            keys=keys,
            loopback=True,
            clock=lambda: NOW_MS,
            ready=ready,
            registry=registry,
        )
        parts = replace(parts, **changes)
        yield running, parts
        await parts.requests.close()


async def problem(response: ClientResponse, status: int) -> dict[str, Any]:
    """The problem that an error answers with, after a look at what every problem must have."""
    assert response.status == status, await response.text()
    assert response.content_type == PROBLEM_JSON
    document: dict[str, Any] = await response.json(content_type=PROBLEM_JSON)
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document
