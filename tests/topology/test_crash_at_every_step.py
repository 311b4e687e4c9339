"""The process dies at every call that it makes to the outside, before it and after it: the numbers are the same."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.oracle import same
from tests.topology.engine import Engine, publish
from tests.topology.lives import AT_LAST, FIRST, THEN, everything, lived, must_be, owed
from tests.topology.stores import Failing, Killed, Stores, opened
from topology.group import rows

pytestmark = pytest.mark.timeout(600)

#: So many processes live and die beside each other, each on stores of its own: most of a life is waiting for a disk.
AT_ONCE = 8


async def numbers(stores: Stores) -> dict[str, Any]:
    """Everything that anyone can see: rollups, raw events, dead letters, and what is still owed."""
    raw = await stores.raw_events.query(since=None, until=None, type=None, limit=99)
    return {
        "rollups": await everything(stores),
        "raw": sorted((event.id, event.time, event.original) for event in raw),
        "dead": [letter.id for letter in await stores.dead_letters.list(limit=99)],
        "owed": await owed(stores),
    }


def differences(expected: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    """Of two such; a row that only says zero of everything is as good as none."""
    told = same(expected["rollups"], seen["rollups"])
    return told + [
        f"{name}: {seen[name]}" for name in ("raw", "dead", "owed") if seen[name] != expected[name]
    ]


def guard(engine: Engine, killed: Killed) -> None:
    parts = engine.parts
    engine.parts = dataclasses.replace(
        parts,
        log=killed.guarding(parts.log),
        store=killed.guarding(parts.store),
        rollup_sink=killed.guarding(parts.rollup_sink),
        raw_events=killed.guarding(parts.raw_events),
        dead_letters=killed.guarding(parts.dead_letters),
    )


async def lived_and_killed(stores: Stores, killed: Killed) -> bool:
    """Two batches and their checkpoints. Whether the process lived to its end."""
    await publish(stores, FIRST)
    engine = Engine(stores)
    guard(engine, killed)
    went_on = False

    async def live() -> None:
        nonlocal went_on
        await engine.start()
        await lived(engine)
        await publish(stores, THEN)
        went_on = True
        await lived(engine)

    living = asyncio.create_task(live())
    dying = asyncio.create_task(killed.dead.wait())
    await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
    survived = living.done()
    engine.give_up()
    living.cancel()
    dying.cancel()
    with suppress(asyncio.CancelledError):
        await living
    await engine.crash()
    if not went_on:
        await publish(stores, THEN)
    return survived


async def settled(stores: Stores) -> dict[str, Any]:
    """More is published, and a new process lives to its end, at the same time of the day."""
    await publish(stores, AT_LAST)
    engine = Engine(stores)
    await engine.start()
    await lived(engine)
    await engine.stop()
    return await numbers(stores)


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
async def test_the_numbers_are_the_same_wherever_the_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    # So that it also dies between the rows of one checkpoint.
    monkeypatch.setattr(rows, "SAVED_AT_A_TIME", 6)
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    async with opened(folder) as stores:
        undisturbed = Killed(0, after=after)
        assert await lived_and_killed(stores, undisturbed)
        expected = await settled(stores)
    assert same(must_be([*FIRST, *THEN, *AT_LAST]), expected["rollups"]) == []
    assert expected["owed"] == []
    assert undisturbed.calls >= 20

    async def dies_at(step: int) -> bool:
        folder = tmp_path / str(step)
        folder.mkdir()
        async with opened(folder) as stores:
            survived = await lived_and_killed(stores, Killed(step, after=after))
            assert differences(expected, await settled(stores)) == [], f"died at call {step}"
            return not survived

    died = 0
    for first in range(1, undisturbed.calls + 1, AT_ONCE):
        last = min(first + AT_ONCE - 1, undisturbed.calls)
        died += sum(await asyncio.gather(*(dies_at(step) for step in range(first, last + 1))))
    # Tasks make their calls beside each other, so the number differs a little from life to life.
    assert died > 0.5 * undisturbed.calls


@pytest.mark.parametrize(
    ("part", "calls"),
    [
        ("store", ["save_rows", "settle_rows", "save_group", "record_arrivals", "load_rows"]),
        ("rollup_sink", ["write"]),
        ("raw_events", ["insert"]),
        ("dead_letters", ["put"]),
    ],
)
@pytest.mark.parametrize("lost", [False, True], ids=["not carried out", "answer lost"])
async def test_calls_that_fail_or_whose_answers_are_lost_change_no_number(
    tmp_path: Path, part: str, calls: list[str], lost: bool
) -> None:
    seen = []
    for failures in (0, 3):
        folder = tmp_path / str(failures)
        folder.mkdir()
        async with opened(folder) as stores:
            await publish(stores, [*FIRST, *THEN])
            engine = Engine(stores)
            failing = Failing(getattr(engine.parts, part), lost=lost, **dict.fromkeys(calls, failures))
            change: dict[str, Any] = {part: failing}
            engine.parts = dataclasses.replace(engine.parts, **change)
            await engine.start()
            await lived(engine)
            await engine.stop()
            seen.append(await numbers(stores))
            assert not any(failing.failures.values()), "the calls that were to fail were made"
    assert differences(*seen) == []
    assert same(must_be([*FIRST, *THEN]), seen[1]["rollups"]) == []
