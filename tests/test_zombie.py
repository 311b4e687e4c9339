"""Two workers of one group by mistake: one learns of the other and stops, and all numbers are exact.

    first  ──── folds, saves ────╮ writes …………………………………………………………╮ too late
    second            begins, folds, saves, writes newer values  │
    sink                                    ▲ new values         ▲ old values over them

What a worker of before has written, or may have written, after another one took over is written again by that one.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.oracle import same
from tests.topology.engine import Engine, publish
from tests.topology.lives import (
    AT_LAST,
    FIRST,
    LATEST_MS,
    THEN,
    everything,
    lived,
    login,
    must_be,
)
from tests.topology.stores import Failing, Stores, opened
from topology.errors import Superseded
from topology.sinks import Point

pytestmark = pytest.mark.timeout(120)


class Held(Failing):
    """A sink whose writes are carried out late: those that are under way when ``hold`` is called, and later ones."""

    def __init__(self, stores: Stores) -> None:
        super().__init__(stores.rollups)
        self._open = asyncio.Event()
        self._open.set()
        self._held = ""
        self.holds = asyncio.Event()

    def hold(self, rollup: str) -> None:
        """Writes that tell of this rollup wait from now on."""
        self._held = rollup
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    async def write(self, points: Sequence[Point]) -> None:
        # As a server does with what it has received: it carries it out, whoever still waits for the answer.
        await asyncio.shield(asyncio.ensure_future(self._written(points)))

    async def _written(self, points: Sequence[Point]) -> None:
        if any(point.rollup == self._held for point in points):
            self.holds.set()
            await self._open.wait()
        await self._inner.write(points)


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


async def worker(stores: Stores, **parts: Any) -> Engine:
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, **parts)
    await engine.start()
    return engine


async def is_right(stores: Stores, events: Sequence[dict[str, Any]]) -> None:
    assert same(must_be(events), await everything(stores)) == []


async def seeks(engine: Engine) -> None:
    """What happens in three minutes: a note is seen, obeyed, forgotten."""
    for _ in range(3):
        for group in engine.groups:
            group.seek_owed()
        await lived(engine)
        for _ in range(20):
            await engine.tick()
        await lived(engine)


@pytest.mark.parametrize("ahead", ["the first", "the second"])
async def test_the_one_of_the_lower_generation_stops_with_a_clear_error(stores: Stores, ahead: str) -> None:
    first = await worker(stores)
    await publish(stores, FIRST)
    await lived(first)
    second = await worker(stores)
    await publish(stores, THEN)
    if ahead == "the first":
        await first.folded()
    else:
        await lived(second)
    group = first.groups[0]
    with pytest.raises(
        Superseded, match=r"another worker took over group rollups .* run one worker per group"
    ):
        await group.checkpoint()
    await first.crash()
    await publish(stores, AT_LAST)
    await lived(second)
    await second.stop()
    await is_right(stores, [*FIRST, *THEN, *AT_LAST])


async def test_rows_that_the_first_saves_after_the_second_has_begun_are_read_again_by_it(
    stores: Stores,
) -> None:
    class Waiting(Failing):
        """Asked whether it is still the owner, it gets an answer of before."""

        async def generation(self, group: str) -> int:
            return 1

    first = await worker(stores, store=Waiting(stores.state))
    await publish(stores, FIRST)
    await lived(first)
    second = await worker(stores)
    await publish(stores, THEN)
    await second.folded()
    await first.folded()
    with pytest.raises(Superseded):  # by the last step, after rows and values
        await first.groups[0].checkpoint()
    await first.crash()
    await publish(stores, AT_LAST)
    await lived(second)
    await seeks(second)
    await second.stop()
    await is_right(stores, [*FIRST, *THEN, *AT_LAST])


@pytest.mark.parametrize("ends", ["it goes on", "it is stopped meanwhile"])
@pytest.mark.parametrize(
    "what", [FIRST, [*FIRST, login(LATEST_MS - 30_000, "w")]], ids=["values", "time passing"]
)
async def test_values_that_arrive_after_newer_ones_do_not_stay(
    stores: Stores, ends: str, what: list[dict[str, Any]]
) -> None:
    held = Held(stores)
    first = await worker(stores, rollup_sink=held)
    await publish(stores, FIRST)
    if what is not FIRST:
        await lived(first)
        await publish(stores, what[len(FIRST) :])
    held.hold("service_uptime" if what is not FIRST else "extractor_runtime")
    await first.folded()
    last = asyncio.create_task(first.groups[0].checkpoint())
    await held.holds.wait()
    second = await worker(stores)
    await publish(stores, [*THEN, *AT_LAST])
    await lived(second)
    await is_right(stores, [*what, *THEN, *AT_LAST])
    if ends == "it is stopped meanwhile":
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)
        first.give_up()
        await first.stop()
    held.let_go()
    await asyncio.gather(last, return_exceptions=True)
    if ends == "it goes on":
        with pytest.raises(Superseded):
            await first.groups[0].checkpoint()
        await first.crash()
    await seeks(second)
    await second.stop()
    await is_right(stores, [*what, *THEN, *AT_LAST])


async def test_what_the_first_says_is_owed_stays_so_although_the_second_settles_the_rows_afterwards(
    stores: Stores,
) -> None:
    class Slow(Failing):
        """Carries a write out, and takes its time to say so."""

        carried_out = asyncio.Event()
        answers = asyncio.Event()

        async def write(self, points: Sequence[Point]) -> None:
            await stores.rollups.write(points)
            self.carried_out.set()
            await self.answers.wait()

    held = Held(stores)
    held.hold("extractor_runtime")
    slow = Slow(stores.rollups)
    first = await worker(stores, rollup_sink=held)
    await publish(stores, FIRST)
    await first.folded()
    last = asyncio.create_task(first.groups[0].checkpoint())
    await held.holds.wait()
    second = await worker(stores, rollup_sink=slow)
    await publish(stores, THEN)
    await second.folded()
    checkpoint = asyncio.create_task(second.groups[0].checkpoint())
    await slow.carried_out.wait()
    held.let_go()
    await asyncio.gather(last, return_exceptions=True)
    async with asyncio.timeout(60):
        while not await stores.state.requests("rollups/in doubt"):
            await first.tick()
    await first.crash()
    slow.answers.set()
    await checkpoint
    await lived(second)
    await seeks(second)
    await second.stop()
    await is_right(stores, [*FIRST, *THEN])
    assert await stores.state.requests("rollups/in doubt") == []
