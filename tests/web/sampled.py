"""The web application over an engine, in one process and with one clock: what is sent to it is folded and shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient

from tests.processes import DATA, SAMPLE
from tests.topology.engine import Engine, unsynced
from tests.web.serving import Listening, Served, prepared
from topology.errors import Unavailable
from topology.group.reading import ALLOWED_DISORDER_MS
from topology.log import JSON, Outgoing
from topology.sinks import RollupSink
from web.application import build

#: Half a minute after the six hours of the sample: 2026-11-24T03:00:30Z.
NOW_MS = 1_795_489_230_000


class Breakable:
    """A store that does not answer while it is ``broken``."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.broken: str | None = None

    def __getattr__(self, name: str) -> Any:
        if self.broken is not None and name in {"query", "totals", "count", "list"}:
            raise Unavailable(self.broken)
        return getattr(self._inner, name)


@dataclass
class Shown:
    """A running application and its engine. ``now_ms`` is the clock of both."""

    app: Served
    engine: Engine
    rollups: Breakable
    archive: Breakable
    url: str = field(default="")

    async def settled(self) -> None:
        """Everything in the log is folded, and its values are in the sink."""
        await self.engine.folded()
        await self.engine.checkpoint()
        await self.engine.delivered()
        await self.engine.looked_at()

    async def rested(self) -> None:
        """As ``settled``, with the time told up to the clock: nothing has come for a second."""
        present = self.engine.now_ms - ALLOWED_DISORDER_MS
        while not all((group.reading.watermark or 0) >= present for group in self.engine.groups):
            await self.engine.tick()
        await self.settled()

    async def send_sample(self) -> None:
        """The six hours, folded."""
        lines = SAMPLE.read_bytes().splitlines()
        await self.engine.stores.log.publish([Outgoing(line, JSON, None, None) for line in lines])
        await self.settled()


@asynccontextmanager
async def shown(folder: Path, *, sink: RollupSink | None = None, **changes: Any) -> AsyncIterator[Shown]:
    """The application, bound to loopback, and an engine that folds what it takes; ``changes`` are of its parts.
    ``sink``: where rollups go, embedded by default."""
    async with prepared(folder) as (app, parts):
        await unsynced(app.stores)
        engine = Engine(app.stores)
        engine.now_ms = NOW_MS
        if sink is not None:
            engine.parts = replace(engine.parts, rollup_sink=sink)
        await engine.start()
        rollups, archive = Breakable(engine.parts.rollup_sink), Breakable(app.stores.raw_events)
        changes = {"rollup_sink": rollups, "raw_events": archive, **changes}
        parts = replace(parts, registry=app.stores.registry, clock=lambda: engine.now_ms, **changes)
        server = Listening(build(parts))
        await server.start_server()
        async with TestClient(server) as app.client:
            yield Shown(app, engine, rollups, archive, f"http://{server.host}:{server.port}")
        await engine.stop()


async def overview(app: Served, range: str = "24h") -> dict[str, Any]:
    response = await app.get(f"/v1/overview?range={range}")
    assert response.status == 200, await response.text()
    found: dict[str, Any] = await response.json()
    return found


def expected(rollup: str) -> list[Mapping[str, Any]]:
    """Rows of hours that the sample must give."""
    rows: list[Mapping[str, Any]] = json.loads((DATA / "clowder-6h.expected-1h.json").read_bytes())[rollup]
    return rows


async def until(condition: Any, limit_s: float = 20.0) -> None:
    """Wait until it holds, and no longer."""
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.02)
