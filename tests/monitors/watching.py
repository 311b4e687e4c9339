"""A stand-in of Clowder, monitors of several regions that watch it, and what their results must come to."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from schemas.events import Event, Pinged
from schemas.reading import read
from tests.monitors.targets import saying
from tests.oracle import placed, rollups
from tests.processes import Instance, Service

REGIONS = ("eu", "us", "asia")
INTERVAL_S = 0.5
WAITED_FOR_S = 120.0
#: No result holds for longer.
FOR_EVER_MS = 3_600_000 + 1
#: Of ``service_uptime``: what does not move on with the watermark.
SETTLED = ("up_s", "down_s", "maintenance_s", "checks", "failures")

CONFIG = """
endpoint = "{endpoint}"
key_env = "MONITOR_KEY"
region = "{region}"
[[probe]]
kind = "healthz"
service = "clowder"
url = "http://127.0.0.1:{target}/healthz"
interval = {interval}
timeout = 2.0
retries = 1
retry_delay = 0.05
{more}
"""


class StandIn:
    """Says ``healthy`` while it is there. ``away`` are the stretches in which it was not, in epoch seconds."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.away: list[list[float]] = []
        application = web.Application()
        application.router.add_get("/healthz", saying("healthy"))
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        self._site: web.TCPSite | None = None

    async def come_back(self) -> None:
        if self._site is None:
            await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        if self.away and len(self.away[-1]) == 1:
            self.away[-1].append(time.time())

    async def go_away(self, *, planned: bool = False) -> None:
        """``planned``: in maintenance, which is no time in which it was away."""
        assert self._site is not None
        if not planned:
            self.away.append([time.time()])
        await self._site.stop()

    async def end(self) -> None:
        await self._runner.cleanup()

    @property
    def away_s(self) -> float:
        return sum(until - since for since, until in self.away)


async def health_key(instance: Instance) -> str:
    """A key that monitors use."""
    made = await instance.run("keys", "create", "--name", "monitors", "--scopes", "health")
    assert made.code == 0, made.err
    (key,) = re.findall(r"\bes_\w+", made.out)
    return str(key)


class Watchers:
    """Three running monitors."""

    def __init__(
        self, instances: Mapping[str, Instance], monitors: dict[str, Service], free_port: Callable[[], int]
    ) -> None:
        self.instances = instances
        self.monitors = monitors
        self._free_port = free_port

    async def start(self, region: str) -> None:
        self.monitors[region] = await self.instances[region].start(
            "monitor", self._free_port(), "--config", "monitors.toml"
        )

    async def kill(self, region: str) -> None:
        """``kill -9``, where it runs."""
        if region in self.monitors:
            await self.monitors[region].kill()

    async def maintenance(self, region: str, word: str) -> None:
        """As somebody there says it."""
        ended = await self.instances[region].run(
            *("monitor", "maintenance", word, "--config", "monitors.toml", "--service", "clowder")
        )
        assert ended.code == 0, ended.err

    async def until(self, sample: str, holds: Callable[[float], bool]) -> None:
        """Wait until every monitor shows such a value."""

        async def shows(service: Service) -> None:
            while not holds(await shown(service, sample)):
                await asyncio.sleep(0.02)

        async with asyncio.timeout(WAITED_FOR_S), asyncio.TaskGroup() as group:
            for service in self.monitors.values():
                group.create_task(shows(service))

    async def until_more(self, result: str, count: int, *, kind: str = "healthz") -> None:
        """Wait until every monitor has had so many more checks with this result."""
        sample = f'eventsink_monitor_checks_total{{kind="{kind}",result="{result}",service="clowder"}}'

        async def shows(service: Service) -> None:
            wanted = await shown(service, sample) + count
            while await shown(service, sample) < wanted:
                await asyncio.sleep(0.02)

        async with asyncio.timeout(WAITED_FOR_S), asyncio.TaskGroup() as group:
            for service in self.monitors.values():
                group.create_task(shows(service))

    async def stop(self) -> int:
        """End them; how many results they have measured in all. Nothing waits any more."""
        for service in self.monitors.values():
            assert await service.stop() == 0, service.output
            assert "Traceback" not in service.output
        return sum(self._measured(instance.folder) for instance in self.instances.values())

    def _measured(self, folder: Path) -> int:
        outbox = sqlite3.connect(folder / "monitor-data" / "outbox.db")
        try:
            assert outbox.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
            (count,) = outbox.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
            return int(count)
        finally:
            outbox.close()


async def shown(service: Service, sample: str) -> float:
    """The value of a sample, 0 where there is none yet."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", await service.metrics(), re.MULTILINE)
    return float(found[1]) if found is not None else 0.0


@asynccontextmanager
async def watching(
    folder: Path,
    endpoint: str,
    key: str,
    target: int,
    free_port: Callable[[], int],
    *,
    more: str = "",
    **secrets: str,
) -> AsyncIterator[Watchers]:
    """A monitor in each region; ``more`` are probes beside that of the stand-in."""
    instances: dict[str, Instance] = {}
    for region in REGIONS:
        (folder / region).mkdir()
        (folder / region / "monitors.toml").write_text(
            CONFIG.format(endpoint=endpoint, region=region, target=target, interval=INTERVAL_S, more=more)
        )
        instances[region] = Instance(folder / region, {"MONITOR_KEY": key, **secrets})
    watchers = Watchers(instances, {}, free_port)
    async with AsyncExitStack() as stack:
        for region in REGIONS:
            stack.push_async_callback(watchers.kill, region)
            await watchers.start(region)
        yield watchers


async def arrived(instance: Instance, count: int) -> list[Event]:
    """Wait until the archive has so many events, no more, each once, and return them in the order of the log."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(WAITED_FOR_S):
        while len(found) < count:
            found = await instance.events()
    assert len(found) == count
    assert len({(each["source"], each["id"], each["time"]) for each in found}) == count
    events = []
    for each in sorted(found, key=lambda one: [int(part) for part in one["position"].split("/")]):
        event = read(msgspec.json.encode(each))
        assert isinstance(event, Event)
        events.append(event)
    return events


async def comes_to_what_was_measured(
    instance: Instance, events: list[Event], window: str
) -> dict[str, dict[str, float]]:
    """Wait until ``service_uptime`` is what recomputing it from the results gives; its sums by region."""
    last_ms = max(event.time or 0 for event in events)
    everything = rollups(placed(events), watermark_ms=last_ms + FOR_EVER_MS)["service_uptime", window]
    want = {
        (str(start_s), *tags): {name: row[name] for name in SETTLED if name in row}
        for (start_s, tags), row in everything.items()
        if row["up_s"] or row["down_s"] or row.get("checks")
    }
    got: dict[tuple[str, ...], dict[str, Any]] = {}
    try:
        async with asyncio.timeout(WAITED_FOR_S):
            while True:
                rows = await instance.rows("service_uptime", window)
                got = {
                    key: {name: row[name] for name in SETTLED if name in row}
                    for key, row in rows.items()
                    if row["up_s"] or row["down_s"] or row.get("checks")
                }
                if same(got, want):
                    break
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{got} is not {want}") from None
    sums: dict[str, dict[str, float]] = {}
    for (_, service, region), row in got.items():
        assert service == "clowder"
        for name, value in row.items():
            of_region = sums.setdefault(region, {})
            of_region[name] = of_region.get(name, 0) + value
    return sums


async def numbers_are_those_of(instance: Instance, events: list[Event], name: str) -> None:
    """Wait until a rollup is what recomputing it from the results gives."""
    want = {
        (str(start_s), *key): row
        for (start_s, key), row in rollups(placed(events), watermark_ms=0)[name, "1m"].items()
    }
    assert want
    got: dict[tuple[str, ...], dict[str, Any]] = {}
    try:
        async with asyncio.timeout(WAITED_FOR_S):
            while not same(got, want):
                got = await instance.rows(name, "1m")
    except TimeoutError:
        raise AssertionError(f"{got} is not {want}") from None


async def right_to_the_second(instance: Instance, clowder: StandIn, measured: int) -> list[Event]:
    """Every result is there once, ``service_uptime`` is what they give, and that is what happened."""
    events = await arrived(instance, measured)
    for window in ("1m", "1h"):
        sums = await comes_to_what_was_measured(instance, events, window)
        assert sums.keys() == {*REGIONS, "all"}
        for region, row in sums.items():
            assert abs(row["down_s"] - clowder.away_s) <= seen_within_s(events, region, clowder), (
                region,
                row,
                clowder.away,
            )
        checks = sum(isinstance(event, Pinged) for event in events)
        assert sum(sums[region]["checks"] for region in REGIONS) == checks
    return events


def seen_within_s(events: list[Event], region: str, clowder: StandIn) -> float:
    """How exact the downtime of a region can be: a change is seen between the checks that began before and after it,
    and how far those are apart on a busy machine is not the monitor's doing."""
    begun: dict[str, list[float]] = {each: [] for each in (REGIONS if region == "all" else (region,))}
    for event in events:
        if isinstance(event, Pinged) and event.region in begun:
            begun[event.region].append((event.time or 0) / 1000)
    return sum(
        max(
            min(at for at in times if at > change) - max(at for at in times if at <= change)
            for times in begun.values()
        )
        for stretch in clowder.away
        for change in stretch
    )


def same(
    got: Mapping[tuple[str, ...], Mapping[str, Any]], want: Mapping[tuple[str, ...], Mapping[str, Any]]
) -> bool:
    """Seconds to the millisecond, counts exactly."""
    return got.keys() == want.keys() and all(
        got[key].keys() == want[key].keys()
        and all(abs(got[key][name] - want[key][name]) < 0.0015 for name in want[key])
        for key in want
    )
