"""Two workers on one group by mistake: what the one that was superseded still does is neither lost nor counted twice.

A worker knows that it was superseded once it asks, at its next checkpoint. What it was saving before that reaches the
store at any time, among everything that its successor does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.oracle import same
from tests.topology import lives
from tests.topology.engine import Engine, publish, unsynced
from tests.topology.lives import AT_LAST, FIRST, THEN, everything, job, must_be, ping
from tests.topology.stores import Failing, Stores, opened
from topology.errors import Superseded
from topology.log import LogReader, Message
from topology.position import place
from topology.state import RowWrite

pytestmark = pytest.mark.timeout(300)

PAIRS = 24
#: So many of them live beside each other, each on stores of its own.
AT_ONCE = 8


class Saving(Failing):
    """A store whose rows are saved when the test says so."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def save_rows(self, writes: Sequence[RowWrite]) -> None:
        self.begun.set()
        await self.go_on.wait()
        await self._inner.save_rows(writes)


class Slow(Failing):
    """A log of which so many ``messages`` can be read."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.messages = 0

    async def reader(self, offset: int) -> SlowReader:
        return SlowReader(await self._inner.reader(offset), self, offset)


class SlowReader:
    """Of a ``Slow`` log."""

    def __init__(self, inner: LogReader, log: Slow, offset: int) -> None:
        self._inner = inner
        self._log = log
        self._next = offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def at_end(self) -> bool:
        return False  # time does not pass by itself

    async def fetch(self, *, limit: int, max_bytes: int, timeout: timedelta) -> Sequence[Message]:
        if self._next >= self._log.messages:
            await asyncio.sleep(0.001)
            return ()  # nothing has come for a while
        limit = min(limit, self._log.messages - self._next)
        messages = await self._inner.fetch(limit=limit, max_bytes=max_bytes, timeout=timeout)
        if messages:
            self._next = messages[-1].offset + 1
        return messages


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


async def both_lived(
    stores: Stores, events: Sequence[Any], *, before: int = 0, first_at: int | None = None, second_at: int
) -> list[str]:
    """One worker has folded events up to ``first_at`` (all of them), of which those up to ``before`` are saved; the
    rest is on its way to the store. Its successor comes as far as ``second_at`` and has told the sink; the rows arrive;
    the successor comes to the end. What is wrong then."""
    await publish(stores, events)
    first, saving = Engine(stores, by_hand=True), Saving(stores.state)
    log = Slow(first.parts.log)
    first.parts = dataclasses.replace(first.parts, store=saving, log=log)
    await first.start()
    if before:
        saving.go_on.set()
        await _lived_up_to(first, log, before)
        saving.go_on.clear()
    first_at = len(events) if first_at is None else first_at
    log.messages = first_at
    await _reached(first, first_at)
    saving.begun.clear()
    checkpoint = asyncio.create_task(first.checkpoint())
    while not (saving.begun.is_set() or checkpoint.done()):  # it may have nothing to save
        await first.tick()
    second = Engine(stores, by_hand=True)
    log = Slow(second.parts.log)
    second.parts = dataclasses.replace(second.parts, log=log)
    await second.start()
    await _lived_up_to(second, log, second_at)
    saving.go_on.set()
    with suppress(Superseded):  # where it has nothing to save it does not notice
        await checkpoint
    await first.crash()
    log.messages = len(events)
    for _ in range(4):  # minutes; what a note says is done in the second one that sees it
        second.groups[0].seek_owed()
        await _lived(second)
    wrong = same(must_be(events), await everything(stores))
    await second.stop()
    return wrong


async def _lived_up_to(engine: Engine, log: Slow, messages: int) -> None:
    log.messages = messages
    await _reached(engine, messages)
    await engine.checkpoint()
    await engine.delivered()


async def _reached(engine: Engine, messages: int) -> None:
    """Wait until all agents have folded so many messages."""
    while messages and any(
        position < 0 or place(position).offset < messages - 1
        for position in engine.groups[0].reading.positions.values()
    ):
        await engine.tick()


async def _lived(engine: Engine) -> None:
    """As ``lives.lived``, also where the group meets a conflict, or rows that another worker wrote."""
    reading = None
    while reading is not engine.groups[0].reading or not await lives.delivered(engine):
        reading = engine.groups[0].reading
        await engine.folded()
        await engine.checkpoint()
        await engine.delivered()
        if await lives.owed(engine.stores):
            engine.groups[0].seek_owed()
            await engine.delivered()


JOBS = [job("succeeded", minute, f"job {minute}") for minute in (-30, -20, -10)]


async def test_jobs_that_were_saved_beside_a_minute_that_was_not_are_counted(stores: Stores) -> None:
    # All end in one minute: its row is the successor's, in which only the first one is.
    events = [job("succeeded", -10, name) for name in ("one", "two", "three")]
    assert await both_lived(stores, events, second_at=1) == []


async def test_minutes_that_were_saved_late_are_in_their_hour(stores: Stores) -> None:
    assert await both_lived(stores, JOBS, second_at=1) == []


async def test_the_end_of_a_job_that_was_saved_late_is_not_counted_beside_a_later_one(stores: Stores) -> None:
    events = [job("failed", -20, "one"), job("succeeded", -10, "one"), job("started", -30, "one")]
    assert await both_lived(stores, events, first_at=1, second_at=2) == []


@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
async def test_results_that_were_saved_late_are_in_their_hour(stores: Stores, ahead: int) -> None:
    events = [ping(-30, "eu"), ping(-20, "us", valid_for_s=3600), ping(-10, "eu", up=False)]
    assert await both_lived(stores, events, second_at=ahead) == []


async def test_rows_saved_late_change_no_number_wherever_either_worker_is(tmp_path: Path) -> None:
    events = [*FIRST, *THEN, *AT_LAST]
    chance = random.Random(20261128)

    async def lived_somewhere(number: int) -> None:
        before = chance.choice([0, chance.randint(0, len(events))])
        first_at, second_at = (chance.randint(before, len(events)) for _ in "12")
        folder = tmp_path / str(number)
        folder.mkdir()
        async with opened(folder) as stores:
            await unsynced(stores)
            wrong = await both_lived(stores, events, before=before, first_at=first_at, second_at=second_at)
        assert wrong == [], f"from {before}, one at {first_at}, the other at {second_at}"

    for number in range(0, PAIRS, AT_ONCE):
        await asyncio.gather(*(lived_somewhere(number + more) for more in range(AT_ONCE)))
