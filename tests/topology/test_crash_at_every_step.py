"""The process dies at every call that it makes to the outside, before it and after it: the numbers are the same."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.topology.engine import NOW_MS, Engine, publish, rollup
from tests.topology.stores import Failing, Killed, Stores, opened

pytestmark = pytest.mark.timeout(300)

EVENTS: list[dict[str, Any]] = [
    *(
        {"type": "storage.file_uploaded", "file_id": "f", "time": NOW_MS + n, "bytes": 2**n, "space_id": s}
        for n, s in enumerate("xyxyx")
    ),
    {"type": "activity.logged_in", "user_id": "u"},  # no time: its arrival is a fact
    {"type": "activity.logged_in", "user_id": "v", "time": NOW_MS, "source": "s", "id": "1"},
    {"type": "activity.logged_in", "user_id": "v", "time": NOW_MS, "source": "s", "id": "1"},
    {"type": "storage.file_uploaded", "bytes": -1},
]


async def numbers(stores: Stores) -> dict[str, Any]:
    """Everything that anyone can see: rollups, raw events, dead letters, and what is still owed."""
    seen: dict[str, Any] = {
        f"{name}/{window}": await rollup(stores, name, window)
        for name in ("space_storage", "user_activity")
        for window in ("1m", "1h", "1d")
    }
    raw = await stores.raw_events.query(since=None, until=None, type=None, limit=99)
    seen["raw"] = sorted((event.id, event.time, event.original) for event in raw)
    seen["dead"] = [letter.id for letter in await stores.dead_letters.list(limit=99)]
    seen["owed"] = await stores.state.owed_rows(
        [f"{name}/{w}" for name in ("space_storage", "user_activity") for w in ("1m", "1h", "1d")], 99
    )
    return seen


async def live(engine: Engine) -> None:
    """Start, fold what is there, save it."""
    await engine.start()
    await engine.folded()
    await engine.checkpoint()


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
    """Whether the process lived to its end."""
    await publish(stores, EVENTS)
    engine = Engine(stores)
    guard(engine, killed)
    living = asyncio.create_task(live(engine))
    dying = asyncio.create_task(killed.dead.wait())
    await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
    survived = living.done()
    engine.give_up()
    living.cancel()
    dying.cancel()
    with suppress(asyncio.CancelledError):
        await living
    await engine.crash()
    return survived


async def settled(stores: Stores) -> dict[str, Any]:
    """More is published, and a new process lives to its end, at the same time of the day."""
    await publish(stores, EVENTS[:2])
    engine = Engine(stores)
    await live(engine)
    await engine.stop()
    return await numbers(stores)


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
async def test_the_numbers_are_the_same_wherever_the_process_dies(tmp_path: Path, after: bool) -> None:
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    async with opened(folder) as stores:
        undisturbed = Killed(0, after=after)
        assert await lived_and_killed(stores, undisturbed)
        expected = await settled(stores)
    assert expected["space_storage/1h"] == {
        (NOW_MS // 1000, ("x",)): {
            "bytes_added": 1 + 4 + 16 + 1,
            "bytes_removed": 0,
            "files_added": 4,
            "files_removed": 0,
        },
        (NOW_MS // 1000, ("y",)): {
            "bytes_added": 2 + 8 + 2,
            "bytes_removed": 0,
            "files_added": 3,
            "files_removed": 0,
        },
    }
    assert expected["owed"] == []
    assert undisturbed.calls > 20
    died = 0
    for step in range(1, undisturbed.calls + 1):
        folder = tmp_path / str(step)
        folder.mkdir()
        async with opened(folder) as stores:
            died += not await lived_and_killed(stores, Killed(step, after=after))
            assert await settled(stores) == expected, f"died at call {step}"
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
            await publish(stores, EVENTS)
            engine = Engine(stores)
            failing = Failing(getattr(engine.parts, part), lost=lost, **dict.fromkeys(calls, failures))
            change: dict[str, Any] = {part: failing}
            engine.parts = dataclasses.replace(engine.parts, **change)
            await live(engine)
            while any(group.sink_away for group in engine.groups):
                await asyncio.sleep(0.001)
            await engine.stop()
            seen.append(await numbers(stores))
            assert not any(failing.failures.values()), "the calls that were to fail were made"
    assert seen[0] == seen[1]
