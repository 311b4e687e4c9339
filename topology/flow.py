"""The whole flow, top to bottom. Every step has the name that logs, metrics and settings use.

    exchange or POST /v1/events
        │
        ▼
    log            messages at offsets, durable                        log.py, sqlite/, rabbitmq/
        │  a group reads micro-batches from its lowest saved position   group/groups.py: read
        ▼
    intake         bytes into events or dead letters; arrivals;         group/intake.py
        │          the place of each in time; repeated ones             group/ids.py
        ▼
    batch          decoded once, one Faust event to each agent          transports.py
        │
        ├────────▶ fold      into rows, by event time                   agents/, rollups/, jobs/, services/
        │              │
        │              ▼  once a second: checkpoint                     group/checkpoints.py
        │          1  ids, then changed rows ──▶ store of rows          state.py
        │          2  their values ───────────▶ rollup sink             group/delivery.py, sinks.py
        │          3  position, watermark, digest ──▶ store of rows
        │
        ├────────▶ archive   each event ──▶ raw events, then 3          views.py, sinks.py
        │
        └────────▶ forward   what is selected ──▶ a vendor, then 3      forwarding/

Nothing here knows which log, store or sink it is: the composition root (``cli/``) chooses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import faust
from faust.tables import TableManager
from yarl import URL

from topology.agents import Agent
from topology.batch import Batch
from topology.group.groups import Group
from topology.health import Health
from topology.parts import GroupParts
from topology.sensor import AgentSensor
from topology.transports import LogTransport

log = logging.getLogger(__name__)

#: Micro-batches that wait for one agent. Two: one in hand, one ready; a topic whose agents are blocked
#: is paused instead of stopping the others.
BATCHES_WAITING = 2


class _AsIs(faust.Schema[Any, Any]):
    """A batch is decoded already."""

    def loads_value(self, app: Any, message: Any, **options: Any) -> Any:
        return message.value


class _NoTables(TableManager):
    """State is in rows: there are no tables, and no second to wait until they are all there."""

    logger = logging.getLogger("faust.tables")  # with Faust's own services

    async def on_start(self) -> None:
        await self.recovery.start()

    async def wait_until_tables_registered(self) -> None:
        return


class _App(faust.App):
    """Faust makes folders for its tables where it is started, which may be a place that nobody can write to."""

    logger = logging.getLogger("faust.app")  # with Faust's own services

    def _create_directories(self) -> None:
        return


class Flow:
    """The running topology: groups, and one Faust application that drives their agents.

    ``start`` either starts everything or raises and leaves nothing running. ``failed`` is done, with the
    reason, when the process must stop.
    """

    def __init__(self, broker: URL, agents: Iterable[Agent], parts: GroupParts) -> None:
        members: dict[str, list[Agent]] = {}
        for agent in agents:
            members.setdefault(agent.group, []).append(agent)
        self.groups = [Group(name, group, parts) for name, group in members.items()]
        self._parts = parts
        self._app = _faust_app(broker)
        sensor = AgentSensor(parts.metrics)
        self._app.sensors.add(sensor)
        transport = self._app.transport
        if not isinstance(transport, LogTransport):
            raise TypeError(f"{broker.scheme} is not a log: {type(transport).__name__}")
        transport.use(parts.log, {group.name: group.read for group in self.groups})
        for group in self.groups:
            topic = self._app.topic(group.name, schema=_AsIs(), acks=False)
            for agent in group.agents.values():
                self._app.agent(topic, name=agent.name)(_body(agent, group, sensor))
        self.health = Health(self.groups, parts)
        self._watch: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Start the groups, then the agents. The parts must be open."""
        self.failed = asyncio.get_running_loop().create_future()
        started: list[Group] = []
        try:
            for group in self.groups:
                await group.start()
                started.append(group)
            await self._app.start()
        except BaseException:
            await self._app.stop()
            for group in reversed(started):
                await group.stop()
            raise
        self._watch = asyncio.get_running_loop().create_task(self._watched())

    async def stop(self) -> None:
        """Stop the agents, then save what they folded. Idempotent; what is away is not waited for."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await self._app.stop()
        await asyncio.gather(*(group.stop() for group in self.groups))

    async def _watched(self) -> None:
        """Faust crashes in silence, and a group fails by itself: the first reason ends the process."""
        loop = asyncio.get_running_loop()
        crashed = loop.create_task(self._app.wait_until_stopped())
        looking = loop.create_task(self.health.run())
        failures = [group.failed for group in self.groups if group.failed is not None]
        try:
            await asyncio.wait([crashed, looking, *failures], return_when=asyncio.FIRST_COMPLETED)
        finally:
            crashed.cancel()
            looking.cancel()
        reason: BaseException | None = next(
            (failure.exception() for failure in failures if failure.done()), None
        )
        if reason is None and looking.done() and not looking.cancelled():
            reason = looking.exception()
        if reason is None:
            reason = self._app.crash_reason or RuntimeError("the Faust application stopped")
        if self.failed is not None and not self.failed.done():
            self.failed.set_exception(reason)
            self.failed.exception()  # seen: whoever runs the process may be ending it already


def _faust_app(broker: URL) -> faust.App:
    return _App(
        "eventsink",
        broker=[broker],
        autodiscover=False,
        # Checkpoints are ours; waiting for the streams to run dry makes SIGTERM hang on a busy agent.
        stream_wait_empty=False,
        stream_buffer_maxsize=BATCHES_WAITING,
        # There is no Kafka: no leader topic, nothing to declare, no web server of Faust's own.
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        TableManager=_NoTables,
    )


def _body(agent: Agent, group: Group, sensor: AgentSensor) -> Any:
    async def run(stream: AsyncIterator[Batch]) -> None:
        sensor.reads(stream, agent.name)
        try:
            await agent.body(group.batches(agent, stream))
        except Exception as error:  # noqa: BLE001 - Faust would log it, acknowledge the batch and go on
            group.fail(error)
            # Nothing more is taken from the stream; the process is being stopped.
            await asyncio.get_running_loop().create_future()

    run.__name__ = run.__qualname__ = agent.name  # what logs and tracebacks show
    return run


def agents_of(agents: Iterable[Agent], groups: Sequence[str]) -> list[Agent]:
    """The agents of the named groups, in order of declaration."""
    return [agent for agent in agents if agent.group in groups]
