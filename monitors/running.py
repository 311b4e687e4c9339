"""The monitor, put together: schedules report into the outbox, the poster empties it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from prometheus_client import CollectorRegistry
from yarl import URL

from monitors import windows
from monitors.blocking import Names
from monitors.config import MonitorConfig
from monitors.keeping import Keeper
from monitors.metrics import show_outbox
from monitors.outbox import Outbox
from monitors.posting import Endpoint, NotTaken, Poster, Refusals, log_refusals
from monitors.probe import Measured, Read, Surroundings
from monitors.probes import AnyProbeSettings, build
from monitors.reference import REFERENCE_WITHIN_S, Reference
from monitors.schedule import Clocks, Reporting, Schedule, valid_for_s
from monitors.secrets import read_secret
from monitors.words import counted
from topology.errors import ForeignSchema, Refused, SettingsError, Unavailable
from topology.metrics import MonitorMetrics
from topology.uuid7 import uuid7

log = logging.getLogger(__name__)

OUTBOX_FILE = "outbox.db"
#: At the end, together well below five seconds: checks in hand, then one more try to post.
FINISHED_WITHIN_S = 2.0
FLUSHED_WITHIN_S = 1.5


class Monitor:
    """A monitor over an open outbox."""

    def __init__(
        self,
        config: MonitorConfig,
        environment: Mapping[str, str],
        outbox: Outbox,
        session: aiohttp.ClientSession,
        clocks: Clocks,
        names: Names,
    ) -> None:
        """Raises ``SettingsError``: a probe's secrets are read here."""
        self.registry = CollectorRegistry()
        self._config = config
        self._outbox = outbox
        self._clocks = clocks
        self._keeper = Keeper(outbox)
        metrics = MonitorMetrics(self.registry)
        show_outbox(metrics, self._keeper.held, max_bytes=config.outbox_max_bytes, clock_ms=clocks.wall_ms)
        self.poster = Poster(
            outbox,
            endpoint_of(config, environment),
            session,
            metrics,
            sleep=clocks.sleep,
            jitter=clocks.chance,
            tell_refused=self._refused,
        )
        self._never_taken = 0
        to = Reporting(
            region=config.region,
            source=config.installation,
            report=self.report,
            metrics=metrics,
            reference=Reference(config.reference, timeout=REFERENCE_WITHIN_S, names=names),
        )
        surroundings = Surroundings(
            environment=environment, monotonic=clocks.monotonic, progress=self._keeper.progress, names=names
        )
        self._schedules = self._scheduled(surroundings, to)
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._posting: asyncio.Task[None] | None = None

    def _scheduled(self, surroundings: Surroundings, to: Reporting) -> list[Schedule]:
        """Raises ``SettingsError``: a line for each probe that cannot be built."""
        schedules: list[Schedule] = []
        wrong: list[str] = []
        for index, settings in enumerate(self._config.probe):
            try:
                schedules.append(self._schedule(settings, surroundings, to))
            except SettingsError as error:
                wrong.append(f"probe[{index}]: {error}")
        if wrong:
            raise SettingsError("\n".join(wrong))
        return schedules

    def _schedule(self, settings: AnyProbeSettings, surroundings: Surroundings, to: Reporting) -> Schedule:
        reference_s = REFERENCE_WITHIN_S if self._config.reference else 0.0
        return Schedule(
            settings,
            lambda: build(settings, surroundings),
            to,
            self._clocks,
            valid_for=valid_for_s(settings, reference_s=reference_s),
        )

    async def report(self, result: Measured | Read) -> None:
        """Keep a result for the endpoint, and post it."""
        await self._keeper.keep(result)
        self.poster.wake()

    def start(self) -> list[asyncio.Future[None]]:
        """Begin. What is returned fails where the monitor cannot go on."""
        self._posting = asyncio.create_task(self.poster.run(), name="posting")
        self._tasks = [asyncio.create_task(each.run(self._ending)) for each in self._schedules]
        self._tasks.append(asyncio.create_task(self._announced(), name="maintenance windows"))
        return [self._posting, *self._tasks]

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
                await self._keeper.flush()
                await self.poster.post_all()
        except TimeoutError:
            self._tell_waiting("no answer")
        except (NotTaken, Unavailable) as error:
            self._tell_waiting(str(error))
        if self._keeper.unkept:
            log.error("%s lost, the disk takes nothing", counted(self._keeper.unkept, "result"))

    def _refused(self, refusals: Refusals, posted: int) -> None:
        self._never_taken += len(refusals)
        log_refusals(refusals, posted)

    def _tell_waiting(self, why: str) -> None:
        held = self._outbox.held
        if held.events:
            log.warning(
                "%s kept in %s for the next start: %s", counted(held.events, "result"), self._outbox.path, why
            )

    async def once(self) -> None:
        """One check of each probe, then post everything. Raises ``Unavailable`` where it was not taken: it waits; and
        ``Refused`` where some of it never will be."""
        await windows.announce_past(self._config, self.report, wall_ms=self._clocks.wall_ms)
        await asyncio.gather(*(each.once() for each in self._schedules))
        if self._keeper.unkept:
            raise Unavailable(f"{counted(self._keeper.unkept, 'result')} lost: {self._keeper.away}")
        try:
            await self.poster.post_all()
        except NotTaken as error:
            held = await self._outbox.look()
            raise Unavailable(
                f"{counted(held.events, 'result')} kept in {self._outbox.path} for the next run: {error}"
            ) from error
        if self._never_taken:
            raise Refused(
                f"{counted(self._never_taken, 'result')} refused for good by {self._config.endpoint}: see above"
            )

    async def ready(self) -> Mapping[str, str | None]:
        """For ``/readyz``. An endpoint that is away is what the outbox is for."""
        return {"outbox": self._keeper.away}


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
    names = Names()
    async with _outbox(config) as outbox, _session(config, names) as session:
        yield Monitor(config, environment, outbox, session, clocks, names)


async def deliver(
    config: MonitorConfig,
    events: Sequence[Mapping[str, object]],
    environment: Mapping[str, str],
    clocks: Clocks,
) -> str | None:
    """Put events of a command (``source``, ``id`` and ``time`` are put in where they are missing) into the outbox,
    behind what waits there, and try once to post everything.

    None if all was posted; else why not: then it waits for the running monitor or the next command. Raises
    ``SettingsError``, ``ForeignSchema``, ``Unavailable`` (it was not kept) or ``Refused`` (the endpoint will never take
    it).
    """
    now_ms = clocks.wall_ms()
    stamped = [
        {"source": config.installation, "id": uuid7(now_ms), "time": now_ms, **event} for event in events
    ]
    endpoint = endpoint_of(config, environment)
    refused: dict[bytes, str] = {}

    def note(refusals: Refusals, posted: int) -> None:
        refused.update(refusals)

    async with _outbox(config) as outbox, _session(config, Names()) as session:
        if (await outbox.keep(stamped)).dropped:
            raise Unavailable(f"{outbox.path} is full: bring the endpoint back, or raise outbox_max_bytes")
        metrics = MonitorMetrics(CollectorRegistry())
        try:
            await Poster(outbox, endpoint, session, metrics, tell_refused=note).post_all()
        except NotTaken as error:
            away: str | None = str(error)
        else:
            away = None
    ours = {msgspec.json.encode(event) for event in stamped}
    others = {body: why for body, why in refused.items() if body not in ours}
    if others:
        log_refusals(others, len(others))
    for body, why in refused.items():
        if body in ours:
            raise Refused(f"{config.endpoint} will never take it, it is dropped: {why}")
    return away


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
    try:
        await outbox.open()
    except ForeignSchema as error:
        raise ForeignSchema(f"{str(error).partition(':')[0]}: move it away, or name another folder") from None
    try:
        yield outbox
    finally:
        await outbox.close()


@asynccontextmanager
async def _session(config: MonitorConfig, names: Names) -> AsyncIterator[aiohttp.ClientSession]:
    tls = ssl.create_default_context()
    if config.ca_file is not None:
        try:
            tls.load_verify_locations(config.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"ca_file names {config.ca_file}: {error.strerror or error}") from error
    connector = aiohttp.TCPConnector(ssl=tls, limit=1, resolver=names)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as session:
        yield session
