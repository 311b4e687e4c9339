"""An agent that is alive and makes no progress is told of: within a minute, by name, with its stack, once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Hashable
from pathlib import Path

import pytest
from yarl import URL

from tests.topology.engine import Engine, publish
from tests.topology.stores import Failing, Stores, opened
from topology.agents import Agent, Batches
from topology.flow import Flow
from topology.health import LOOK_EVERY_S
from topology.progress import STUCK_AFTER_S, Progress, Standing
from topology.stacks import stack_of

UPLOAD = {
    "type": "storage.file_uploaded",
    "file_id": "f",
    "space_id": "s",
    "bytes": 1,
    "time": 1_795_467_000_000,
}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def at(
    reached: Hashable, *, behind: bool = True, excused: bool = False, task: asyncio.Task[object] | None = None
) -> Standing:
    return Standing(reached=reached, behind=behind, excused=excused, task=task)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(clock)


# 0        45 s
# [--------)
# |  seen   | stuck


def test_an_agent_is_stuck_once_it_stood_still_for_long_with_something_to_do(
    progress: Progress, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert not progress.saw("storage", at(1))
    clock.now += STUCK_AFTER_S - 1
    assert not progress.saw("storage", at(1))
    clock.now += 1
    assert progress.saw("storage", at(1))
    assert "makes no progress" in progress.stuck["storage"]
    clock.now += 500
    assert progress.saw("storage", at(1))
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # told once


def test_it_is_well_again_when_it_gets_on(
    progress: Progress, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    progress.saw("storage", at(1))
    clock.now += STUCK_AFTER_S
    progress.saw("storage", at(1))
    assert not progress.saw("storage", at(2))
    assert not progress.stuck
    assert caplog.records[-1].getMessage() == "agent storage gets on again"


@pytest.mark.parametrize(
    "seen",
    [at(2), at(1, behind=False), at(1, excused=True)],
    ids=["it got on", "there is nothing to do", "what it waits for is known"],
)
def test_time_counts_anew_after_a_look_at_which_all_was_well(
    progress: Progress, clock: Clock, seen: Standing
) -> None:
    progress.saw("storage", at(1))
    clock.now += STUCK_AFTER_S
    assert not progress.saw("storage", seen)
    clock.now += STUCK_AFTER_S - 1
    assert not progress.saw("storage", at(seen.reached))
    clock.now += 1
    assert progress.saw("storage", at(seen.reached))


def test_it_is_told_of_within_a_minute() -> None:
    assert STUCK_AFTER_S + 2 * LOOK_EVERY_S < 60


async def test_a_stack_shows_every_coroutine_and_the_task_that_is_waited_for() -> None:
    never = asyncio.Event()

    async def innermost() -> None:
        await never.wait()

    async def awaited() -> None:
        await innermost()

    async def outer() -> None:
        await asyncio.create_task(awaited())

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stack = stack_of(task)
    names = [part.rpartition(" ")[2] for part in stack.split(" > ")]
    assert names == ["outer", "awaited", "innermost", "wait"]
    assert "\n" not in stack
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stack_of(task).endswith("the task has ended")


# -- in the whole engine --


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as made:
        yield made


def stuck(stores: Stores, agent: str) -> float | None:
    return stores.registry.get_sample_value("eventsink_agent_stuck", {"agent": agent})


async def running(stores: Stores, body: object, clock: Clock) -> Flow:
    """One agent ``hung`` of the archive, with that body, behind a real Faust app."""
    engine = Engine(stores, monotonic=clock)
    agent = Agent(name="hung", group="archive", rollups=(), body=body)  # type: ignore[arg-type] # given by the test
    flow = Flow(URL("sqlite:///unused"), [agent], engine.parts)
    stores.at_end.append(flow.stop)
    await flow.start()
    return flow


async def until_handed(flow: Flow) -> None:
    async with asyncio.timeout(60):
        while flow.groups[0].reading.events_handed == 0:
            await asyncio.sleep(0.005)


async def test_an_agent_that_hangs_is_named_and_its_stack_is_logged_once(
    stores: Stores, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def hung(batches: Batches) -> None:
        async for _ in batches:
            await what_never_comes()

    async def what_never_comes() -> None:
        await asyncio.get_running_loop().create_future()

    flow = await running(stores, hung, clock)
    assert stuck(stores, "hung") == 0
    await publish(stores, [UPLOAD, UPLOAD])
    await until_handed(flow)
    await flow.health.look()
    assert not flow.health.stuck
    assert stores.registry.get_sample_value("eventsink_agent_lag_events", {"agent": "hung"}) == 2
    clock.now += STUCK_AFTER_S
    with caplog.at_level(logging.ERROR):
        await flow.health.look()
        await flow.health.look()
    assert list(flow.health.stuck) == ["hung"]
    assert stuck(stores, "hung") == 1
    (told,) = [record for record in caplog.records if record.name == "topology.progress"]
    frames = vars(told)["stack"].split(" > ")
    assert [frame.rpartition(" ")[2] for frame in frames][-2:] == ["hung", "what_never_comes"]
    assert f"{__file__}:" in frames[-1]


async def test_a_reader_that_hangs_is_the_standstill_of_its_agents(stores: Stores, clock: Clock) -> None:
    async def idle(batches: Batches) -> None:
        async for batch in batches:
            await batch.archive()

    class NoMore:
        """A log whose readers never come back."""

        def __getattr__(self, name: str) -> object:
            return getattr(log, name)

        async def reader(self, offset: int) -> None:
            await asyncio.get_running_loop().create_future()

    log = stores.log
    stores.log = NoMore()  # type: ignore[assignment] # as a log
    flow = await running(stores, idle, clock)
    stores.log = log
    await publish(stores, [UPLOAD])
    await flow.health.look()
    clock.now += STUCK_AFTER_S
    await flow.health.look()
    assert list(flow.health.stuck) == ["hung"]


async def test_an_agent_at_the_end_of_the_log_is_well_however_long_it_is_quiet(
    stores: Stores, clock: Clock
) -> None:
    async def idle(batches: Batches) -> None:
        async for batch in batches:
            await batch.archive()

    flow = await running(stores, idle, clock)
    await publish(stores, [UPLOAD])
    reading = flow.groups[0].reading
    async with asyncio.timeout(60):
        while reading.lag("hung", await stores.log.end_offset()):
            await asyncio.sleep(0.005)
    for _ in range(3):
        await flow.health.look()
        clock.now += STUCK_AFTER_S
    assert not flow.health.stuck
    assert stores.registry.get_sample_value("eventsink_agent_lag_events", {"agent": "hung"}) == 0


async def test_while_a_store_is_away_the_store_is_named_and_not_the_agent(
    stores: Stores, clock: Clock
) -> None:
    async def archiving(batches: Batches) -> None:
        async for batch in batches:
            await batch.archive()

    failing = Failing(stores.raw_events, insert=1_000_000_000)
    stores.raw_events = failing  # type: ignore[assignment] # as a store
    flow = await running(stores, archiving, clock)
    await publish(stores, [UPLOAD])
    async with asyncio.timeout(60):
        while not stores.outages.away:
            await asyncio.sleep(0.005)
    away = {"dependency": failing.name}
    for _ in range(3):
        await flow.health.look()
        clock.now += STUCK_AFTER_S
    assert not flow.health.stuck
    assert stores.registry.get_sample_value("eventsink_dependency_away", away) == 1
    failing.failures["insert"] = 0
    async with asyncio.timeout(60):
        while stores.outages.away:
            await asyncio.sleep(0.005)
    await flow.health.look()
    assert stores.registry.get_sample_value("eventsink_dependency_away", away) == 0


async def test_what_another_group_waits_for_excuses_no_agent(stores: Stores, clock: Clock) -> None:
    async def archiving(batches: Batches) -> None:
        async for batch in batches:
            await batch.archive()

    async def hung(batches: Batches) -> None:
        async for _ in batches:
            await asyncio.get_running_loop().create_future()

    stores.raw_events = Failing(stores.raw_events, insert=1_000_000_000)  # type: ignore[assignment] # as a store
    engine = Engine(stores, monotonic=clock)
    agents = [
        Agent(name="waits", group="archive", rollups=(), body=archiving),
        Agent(name="hung", group="rollups", rollups=(), body=hung),
    ]
    flow = Flow(URL("sqlite:///unused"), agents, engine.parts)
    stores.at_end.append(flow.stop)
    await flow.start()
    await publish(stores, [UPLOAD])
    async with asyncio.timeout(60):
        while not stores.outages.away or any(not group.reading.events_handed for group in flow.groups):
            await asyncio.sleep(0.005)
    for _ in range(2):
        await flow.health.look()
        clock.now += STUCK_AFTER_S
    await flow.health.look()
    assert list(flow.health.stuck) == ["hung"]
    assert (stuck(stores, "waits"), stuck(stores, "hung")) == (0, 1)
