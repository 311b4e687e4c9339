"""The engine, judged by the oracle: whatever comes, in whatever order and pieces, every row of every rollup is what
recomputing it from all events gives."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.events import Event
from tests.oracle import Rollups, placed, rollups, same
from tests.streams import DAY_MS, MINUTE_MS, starts, streams
from tests.topology.engine import Engine, every_rollup, publish_batches, unsynced
from tests.topology.stores import Killed, opened
from topology.group.reading import ALLOWED_DISORDER_MS

#: Of each property.
EXAMPLES = 25
#: What a profile with more examples makes of them: `make fuzz` asks for fifteen times as many, ten minutes of them.
FACTOR = max(1, settings().max_examples // 200)

pytestmark = pytest.mark.timeout(300 * FACTOR)


def examples(count: int) -> settings:
    """``count`` examples, and more where the profile says so."""
    return settings(
        max_examples=count * FACTOR, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )


class Piece(NamedTuple):
    """Some events and what is done after them. ``together``: they are one message."""

    events: Sequence[Event]
    together: bool
    folded: bool
    checkpoint: bool


class Story(NamedTuple):
    """What happens. ``idle_ms``: how far the clock goes on afterwards, None where the log is not quiet."""

    pieces: Sequence[Piece]
    idle_ms: int | None

    @property
    def events(self) -> list[Event]:
        return [event for piece in self.pieces for event in piece.events]


@st.composite
def stories(draw: st.DrawFn, *, jobs_without_id: bool = True) -> Story:
    events = draw(starts().flatmap(lambda start: streams(start, jobs_without_id=jobs_without_id)))
    cuts = sorted(draw(st.lists(st.integers(0, len(events)), max_size=8)))
    pieces = [
        Piece(events[since:until], draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))
        for since, until in itertools.pairwise([0, *cuts, len(events)])
        if since < until
    ]
    idle_ms = draw(st.none() | st.integers(0, 10 * MINUTE_MS))
    if idle_ms is not None and draw(st.integers(0, 9)) == 9:
        idle_ms += 2 * DAY_MS  # thousands of rows, so only now and then
    return Story(pieces, idle_ms)


class Death(NamedTuple):
    """Where the first process dies: at which of its calls to the outside, before it or after it."""

    call: int
    after: bool


async def live(engine: Engine, pieces: list[Piece]) -> None:
    """Until there are none left."""
    while pieces:
        piece = pieces.pop(0)
        batches = [piece.events] if piece.together else [[event] for event in piece.events]
        publishing = asyncio.create_task(publish_batches(engine.stores, batches))
        try:
            await asyncio.shield(publishing)
        except asyncio.CancelledError:
            await publishing  # by somebody else, who does not die
            raise
        if piece.folded:
            await engine.folded()
        if piece.checkpoint:
            await engine.checkpoint()


async def live_and_die(engine: Engine, pieces: list[Piece], death: Death) -> None:
    """Until there are none left, or it is dead."""
    killed = Killed(death.call, after=death.after)
    parts = engine.parts
    engine.parts = dataclasses.replace(
        parts, store=killed.guarding(parts.store), rollup_sink=killed.guarding(parts.rollup_sink)
    )

    async def living() -> None:
        await engine.start()
        await live(engine, pieces)

    tasks = [asyncio.create_task(living()), asyncio.create_task(killed.dead.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    engine.give_up()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await engine.crash()


async def settle(engine: Engine, story: Story) -> int:
    """The end: everything folded, saved and delivered. Returns the watermark."""
    await engine.folded()
    if story.idle_ms is not None:
        engine.now_ms = latest(story) + story.idle_ms
        await engine.quiet()
    await engine.checkpoint()
    await engine.delivered()
    return engine.groups[0].reading.watermark or 0


def latest(story: Story) -> int:
    return max((event.time or 0 for event in story.events), default=0)


async def told(story: Story, *, death: Death | None = None, faust: bool = False) -> tuple[Rollups, int]:
    """What the sink holds in the end, and the watermark."""

    def process() -> Engine:
        engine = Engine(stores, by_hand=not faust)
        engine.now_ms = latest(story)  # nothing is of the future
        return engine

    with TemporaryDirectory() as folder:
        async with opened(Path(folder)) as stores:
            await unsynced(stores)
            pieces = list(story.pieces)
            if death is not None:
                await live_and_die(process(), pieces, death)
            engine = process()
            await engine.start()
            await live(engine, pieces)
            watermark = await settle(engine, story)
            rows = await every_rollup(stores)
            await engine.stop()
            return rows, watermark


def by_oracle(story: Story, watermark: int) -> Rollups:
    return rollups(placed(story.events), watermark_ms=watermark)


@examples(EXAMPLES)
@given(stories())
def test_every_row_is_what_the_oracle_says(story: Story) -> None:
    rows, watermark = asyncio.run(told(story))
    if story.events and story.idle_ms is None:
        assert watermark == latest(story) - ALLOWED_DISORDER_MS
    assert same(by_oracle(story, watermark), rows) == []


@examples(EXAMPLES)
@given(stories(jobs_without_id=False), st.randoms(use_true_random=False))
def test_any_order_of_the_same_events_gives_the_same_rows(story: Story, shuffle: random.Random) -> None:
    events = story.events
    shuffle.shuffle(events)
    shuffled = [piece._replace(events=[events.pop() for _ in piece.events]) for piece in story.pieces]
    one, watermark = asyncio.run(told(story))
    other, its_watermark = asyncio.run(told(story._replace(pieces=shuffled)))
    assert watermark == its_watermark
    assert same(one, other) == []


@examples(EXAMPLES)
@given(stories(), st.builds(Death, st.integers(1, 60), st.booleans()))
def test_a_process_that_dies_anywhere_leaves_the_next_one_to_tell_the_same_rows(
    story: Story, death: Death
) -> None:
    rows, watermark = asyncio.run(told(story, death=death))
    assert same(by_oracle(story, watermark), rows) == []


@examples(3)
@given(stories())
def test_with_faust_between_log_and_agents_it_is_the_same(story: Story) -> None:
    # The watermark of a quiet log follows the clock after a second, by which nothing here may change.
    story = story._replace(idle_ms=None)
    rows, watermark = asyncio.run(told(story, faust=True))
    assert same(by_oracle(story, watermark), rows) == []
