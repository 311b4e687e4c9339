"""The running program, put together: open parts, agents, web application. ``up``, ``worker`` and ``web`` are
choices among them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from aiohttp import web
from prometheus_client import CollectorRegistry
from yarl import URL

from agents import AGENTS, FORWARDERS, ROLLUPS
from cli import forwarders, parts, process
from cli.process import clock_ms, patiently
from cli.settings import Settings
from topology.errors import EventsinkError, SettingsError, Unavailable
from topology.flow import Flow, agents_of
from topology.group.groups import Group
from topology.health import Health
from topology.log import Log
from topology.metrics import ConnectionMetrics, Metrics, SpoolMetrics
from topology.outages import Outages
from topology.parts import GroupParts
from topology.sinks import DeadLetters, RawEvents, RollupSink
from topology.sqlite.log import SqliteLog
from topology.state import StateStore
from web import probes
from web.access import access_log
from web.application import WebParts, build
from web.connections import ConnectionLimits
from web.delivery import BrokerDelivery, Delivery, LogDelivery
from web.draining import Drainer
from web.idempotency import Idempotency
from web.keys import Keys
from web.limits import Limits, Rate
from web.metrics import show_spool
from web.overview.present import Progress
from web.problems import problems
from web.spool import Spool

log = logging.getLogger(__name__)

#: What makes a dependency "away" for whoever asks whether we are ready.
READY_WITHIN_S = 2.0
#: What has not answered by then at the start of ``web`` is opened later: events are to be taken now.
OPENED_WITHIN_S = 1.0
TRIM_EVERY_S = 60.0
#: `eventsink keys list` is behind by this much.
LAST_USE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Parts that are connected. They are closed with the stack that they were opened on."""

    log: Log
    state: StateStore
    rollup_sink: RollupSink
    raw_events: RawEvents
    dead_letters: DeadLetters


async def opened(stack: AsyncExitStack, settings: Settings, *, patience: timedelta | None) -> Opened:
    """Open every part; a server that does not answer is waited for. Raises what ``open`` raises.

    ``patience`` None: wait for a moment only. What is away is opened as soon as it is back, by a task of the stack;
    until then whoever uses it gets ``Unavailable``.
    """
    shared = parts.Shared(settings)
    made = Opened(
        log=parts.open_log(settings),
        state=parts.state_store(settings, shared),
        rollup_sink=parts.rollup_sink(settings, shared),
        raw_events=parts.raw_events(settings, shared),
        dead_letters=parts.dead_letters(settings, shared),
    )
    for part in (made.state, made.rollup_sink, made.raw_events, made.dead_letters, made.log):
        stack.push_async_callback(part.close)
        if patience is not None:
            await patiently(part.open, patience)
            continue
        opening = push_task(stack, Outages().ridden_out(type(part).__name__, part.open))
        opening.add_done_callback(_tell_failure)
        done, _ = await asyncio.wait({opening}, timeout=OPENED_WITHIN_S)
        if done:
            opening.result()
        else:
            log.warning("going on without %s, it is opened when it is there", type(part).__name__)
    return made


def _tell_failure(opening: asyncio.Future[None]) -> None:
    """Of an opening that goes on beside everything else: nobody waits for its end."""
    if not opening.cancelled() and (error := opening.exception()) is not None:
        log.error("it cannot be opened, restart when that is mended: %s", error)


def push_task(stack: AsyncExitStack, work: Coroutine[None, None, None]) -> asyncio.Future[None]:
    """Do ``work`` beside everything else; cancelled with the stack."""
    task = asyncio.ensure_future(work)

    async def ended() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(ended)
    return task


class Running:
    """What runs in this process, and how it is. ``failures`` end the process."""

    def __init__(self, stack: AsyncExitStack, settings: Settings, part: Opened) -> None:
        self._stack = stack
        self._settings = settings
        self._part = part
        self._flow: Flow | None = None
        self._outages = Outages()
        self._delivery: Delivery | None = None
        self.registry = CollectorRegistry()
        #: Names of the agents that were started.
        self.agents: list[str] = []
        self.failures: list[asyncio.Future[None]] = []

    async def start_agents(self, groups: Sequence[str]) -> None:
        """Start the agents of these groups; stopped with the stack, before the parts are closed."""
        settings = self._settings
        members = [*AGENTS, *(each for each in FORWARDERS if each.name in forwarders.forwardings(settings))]
        agents = agents_of(members, groups)
        if not agents:
            raise SettingsError(f"no agent is in {', '.join(groups)}: name a group that has some")
        self.agents = [agent.name for agent in agents]
        flow = Flow(
            URL(settings.log.url.reveal()),
            agents,
            self._group_parts(),
        )
        await flow.start()
        self._stack.push_async_callback(flow.stop)
        self._flow = flow
        if flow.failed is not None:
            self.failures.append(flow.failed)
        if isinstance(self._part.log, SqliteLog):
            self.failures.append(push_task(self._stack, self._trimmed(self._part.log)))

    def _group_parts(self) -> GroupParts:
        """Made once: metrics have their names once."""
        settings, part = self._settings, self._part
        return GroupParts(
            log=part.log,
            store=part.state,
            rollup_sink=part.rollup_sink,
            raw_events=part.raw_events,
            dead_letters=part.dead_letters,
            metrics=Metrics(self.registry),
            outages=self._outages,
            clock_ms=clock_ms,
            checkpoint_every=settings.checkpoint_every,
            keep=settings.keep,
            log_start=settings.log.start,
            key_budget=settings.key_budget,
            doubled_downloads_once=settings.doubled_downloads_once,
            forwardings=forwarders.forwardings(settings),
        )

    async def own(self, group: str) -> asyncio.Future[None]:
        """Own a group without reading the log: what is asked of its owner is carried out. Until the stack ends. What is
        returned fails where the group cannot go on."""
        members = [agent for agent in AGENTS if agent.group == group]
        owned = Group(group, members, self._group_parts())
        await owned.start()
        self._stack.push_async_callback(owned.stop)
        assert owned.failed is not None  # noqa: S101 - it was started
        return owned.failed

    async def web_application(self, host: str, keys: Keys) -> web.Application:
        """Ingest, queries and the page. What the spool holds is drained from now on, until the stack ends."""
        part, chosen = self._part, self._settings.web
        push_task(self._stack, _last_use_kept(keys))
        self._delivery = await self._open_delivery()
        requests = Idempotency(self._settings.requests_file, clock=clock_ms)
        self._stack.push_async_callback(requests.close)
        return build(
            WebParts(
                delivery=self._delivery,
                requests=requests,
                rollup_sink=await self._asked(),
                raw_events=part.raw_events,
                dead_letters=part.dead_letters,
                rollups=ROLLUPS,
                keys=keys,
                loopback=is_loopback(host),
                clock=clock_ms,
                ready=self.ready,
                spared=self.stopped,
                registry=self.registry,
                progress=self._progress,
                limits=Limits(
                    key_rate=Rate(per_s=chosen.key_rate, burst=chosen.key_burst),
                    trusted_proxies=chosen.trusted_proxies,
                    cors_origins=chosen.cors_origins,
                ),
            )
        )

    async def _asked(self) -> RollupSink:
        """The rollups as they are asked for over HTTP. Embedded, on a connection of their own: a question about
        thousands of keys takes a while, in which the agents' rows are to be written."""
        if self._settings.influx is not None:
            return self._part.rollup_sink
        own = parts.rollup_sink(self._settings)
        try:
            await own.open()
        except Unavailable:
            return self._part.rollup_sink  # which is opened when the disk is there
        self._stack.push_async_callback(own.close)
        return own

    async def _progress(self) -> Progress:
        return Progress(await self._part.state.read_groups(), await self._part.log.end_offset())

    async def _open_delivery(self) -> Delivery:
        settings, part = self._settings, self._part
        if settings.log.embedded:
            return LogDelivery(part.log)
        spool = Spool(settings.spool_file, max_bytes=settings.spool_max_bytes)
        drainer = Drainer(part.log, spool, blocked=lambda: _blocked(part.log))
        delivery = BrokerDelivery(part.log, spool, drainer)
        show_spool(
            SpoolMetrics(self.registry),
            lambda: delivery.held,
            max_bytes=settings.spool_max_bytes,
            clock=clock_ms,
        )
        self._stack.push_async_callback(delivery.close)
        await delivery.open()
        return delivery

    async def serve(
        self, application: web.Application, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> process.Listening:
        """Listen until the stack ends; returns the address."""
        return await process.serve(
            self._stack,
            application,
            host,
            port,
            limits=ConnectionLimits(max_connections=self._settings.web.max_connections),
            metrics=ConnectionMetrics(self.registry),
            tls=tls,
        )

    def probes_application(self) -> web.Application:
        """Health and metrics alone, of a worker. It only works: if it does not, restarting it costs nobody anything. A
        process that takes events as well stays alive by its ``/healthz``, and says who is stuck in ``/readyz``."""
        application = web.Application(middlewares=[access_log, problems])
        application.add_routes(probes.routes(self.ready, self.registry, stuck=self._stuck))
        return application

    def _stuck(self) -> Mapping[str, str]:
        return {} if self._flow is None else self._flow.health.stuck

    @property
    def health(self) -> Health | None:
        """How the agents are; None where this process has none."""
        return None if self._flow is None else self._flow.health

    async def ready(self) -> Mapping[str, str | None]:
        """Each dependency, and what it said where it does not work. A log that is away does not matter to whoever
        sends events while the spool takes them."""
        found: dict[str, str | None] = {}
        delivery = self._delivery if isinstance(self._delivery, BrokerDelivery) else None
        if delivery is None or delivery.spooling is None:
            found["log"] = _blocked(self._part.log) or await _answer(self._part.log.end_offset)
            if delivery is not None and (said := found["log"]) is not None:
                delivery.broker_failed(said)
        if delivery is not None and delivery.spooling is not None:
            found.pop("log", None)
            found["spool"] = await _answer(delivery.prove)
        if self._flow is not None:
            found["state"] = None
            found[self._part.raw_events.name] = None
            found.update((name, said) for name, said in self._outages.away.items())
            found.update(self._flow.health.stuck)
            for group in self._flow.groups:
                if group.sink_away is not None:
                    found[self._part.rollup_sink.name] = group.sink_away
        found.update(self.stopped())
        return found

    def stopped(self) -> Mapping[str, str]:
        """Agents whose vendor takes nothing until somebody mends something, and what. Events are accepted all the
        same, so where we accept some we are ready; a worker, which only works, is not."""
        groups = () if self._flow is None else self._flow.groups
        return {agent: reason for group in groups for agent, reason in group.stopped.items()}

    async def _trimmed(self, embedded_log: SqliteLog) -> None:
        """Keep the embedded log within its retention, as a broker does with its own."""
        settings = self._settings.log
        while True:
            try:
                forgotten = await embedded_log.trim(
                    max_age=settings.max_age_span, max_bytes=settings.max_bytes, now_ms=clock_ms()
                )
            except Unavailable as error:
                log.warning("the embedded log could not be trimmed: %s", error)
            else:
                if forgotten:
                    log.info("forgot %d messages that are beyond the retention of the log", forgotten)
            await asyncio.sleep(TRIM_EVERY_S)


async def _last_use_kept(keys: Keys) -> None:
    """Write when keys were last used, now and then and at the end. Nothing depends on it, so nothing ends by it."""
    told = False
    while True:
        ending = False
        try:
            await asyncio.sleep(LAST_USE_EVERY_S)
        except asyncio.CancelledError:
            ending = True
        try:
            known = {key.sha256 for key in keys.list()}
            if ending:
                keys.last_used.write(known)  # nobody is served any more who would wait
            else:
                await asyncio.to_thread(keys.last_used.write, known)
            told = False
        except EventsinkError as error:
            if not told:
                log.warning("%s", error)
            told = True
        if ending:
            return


def _blocked(log: Log) -> str | None:
    """A broker that is short of memory or disk answers every question, and takes no event."""
    if isinstance(log, SqliteLog):
        return None
    from topology.rabbitmq.log import RabbitLog  # who stays embedded does not load the AMQP client

    if isinstance(log, RabbitLog) and log.publisher.blocked is not None:
        return f"the broker takes nothing: {log.publisher.blocked}"
    return None


async def _answer(call: Callable[[], Awaitable[object]]) -> str | None:
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await call()
    except EventsinkError as error:
        return str(error)
    except TimeoutError:
        return "does not answer"
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what is bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
