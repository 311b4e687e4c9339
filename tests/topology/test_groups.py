"""A group: its checkpoints, its readings, and who may own it. The whole embedded engine, a clock by hand."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.topology.engine import NOW_MS, Engine, publish, rollup, started
from tests.topology.stores import Failing, Stores, opened
from topology.errors import Superseded
from topology.log import LogReplaced, Message
from topology.position import place

MINUTE_S = NOW_MS // 1000


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


def uploads(count: int, first: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """Uploads of 1, 2, 4, … bytes: every subset of them has a sum of its own."""
    return [
        {"type": "storage.file_uploaded", "file_id": "f", "time": NOW_MS, "bytes": 2**n, "space_id": "x"}
        | fields
        for n in range(first, first + count)
    ]


async def bytes_added(stores: Stores, window: str = "1m") -> int:
    rows = await rollup(stores, "space_storage", window)
    return sum(fields["bytes_added"] for fields in rows.values())


async def lived(engine: Engine) -> None:
    await engine.folded()
    await engine.checkpoint()


async def test_what_was_published_is_in_every_window_and_in_the_archive(tmp_path: Path) -> None:
    async with started(tmp_path) as engine:
        await publish(engine.stores, uploads(10))
        await lived(engine)
        for window in ("1m", "1h", "1d"):
            assert await bytes_added(engine.stores, window) == 2**10 - 1
        archived = await engine.stores.raw_events.query(since=None, until=None, type=None, limit=99)
        assert len(archived) == 10


async def test_a_stop_saves_what_is_folded_and_a_start_goes_on_after_it(stores: Stores) -> None:
    for first in (0, 5):
        engine = Engine(stores)
        await engine.start()
        await publish(stores, uploads(5, first))
        await engine.folded()
        await engine.stop()
    assert await bytes_added(stores) == 2**10 - 1


async def test_a_crash_without_any_checkpoint_reads_everything_again(stores: Stores) -> None:
    engine = Engine(stores)
    await engine.start()
    await publish(stores, uploads(5))
    await engine.folded()
    await engine.crash()
    assert await rollup(stores, "space_storage", "1m") == {}
    again = Engine(stores)
    await again.start()
    await lived(again)
    await again.stop()
    assert await bytes_added(stores) == 2**5 - 1


async def test_a_late_event_corrects_its_window(tmp_path: Path) -> None:
    # now-3d [late)          now [first)
    async with started(tmp_path) as engine:
        await publish(engine.stores, uploads(1))
        await lived(engine)
        await publish(engine.stores, uploads(1, 1, time=NOW_MS - 3 * 86_400_000))
        await publish(engine.stores, uploads(1, 2))
        await lived(engine)
        rows = await rollup(engine.stores, "space_storage", "1m")
        assert {time: fields["bytes_added"] for (time, _), fields in rows.items()} == {
            MINUTE_S: 1 + 4,
            MINUTE_S - 3 * 86_400: 2,
        }


async def test_a_worker_of_a_lower_generation_stops_with_a_clear_error_and_the_numbers_are_exact(
    stores: Stores,
) -> None:
    first, second = Engine(stores), Engine(stores)
    await first.start()
    await publish(stores, uploads(5))
    await first.folded()
    await second.start()
    await publish(stores, uploads(5, 5))
    await second.folded()
    for group in first.groups:
        with pytest.raises(Superseded, match="another worker took over group"):
            await group.checkpoint()
    await lived(second)
    await first.stop()
    await second.stop()
    assert await bytes_added(stores) == 2**10 - 1


async def test_rows_that_a_lower_generation_writes_under_us_are_read_again(stores: Stores) -> None:
    # The first worker looks at the generation, the second one starts and loads rows, the first one writes.
    first, second = Engine(stores), Engine(stores)

    class Overtaken(Failing):
        armed = False

        async def generation(self, group: str) -> int:
            seen: int = await stores.state.generation(group)
            if self.armed and second.flow is None:
                await second.start()
                await second.folded()
            return seen

    overtaken = Overtaken(stores.state)
    first.parts = dataclasses.replace(first.parts, store=overtaken)
    await first.start()
    await publish(stores, uploads(5))
    await first.folded()
    overtaken.armed = True
    with pytest.raises(Superseded):
        await first.groups[0].checkpoint()
    await first.crash()
    await publish(stores, uploads(5, 5))
    await second.folded()
    await second.checkpoint()  # conflicts with what the first one wrote, starts over
    await lived(second)
    await second.stop()
    assert await bytes_added(stores) == 2**10 - 1
    assert await bytes_added(stores, "1d") == 2**10 - 1


async def test_a_new_log_is_read_from_its_first_event_as_the_next_epoch(
    stores: Stores, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(stores)
    await engine.start()
    await publish(stores, uploads(5))
    await engine.folded()
    await engine.stop()
    folder = tmp_path / "new"
    folder.mkdir()
    async with opened(folder) as new:
        await publish(new, uploads(3, 5))
        again = Engine(stores)
        again.stores = dataclass_log(stores, new)
        again.parts = dataclasses.replace(again.parts, log=new.log)
        with caplog.at_level(logging.ERROR):
            await again.start()
            await lived(again)
        assert {place(p).epoch for p in again.groups[0].reading.positions.values()} == {1}
        await again.stop()
    assert "the log is a new one" in caplog.text
    assert await bytes_added(stores) == 2**8 - 1


def dataclass_log(stores: Stores, new: Stores) -> Stores:
    """The stores, with the log of the new ones."""
    mixed = Stores.__new__(Stores)
    vars(mixed).update(vars(stores) | {"log": new.log})
    return mixed


async def test_a_log_cut_past_our_position_is_read_on_at_what_is_left_and_said_to_be_lost(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(stores)
    await engine.start()
    await publish(stores, uploads(2))
    await engine.folded()
    await engine.stop()
    await publish(stores, uploads(8, 2))

    class Cut(Failing):
        async def message_at(self, offset: int) -> Message | None:
            return None

        async def first_offset(self) -> int:
            return 7

        async def reader(self, offset: int) -> Any:
            return await self._inner.reader(max(offset, 7))

    again = Engine(stores)
    again.parts = dataclasses.replace(again.parts, log=Cut(stores.log))
    with caplog.at_level(logging.ERROR):
        await again.start()
        await lived(again)
    await again.stop()
    assert "5 message(s) are gone" in caplog.text  # 2, 3, 4, 5, 6
    assert await bytes_added(stores) == 2**10 - 1 - (2**7 - 2**2)


async def test_a_log_cut_under_a_reader_that_lags_is_said_to_be_lost(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(stores)

    class Lagging(Failing):
        """Between two fetches, retention takes messages away."""

        async def fetch(self, **options: Any) -> Sequence[Message]:
            messages: Sequence[Message] = await self._inner.fetch(**(options | {"limit": 1}))
            if messages and messages[0].offset == 1:
                # Older than anything: what retention leaves is the newest message.
                await stores.log.trim(max_age=timedelta(0), max_bytes=0, now_ms=NOW_MS)
            return messages

    class Log(Failing):
        async def reader(self, offset: int) -> Any:
            return Lagging(await self._inner.reader(offset))

    engine.parts = dataclasses.replace(engine.parts, log=Log(stores.log))
    await publish(stores, uploads(10))
    with caplog.at_level(logging.ERROR):
        await engine.start()
        await lived(engine)
    await engine.stop()
    assert "messages 2 to 8" in caplog.text
    assert await bytes_added(stores) == 1 + 2 + 2**9


async def test_an_agent_added_later_starts_with_the_history_that_the_log_has(stores: Stores) -> None:
    engine = Engine(stores)
    await engine.start()
    await publish(stores, uploads(5))
    await lived(engine)
    await engine.stop()
    saved = await stores.state.read_group("rollups")
    assert saved is not None
    # As if the agent had not been there: its position was never saved, its rows do not exist.
    await stores.state.save_group(
        "rollups",
        type(saved)(
            generation=saved.generation,
            positions={"traffic": saved.positions["traffic"]},
            read_up_to=saved.read_up_to,
            digest=saved.digest,
        ),
    )
    again = Engine(stores)
    await again.start()
    await publish(stores, uploads(5, 5))
    await lived(again)
    await again.stop()
    assert await bytes_added(stores) == 2**10 - 1


async def test_a_log_reopened_while_one_agent_catches_up_skips_nothing(stores: Stores) -> None:
    engine = Engine(stores)
    await engine.start()
    await publish(stores, uploads(10))
    await lived(engine)
    await engine.stop()
    saved = await stores.state.read_group("rollups")
    assert saved is not None
    await stores.state.save_group(
        "rollups", msgspec.structs.replace(saved, positions={"traffic": saved.read_up_to})
    )

    class Interrupted(Failing):
        """A reader that gives one message, and then says that the log has to be opened again."""

        async def fetch(self, **options: Any) -> Sequence[Message]:
            if "fetch" in self.calls:
                raise LogReplaced
            self.calls.append("fetch")
            messages: Sequence[Message] = await self._inner.fetch(**(options | {"limit": 1}))
            return messages

    class Interrupting(Failing):
        async def reader(self, offset: int) -> Any:
            reader = await self._inner.reader(offset)
            return Interrupted(reader) if offset < 9 else reader

    again = Engine(stores)
    again.parts = dataclasses.replace(again.parts, log=Interrupting(stores.log))
    await again.start()
    await lived(again)
    await again.stop()
    storage = again.stores.registry.get_sample_value(
        "eventsink_events_total", {"group": "rollups", "agent": "storage", "outcome": "folded"}
    )
    assert storage == 10 + 10  # of the first life, and of this one
    assert await bytes_added(stores) == 2**10 - 1


async def test_only_a_purge_moves_the_horizon_and_what_lies_before_it_is_late(tmp_path: Path) -> None:
    async with started(tmp_path, keep=timedelta(days=2)) as engine:
        await publish(engine.stores, uploads(1))
        await lived(engine)
        # Ten days pass, and an event shows it to the watermark.
        engine.now_ms += 10 * 86_400_000
        await publish(engine.stores, uploads(1, 1, time=engine.now_ms))
        await lived(engine)
        await publish(engine.stores, uploads(1, 2))
        await lived(engine)
        assert await rollup(engine.stores, "space_storage", "1m") == {
            (MINUTE_S, ("x",)): {"bytes_added": 1, "bytes_removed": 0, "files_added": 1, "files_removed": 0},
            (MINUTE_S + 864_000, ("x",)): {
                "bytes_added": 2,
                "bytes_removed": 0,
                "files_added": 1,
                "files_removed": 0,
            },
        }
        late = engine.stores.registry.get_sample_value(
            "eventsink_events_total", {"group": "rollups", "agent": "storage", "outcome": "late"}
        )
        assert late == 1
        archived = await engine.stores.raw_events.query(since=None, until=None, type=None, limit=9)
        assert len(archived) == 3


async def test_the_watermark_follows_the_clock_at_the_end_of_a_quiet_log_and_never_goes_back(
    tmp_path: Path,
) -> None:
    async with started(tmp_path) as engine:
        await publish(engine.stores, uploads(1))
        await lived(engine)
        reading = engine.groups[0].reading
        assert reading.watermark == NOW_MS - 10_000
        engine.now_ms += 60_000
        async with asyncio.timeout(60):
            while reading.watermark != NOW_MS + 50_000:
                await asyncio.sleep(0.01)
        engine.now_ms -= 3_600_000
        await publish(engine.stores, uploads(1, 1))
        await lived(engine)
        assert reading.watermark == NOW_MS + 50_000


async def test_every_event_has_one_outcome_of_each_agent(tmp_path: Path) -> None:
    async with started(tmp_path) as engine:
        same = {"source": "s", "id": "1"}
        await publish(
            engine.stores,
            [*uploads(3), *uploads(1, 3, **same), *uploads(1, 3, **same), {"type": "nonsense"}],
        )
        await lived(engine)
        value = engine.stores.registry.get_sample_value
        for agent, group in {"storage": "rollups", "traffic": "rollups", "archive": "archive"}.items():
            outcomes = {
                outcome: value("eventsink_events_total", {"group": group, "agent": agent, "outcome": outcome})
                for outcome in ("folded", "ignored", "duplicate", "late", "dead")
            }
            taken = agent != "traffic"
            assert outcomes == {
                "folded": 4 if taken else 0,
                "ignored": 0 if taken else 4,
                "duplicate": 1,
                "late": 0,
                "dead": 1,
            }
            assert value("eventsink_ledger_imbalance_events", {"agent": agent}) == 0
            assert value("eventsink_events_received_total", {"group": group}) == 6


async def test_a_stop_while_the_store_is_away_does_not_wait_for_it(stores: Stores) -> None:
    engine = Engine(stores)
    engine.parts = dataclasses.replace(engine.parts, store=Failing(stores.state, save_rows=10**9))
    await engine.start()
    await publish(stores, uploads(1))
    await engine.folded()
    await engine.stop()
    again = Engine(stores)
    await again.start()
    await lived(again)
    await again.stop()
    assert await bytes_added(stores) == 1
