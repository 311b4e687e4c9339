"""The monitor, put together: schedules report into the outbox, the poster empties it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from prometheus_client import CollectorRegistry
from yarl import URL

from monitors import windows
from monitors.config import MonitorConfig
from monitors.metrics import MonitorMetrics
from monitors.outbox import Outbox
from monitors.posting import Endpoint, NotTaken, Poster
from monitors.probe import Surroundings
from monitors.probes import AnyProbeSettings, build
from monitors.reference import Reference
from monitors.schedule import Clocks, Reporting, Schedule, valid_for_s
from monitors.secrets import read_secret
from topology.errors import SettingsError, Unavailable
from topology.uuid7 import uuid7

log = logging.getLogger(__name__)

OUTBOX_FILE = "outbox.db"
REFERENCE_WITHIN_S = 3.0
#: At the end, together well below five seconds: checks in hand, then one more try to post.
FINISHED_WITHIN_S = 2.0
FLUSHED_WITHIN_S = 1.5
#: Results that the disk does not take wait in memory, so many at most; more are dropped.
MOST_UNKEPT = 10_000


class Monitor:
    """A monitor over an open outbox."""

    def __init__(
        self,
        config: MonitorConfig,
        environment: Mapping[str, str],
        outbox: Outbox,
        session: aiohttp.ClientSession,
        clocks: Clocks,
    ) -> None:
        """Raises ``SettingsError``: a probe's secrets are read here."""
        self.registry = CollectorRegistry()
        self._config = config
        self._outbox = outbox
        self._clocks = clocks
        metrics = MonitorMetrics(self.registry, lambda: outbox.held, clocks.wall_ms)
        self.poster = Poster(
            outbox,
            endpoint_of(config, environment),
            session,
            metrics,
            sleep=clocks.sleep,
            jitter=clocks.chance,
        )
        self._unkept: list[Mapping[str, object]] = []
        self._keeping = asyncio.Lock()
        self._dropping = False
        self._disk_away: str | None = None
        to = Reporting(
            region=config.region,
            source=config.installation,
            report=self.report,
            metrics=metrics,
            reference=Reference(config.reference, timeout=REFERENCE_WITHIN_S),
        )
        surroundings = Surroundings(
            folder=Path(config.folder), environment=environment, monotonic=clocks.monotonic
        )
        self._schedules = [self._schedule(settings, surroundings, to) for settings in config.probe]
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._posting: asyncio.Task[None] | None = None

    def _schedule(self, settings: AnyProbeSettings, surroundings: Surroundings, to: Reporting) -> Schedule:
        reference_s = REFERENCE_WITHIN_S if self._config.reference else 0.0
        return Schedule(
            settings,
            lambda: build(settings, surroundings),
            to,
            self._clocks,
            valid_for=valid_for_s(settings, reference_s=reference_s),
        )

    async def report(self, event: Mapping[str, object]) -> None:
        """Keep an event for the endpoint. Raises nothing that a disk does: what it does not take is tried again with
        the next event."""
        if len(self._unkept) >= MOST_UNKEPT:
            self._tell_dropped("the disk takes nothing")
            return
        self._unkept.append(event)
        async with self._keeping:
            await self._keep()
        self.poster.wake()

    async def _keep(self) -> None:
        handed, self._unkept = self._unkept, []
        if not handed:
            return
        try:
            kept = await self._outbox.keep(handed)
        except Unavailable as error:
            self._unkept = [*handed, *self._unkept]
            if self._disk_away is None:
                log.error("results wait in memory and are lost with this process: %s", error)
            self._disk_away = str(error)
            return
        self._disk_away = None
        if kept < len(handed):
            self._tell_dropped("the outbox is full, raise outbox_max_bytes or bring the endpoint back")
        else:
            self._dropping = False

    def _tell_dropped(self, why: str) -> None:
        if not self._dropping:
            log.error("results are dropped: %s", why)
        self._dropping = True

    def start(self) -> list[asyncio.Future[None]]:
        """Begin. What is returned fails where the monitor cannot go on."""
        self._posting = asyncio.create_task(self.poster.run(), name="posting")
        self._tasks = [asyncio.create_task(each.run(self._ending)) for each in self._schedules]
        self._tasks.append(asyncio.create_task(self._announced(), name="maintenance windows"))
        return [self._posting, *self._tasks[:-1]]

    async def _announced(self) -> None:
        clocks = self._clocks
        await windows.announce(self._config, self.report, wall_ms=clocks.wall_ms, sleep=clocks.sleep)

    async def stop(self) -> None:
        """Finish what runs, post what there is if that is quick, and leave the rest in the outbox."""
        self._ending.set()
        if self._tasks:
            self._tasks[-1].cancel()
            await asyncio.wait(self._tasks, timeout=FINISHED_WITHIN_S)
        await _ended([*self._tasks, *([self._posting] if self._posting is not None else [])])
        try:
            async with asyncio.timeout(FLUSHED_WITHIN_S):
                await self.poster.post_all()
        except TimeoutError:
            self._tell_waiting("no answer")
        except (NotTaken, Unavailable) as error:
            self._tell_waiting(str(error))

    def _tell_waiting(self, why: str) -> None:
        held = self._outbox.held
        log.warning("%d result(s) wait in %s for the next start: %s", held.events, self._outbox.path, why)

    async def once(self) -> None:
        """One check of each probe, then post everything. Raises ``Unavailable`` where it was not taken: it waits."""
        await windows.announce_past(self._config, self.report, wall_ms=self._clocks.wall_ms)
        await asyncio.gather(*(each.once() for each in self._schedules))
        if self._disk_away is not None:
            raise Unavailable(f"what was measured is lost: {self._disk_away}")
        try:
            await self.poster.post_all()
        except NotTaken as error:
            held = await self._outbox.look()
            raise Unavailable(
                f"{held.events} result(s) wait in {self._outbox.path} for the next run: {error}"
            ) from error

    async def ready(self) -> Mapping[str, str | None]:
        """For ``/readyz``. An endpoint that is away is what the outbox is for."""
        return {"outbox": self._disk_away}


async def _ended(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            log.error("ended by %s", result, exc_info=result)


@asynccontextmanager
async def opened(
    config: MonitorConfig, environment: Mapping[str, str], clocks: Clocks
) -> AsyncIterator[Monitor]:
    """A monitor with its outbox open, not started. Raises ``SettingsError``, ``Unavailable`` or ``ForeignSchema``."""
    async with _outbox(config) as outbox, _session(config) as session:
        yield Monitor(config, environment, outbox, session, clocks)


async def deliver(
    config: MonitorConfig,
    events: Sequence[Mapping[str, object]],
    environment: Mapping[str, str],
    clocks: Clocks,
) -> str | None:
    """Put events of a command (``source``, ``id`` and ``time`` are put in where they are missing) into the outbox,
    behind what waits there, and try once to post everything.

    None if all was posted; else why not: then it waits for the running monitor or the next command. Raises
    ``SettingsError``, ``ForeignSchema`` or ``Unavailable`` (it was not kept).
    """
    now_ms = clocks.wall_ms()
    stamped = [
        {"source": config.installation, "id": uuid7(now_ms), "time": now_ms, **event} for event in events
    ]
    endpoint = endpoint_of(config, environment)
    async with _outbox(config) as outbox, _session(config) as session:
        if await outbox.keep(stamped) < len(stamped):
            raise Unavailable(f"{outbox.path} is full: bring the endpoint back, or raise outbox_max_bytes")
        metrics = MonitorMetrics(CollectorRegistry(), lambda: outbox.held, clocks.wall_ms)
        try:
            await Poster(outbox, endpoint, session, metrics).post_all()
        except NotTaken as error:
            return str(error)
    return None


def endpoint_of(config: MonitorConfig, environment: Mapping[str, str]) -> Endpoint:
    """Where to post, with the key. Raises ``SettingsError``."""
    key = read_secret("key", environment, env=config.key_env, file=config.key_file)
    return Endpoint(url=URL(config.endpoint), key=key)


@asynccontextmanager
async def _outbox(config: MonitorConfig) -> AsyncIterator[Outbox]:
    folder = Path(config.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything runs
    except OSError as error:
        raise Unavailable(f"{folder}: {error.strerror}: name another folder in the configuration") from error
    outbox = Outbox(folder / OUTBOX_FILE, max_bytes=config.outbox_max_bytes)
    await outbox.open()
    try:
        yield outbox
    finally:
        await outbox.close()


@asynccontextmanager
async def _session(config: MonitorConfig) -> AsyncIterator[aiohttp.ClientSession]:
    tls = ssl.create_default_context()
    if config.ca_file is not None:
        try:
            tls.load_verify_locations(config.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"ca_file names {config.ca_file}: {error.strerror or error}") from error
    connector = aiohttp.TCPConnector(ssl=tls, limit=1)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as session:
        yield session
