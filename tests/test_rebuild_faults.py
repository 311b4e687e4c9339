"""What can happen to a rebuild: an archive that lacks events or is behind, crashes, requests that are taken back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from agents import AGENTS, ROLLUPS
from tests.oracle import placed, rollups, same
from tests.rebuilds import (
    DAY_MS,
    END_MS,
    EXPECTED,
    HOUR_MS,
    KINDS,
    LONG,
    MIDNIGHT_MS,
    MIDNIGHT_S,
    SECOND_DAY,
    THREE_DAYS,
    Worker,
    ask,
    at_end,
    everything,
    kept_rows,
    on_days,
    on_windows,
    over,
    publish,
    sql,
    three_days,
    three_days_lived,
    upload,
    with_content,
    working,
)
from tests.topology import engine as engine_module
from tests.topology.stores import Failing, Killed, opened
from tests.topology.test_crash_at_every_step import guard
from topology.errors import Unavailable
from topology.group.groups import Group
from topology.position import NOWHERE
from topology.state import GroupState, Request, RowKey, RowWrite, StoredRow
from topology.uuid7 import uuid7

pytestmark = pytest.mark.timeout(600)


# -- what is not done --


@pytest.mark.parametrize("name", KINDS)
async def test_a_check_changes_nothing_and_tells_what_a_rebuild_would_change(
    tmp_path: Path, name: str
) -> None:
    async with three_days(tmp_path) as stores:
        await sql(stores, "DELETE FROM rows WHERE kind LIKE ? AND at >= ?", f"{name}/%", SECOND_DAY[0])
        async with at_end(stores) as worker:
            rows, sink = await kept_rows(stores), await everything(stores)
            told = await worker.rebuild(name, *SECOND_DAY, check=True)
            assert (told.status, told.refused) == ("done", ())
            assert told.changed == len(told.differences) > 0
            assert (await kept_rows(stores), await everything(stores)) == (rows, sink)
            done = await worker.rebuild(name, *SECOND_DAY)
            assert (done.changed, done.differences) == (told.changed, told.differences)
        assert same(await everything(stores), EXPECTED) == []


@pytest.mark.parametrize("name", KINDS)
async def test_a_window_of_which_the_archive_lost_events_is_left_alone_unless_forced(
    tmp_path: Path, name: str
) -> None:
    lost_ms = (
        MIDNIGHT_MS
        + {"space_storage": 25, "extractor_runtime": 28, "service_uptime": 24, "user_activity": 25}[name]
        * HOUR_MS
    )
    lost_ms += 1800_000 if name == "service_uptime" else 0
    async with three_days(tmp_path) as stores:
        before = await everything(stores)
        await sql(stores, "DELETE FROM events WHERE time = ?", lost_ms)
        await sql(stores, "DELETE FROM rollups WHERE rollup = ? AND window = '1m'", name)
        async with at_end(stores) as worker:
            outcome = await worker.rebuild(name, *SECOND_DAY)
            assert (outcome.status, outcome.changed) == ("done", 0)
            windows = 3 if name in ("space_storage", "user_activity") else 1
            assert (outcome.left_alone, len(outcome.refused)) == (windows, windows)
            for line in outcome.refused:
                assert "events in it, the archive holds" in line
            assert any(line.startswith("1m ") for line in outcome.refused)
            assert (await worker.rebuild(name, *SECOND_DAY)).left_alone == windows, "as often as it is asked"
            found = await everything(stores)
            assert (
                same(
                    on_windows(found, name),
                    {(name, "1h"): before[name, "1h"], (name, "1d"): before[name, "1d"]},
                )
                == []
            )
            outcome = await worker.rebuild(name, *SECOND_DAY, force=True)
            assert (outcome.status, outcome.left_alone) == ("done", 0)
            assert outcome.changed == len(outcome.differences) >= windows
        rest = [event for event in THREE_DAYS if event.time != lost_ms]
        found = on_days(await everything(stores), name, 1)
        expected = on_days(rollups(placed(rest), watermark_ms=END_MS), name, 1)
        if name != "extractor_runtime":  # zeros stay where something was
            assert same(with_content(found), expected) == []
        else:
            assert same(found, expected) == []


async def test_a_gone_window_of_which_the_archive_lost_events_keeps_its_values(tmp_path: Path) -> None:
    async with opened(tmp_path) as stores:
        await three_days_lived(stores, keep=timedelta(hours=30))
        async with at_end(stores, keep=timedelta(hours=1)) as worker:
            worker.engine.now_ms += DAY_MS
            await worker.passes(END_MS + DAY_MS)
            worker.engine.now_ms += 61_000
            await worker.live()
            await worker.passes(END_MS + DAY_MS + 61_000)  # no more follows from it after ``before``
            assert await stores.state.keys_between("extractor_runtime/1m", 0, SECOND_DAY[1]) == []
            before = await everything(stores)
            await sql(stores, "DELETE FROM events WHERE type = 'extraction.succeeded'")
            outcome = await worker.rebuild("extractor_runtime", *SECOND_DAY)
            assert (outcome.status, outcome.differences) == ("done", ())
            assert outcome.left_alone > 0
            assert await everything(stores) == before
            outcome = await worker.rebuild("extractor_runtime", *SECOND_DAY, force=True)
            assert outcome.left_alone == 0
            assert outcome.changed > 0
            days = {
                at: row["succeeded"]
                for (at, _), row in (await everything(stores))["extractor_runtime", "1d"].items()
            }
            assert days[SECOND_DAY[0]] == 0


async def test_a_rebuild_waits_for_the_archive_and_says_when_it_does_not_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as stores:
        worker = Worker(stores, now_ms=END_MS)
        await worker.engine.start()
        await publish(stores, THREE_DAYS)
        await worker.engine.folded()
        # The archive has the events; that it has them is not saved.
        outcome = await worker.rebuild("space_storage", *SECOND_DAY)
        assert outcome.status == "failed"
        assert outcome.said.startswith("the archive is behind")
        assert "\n" not in outcome.said
        await worker.live()
        assert (await worker.rebuild("space_storage", *SECOND_DAY)).status == "done"
        await publish(stores, [upload(SECOND_DAY[0] * 1000)])
        await worker.engine.folded()
        waiting = asyncio.create_task(worker.rebuild("space_storage", *SECOND_DAY))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await worker.engine.checkpoint()
        assert (await waiting).status == "done"
        await worker.engine.stop()


async def test_without_an_archive_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "AGENTS", [agent for agent in AGENTS if agent.group == "rollups"])
    async with working(tmp_path, now_ms=END_MS) as worker:
        await publish(worker.stores, THREE_DAYS)
        await worker.live()
        for name in ROLLUPS:
            outcome = await worker.rebuild(name, *SECOND_DAY)
            assert outcome.status == "failed"
            assert outcome.said == "there is no archive to rebuild from: run a worker with the group archive"


async def test_a_rollup_that_the_group_has_not_is_said(tmp_path: Path) -> None:
    async with working(tmp_path, now_ms=END_MS) as worker:
        outcome = await worker.rebuild("nonsense", 0, 60)
        assert (outcome.status, outcome.said) == ("failed", "group rollups has no rollup nonsense")


async def test_a_request_that_nobody_understands_fails_and_ends_no_worker(tmp_path: Path) -> None:
    async with working(tmp_path, now_ms=END_MS) as worker:
        asked = uuid7(END_MS)
        await worker.stores.state.put_request(Request(id=asked, group="rollups", what=b'{"rollup": 7}'))
        outcome = await worker.over(asked)
        assert outcome.status == "failed"
        assert "not understood" in outcome.said


@pytest.mark.parametrize(("since", "until"), [(0, LONG), (LONG - 60, LONG)])
@pytest.mark.parametrize("name", KINDS[:3])
async def test_a_range_without_bounds_takes_no_longer_than_what_is_in_it(
    tmp_path: Path, name: str, since: int, until: int
) -> None:
    async with three_days(tmp_path) as stores:
        before = await everything(stores)
        async with at_end(stores) as worker, asyncio.timeout(60):
            outcome = await worker.rebuild(name, since, until)
            assert (outcome.status, outcome.changed, outcome.refused) == ("done", 0, ())
            assert (outcome.windows > 0) == (since == 0 and until == LONG)
        assert await everything(stores) == before


# -- while other things happen --


@pytest.mark.parametrize("name", KINDS)
async def test_a_worker_folds_on_while_it_rebuilds(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path) as stores:
        worker = Worker(stores, now_ms=END_MS)
        await worker.engine.start()
        await publish(stores, THREE_DAYS[::2])
        await worker.live()
        rest = THREE_DAYS[1::2]
        rebuilding = True

        async def rebuild() -> None:
            while rebuilding:
                outcome = await worker.rebuild(name, MIDNIGHT_S, MIDNIGHT_S + 3 * 86_400)
                assert (outcome.status, outcome.changed, outcome.refused) == ("done", 0, ())

        async def save() -> None:
            while rebuilding:
                await worker.engine.checkpoint()
                await asyncio.sleep(0.001)

        others = [asyncio.create_task(rebuild()), asyncio.create_task(save())]
        for event in rest:
            await publish(stores, [event])
            await asyncio.sleep(0.005)
        rebuilding = False
        await asyncio.gather(*others)
        await worker.live()
        await worker.passes(END_MS)
        await worker.engine.stop()
        expected = rollups(placed([*THREE_DAYS[::2], *rest]), watermark_ms=END_MS)
        assert same(await everything(stores), expected) == []


class Broken(Failing):
    """A store of rows that is away when it is asked for the archive's position, for longer than anyone is patient."""

    async def read_group(self, group: str) -> GroupState | None:
        if group == "archive" and self.failures.get("read_group", 0) > 0:
            self.failures["read_group"] -= 1
            await asyncio.sleep(0)
            raise Unavailable("read_group failed on order")
        state: GroupState | None = await self._inner.read_group(group)
        return state


async def test_a_store_that_is_away_for_long_is_no_archive_that_is_behind(tmp_path: Path) -> None:
    async with three_days(tmp_path) as stores:
        broken = Broken(stores.state)
        async with at_end(stores, store=broken) as worker:
            broken.failures["read_group"] = 500
            outcome = await worker.rebuild("space_storage", *SECOND_DAY)
            assert (outcome.status, outcome.changed, outcome.said) == ("done", 0, "")
            assert broken.failures["read_group"] == 0


async def test_rows_that_a_crash_left_ahead_of_the_position_lose_nothing(tmp_path: Path) -> None:
    # log        1 … n  │ n+1 … m
    # position   saved ─┘        │   the process died between 1 and 3 of a checkpoint:
    # rows       up to ──────────┘   the next one reads n+1 … again and skips what a row has
    half = len(THREE_DAYS) // 2

    class Dying(Failing):
        async def save_group(self, group: str, state: GroupState) -> None:
            if group == "rollups" and self.failures.get("save_group", 0):
                await asyncio.get_running_loop().create_future()
            await self._inner.save_group(group, state)

    async with opened(tmp_path) as stores:
        dying = Dying(stores.state)
        worker = Worker(stores, now_ms=END_MS, store=dying)
        await worker.engine.start()
        await publish(stores, THREE_DAYS[:half])
        await worker.live()
        dying.failures["save_group"] = 1
        await publish(stores, THREE_DAYS[half:])
        await worker.engine.folded()
        dead = asyncio.create_task(worker.group.checkpoint())
        while await stores.state.owed_rows(["space_storage/1m"], 1) or not await stores.state.keys_between(
            "space_storage/1d", MIDNIGHT_S + 2 * 86_400, LONG
        ):
            await asyncio.sleep(0.001)
        for group in worker.engine.groups:
            if group.name == "archive":
                await group.checkpoint()
        worker.engine.give_up()
        dead.cancel()
        await asyncio.gather(dead, return_exceptions=True)
        await worker.engine.crash()
        # Asked before there is a worker, so it is done before anything is read again; forced, so nothing hinders it.
        ids = [
            await ask(stores.state, name, MIDNIGHT_S, END_MS // 1000, now_ms=END_MS, force=True)
            for name in ROLLUPS
        ]
        worker = Worker(stores, now_ms=END_MS)
        owned = Group("rollups", [agent for agent in AGENTS if agent.group == "rollups"], worker.engine.parts)
        await owned.start()
        for asked in ids:
            outcome = await over(owned, stores.state, asked)
            assert (outcome.status, outcome.left_alone) == ("done", 0)
            assert outcome.differences == ()
        await owned.stop()
        worker = Worker(stores, now_ms=END_MS)
        await worker.engine.start()
        await worker.live()
        await worker.passes(END_MS)
        await worker.engine.stop()
        assert same(await everything(stores), EXPECTED) == []


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", range(2))
async def test_a_rebuild_that_dies_anywhere_is_carried_out_again(
    tmp_path: Path, name: str, seed: int
) -> None:
    random = Random(seed)
    async with three_days(tmp_path) as stores:
        await sql(stores, "DELETE FROM rollups WHERE rollup = ?", name)
        await sql(stores, "DELETE FROM rows WHERE kind LIKE ?", f"{name}/1%")
        asked = await ask(stores.state, name, MIDNIGHT_S, END_MS // 1000, now_ms=END_MS)
        for _ in range(3):
            killed = Killed(random.randrange(20, 200), after=bool(random.getrandbits(1)))
            worker = Worker(stores, now_ms=END_MS)
            guard(worker.engine, killed)
            living = asyncio.create_task(worker_until_over(worker, asked))
            dying = asyncio.create_task(killed.dead.wait())
            await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
            worker.engine.give_up()
            living.cancel()
            dying.cancel()
            await asyncio.gather(living, dying, return_exceptions=True)
            await worker.engine.crash()
        worker = Worker(stores, now_ms=END_MS)
        await worker.engine.start()
        outcome = await worker.over(asked)
        assert (outcome.status, outcome.refused) == ("done", ())
        await worker.live()
        await worker.engine.stop()
        assert same(await everything(stores), EXPECTED) == []


async def worker_until_over(worker: Worker, asked: str) -> None:
    await worker.engine.start()
    await worker.live()
    await worker.over(asked)


async def test_a_request_that_is_taken_back_is_left(tmp_path: Path) -> None:
    async with three_days(tmp_path) as stores:
        await sql(stores, "DELETE FROM rows WHERE kind LIKE 'space_storage/1%'")

        class TakenBack(Failing):
            async def save_request(self, request: Request, *, expected: int) -> bool:
                saved = await stores.state.save_request(request, expected=expected)
                if expected == 2:
                    await stores.state.delete_request(request.id)
                return bool(saved)

        async with at_end(stores, store=TakenBack(stores.state)) as worker:
            rows = await kept_rows(stores)
            asked = await ask(stores.state, "space_storage", MIDNIGHT_S, LONG, now_ms=END_MS)
            while await stores.state.request(asked) is not None:
                await asyncio.sleep(0.001)
            for _ in range(20):
                await asyncio.sleep(0.002)
            await worker.engine.checkpoint()
            assert await kept_rows(stores) == rows
            failed = worker.group.failed
            assert failed is not None
            assert not failed.done()


async def test_a_finished_request_that_nobody_fetched_goes_after_a_day(tmp_path: Path) -> None:
    async with working(tmp_path, now_ms=END_MS) as worker:
        store = worker.stores.state
        asked = await ask(store, "space_storage", MIDNIGHT_S, LONG, now_ms=END_MS - 3 * DAY_MS)
        assert (await worker.over(asked)).status == "done"
        worker.engine.now_ms += DAY_MS
        for _ in range(20):
            await asyncio.sleep(0.002)
        assert await store.request(asked) is not None
        worker.engine.now_ms += 1
        async with asyncio.timeout(60):
            while await store.request(asked) is not None:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("moment", [1, 5])
async def test_a_reading_that_starts_over_begins_the_rebuild_anew(
    tmp_path: Path, name: str, moment: int
) -> None:
    """Rows change under the worker while it rebuilds, and it meets that in a checkpoint."""
    async with three_days(tmp_path) as stores:
        before = await everything(stores)
        await sql(stores, "DELETE FROM rows WHERE kind LIKE ?", f"{name}/1%")
        await sql(stores, "DELETE FROM rollups WHERE rollup = ?", name)

        class Disturbed(Failing):
            told = 0

            async def save_request(self, request: Request, *, expected: int) -> bool:
                saved = await stores.state.save_request(request, expected=expected)
                self.told += 1
                if self.told == moment:
                    group = worker.group
                    key = RowKey(f"{name}/1m", MIDNIGHT_S - 86_400, "x")
                    row = (await group.reading.rows.load([key]))[key]
                    group.reading.rows.change(row, row.state, NOWHERE)
                    await stores.state.save_rows(
                        [
                            RowWrite(
                                StoredRow(
                                    key, 7, NOWHERE, False, group._tables[key.table].pack(row.state), key.at
                                ),
                                0,
                            )
                        ]
                    )
                    first = group.reading
                    await group.checkpoint()
                    assert group.reading is not first
                return bool(saved)

        disturbed = Disturbed(stores.state)
        async with at_end(stores, store=disturbed) as worker:
            outcome = await worker.rebuild(name, MIDNIGHT_S, END_MS // 1000)
            assert (outcome.status, outcome.refused) == ("done", ())
            assert disturbed.told > moment
        found = await everything(stores)
        assert same(found, EXPECTED) == same(before, EXPECTED) == []
