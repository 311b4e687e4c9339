"""The spool's file: in order, synced, bounded, and whole after a death at any step."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.web.spools import NOW_MS, ROOM, stamped
from topology.errors import ForeignSchema, Unavailable
from web.spool import RESERVED_BYTES, Held, Spool


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = Spool(tmp_path / "spool.db", max_bytes=ROOM)
    await spool.open()
    yield spool
    await spool.close()


async def all_of(spool: Spool) -> list[str | None]:
    return [each.message.event_id for each in await spool.first(limit=10_000, max_bytes=1 << 40)]


async def test_what_is_kept_comes_back_whole_and_in_order(spool: Spool) -> None:
    await asyncio.gather(*(spool.append(stamped(n)) for n in range(100)))
    await spool.append(stamped(100, events=3))
    messages = [each.message for each in await spool.first(limit=1000, max_bytes=1 << 30)]
    assert messages == [*(stamped(n) for n in range(100)), stamped(100, events=3)]
    assert spool.held.messages == 101
    assert spool.held.events == 103
    assert spool.held.oldest_ms == NOW_MS


async def test_messages_that_wait_share_one_transaction_that_is_synced(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", max_bytes=ROOM)
    await spool.open()
    begun: list[str] = []
    await spool._database.read(lambda file: file.set_trace_callback(begun.append))
    await asyncio.gather(*(spool.append(stamped(n)) for n in range(500)))
    assert begun.count("COMMIT") == 1
    assert await spool._database.read(lambda file: file.execute("PRAGMA synchronous").fetchone()) == (2,)
    assert await spool._database.read(lambda file: file.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    await spool.close()


async def test_an_append_is_not_over_before_its_transaction(spool: Spool) -> None:
    # Pitfall 31. Another connection, as after a death, sees each message that an append has returned for.
    other = sqlite3.connect(spool.path)
    for n in range(20):
        await spool.append(stamped(n))
        assert other.execute("SELECT max(event_id), count(*) FROM spool").fetchone()[1] == n + 1
    other.close()


async def test_numbers_go_on_after_everything_was_removed(spool: Spool) -> None:
    for n in range(3):
        await spool.append(stamped(n))
        (only,) = await spool.first(limit=10, max_bytes=1)
        assert only.number == n + 1
        await spool.remove(only.number)
        assert spool.empty
        assert spool.held.events == 0


async def test_a_batch_ends_before_it_is_too_large_but_is_never_empty(spool: Spool) -> None:
    for n in range(4):
        await spool.append(stamped(n, size=1000))
    assert len(await spool.first(limit=3, max_bytes=1 << 20)) == 3
    assert len(await spool.first(limit=10, max_bytes=2500)) == 2
    assert len(await spool.first(limit=10, max_bytes=10)) == 1


async def test_beyond_its_bound_it_takes_nothing_and_room_that_is_freed_is_used_again(tmp_path: Path) -> None:
    bound = 400_000
    spool = Spool(tmp_path / "spool.db", max_bytes=bound)
    await spool.open()
    for round_ in range(5):
        answers = await asyncio.gather(
            *(spool.append(stamped(n, size=5_000)) for n in range(100)), return_exceptions=True
        )
        kept = answers.index(next(answer for answer in answers if answer is not None))
        assert "raise EVENTSINK_SPOOL_MAX_BYTES" in str(answers[kept])
        assert bound * 0.8 < spool.held.bytes <= bound
        assert len(await all_of(spool)) == kept >= 40, round_
        await spool.remove((await spool.first(limit=1000, max_bytes=1 << 30))[-1].number)
    with pytest.raises(Unavailable, match="the spool is full"):
        await spool.append(stamped(0, size=bound))
    await spool.append(stamped(0))
    await spool._database.read(lambda file: file.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
    assert spool.path.stat().st_size <= bound
    await spool.close()


async def test_of_a_group_that_does_not_fit_whole_the_first_ones_are_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", max_bytes=200_000)
    answers = await asyncio.gather(
        *(spool.append(stamped(n, size=10_000)) for n in range(40)), return_exceptions=True
    )
    kept = [n for n, answer in enumerate(answers) if answer is None]
    assert 5 < len(kept) < 20
    assert kept == list(range(len(kept)))
    assert all(isinstance(answer, Unavailable) for answer in answers[len(kept) :])
    assert await all_of(spool) == [f"id-{n}" for n in kept]
    await spool.close()


# -- the disk --


async def test_a_full_disk_refuses_in_one_line_and_loses_nothing(spool: Spool) -> None:
    await spool.append(stamped(0))
    await spool._database.read(lambda file: file.execute("PRAGMA max_page_count = 9"))
    with pytest.raises(Unavailable, match=r"^the disk of .* is full: make room, nothing was lost$"):
        await spool.append(stamped(1, size=100_000))
    await spool._database.read(lambda file: file.execute("PRAGMA max_page_count = 1000000"))
    await spool.append(stamped(2))
    assert await all_of(spool) == ["id-0", "id-2"]


async def test_it_never_fills_a_disk_itself_so_that_it_can_be_drained(tmp_path: Path) -> None:
    left = RESERVED_BYTES
    spool = Spool(tmp_path / "spool.db", max_bytes=ROOM, free=lambda folder: left)
    await spool.append(stamped(0))
    left -= 1
    with pytest.raises(Unavailable, match="has less than 32 MiB left: make room"):
        await spool.append(stamped(1))
    with pytest.raises(Unavailable, match="make room"):
        await spool.prove()
    await spool.remove(1)
    assert spool.empty
    await spool.close()


async def test_a_folder_that_cannot_be_written_refuses_in_one_line(spool: Spool) -> None:
    await spool.append(stamped(0))
    await spool._database.read(lambda file: file.execute("PRAGMA query_only = ON"))
    with pytest.raises(Unavailable, match=r"spool.db: attempt to write a readonly database: check the disk"):
        await spool.append(stamped(1))
    with pytest.raises(Unavailable, match="readonly"):
        await spool.prove()
    await spool._database.read(lambda file: file.execute("PRAGMA query_only = OFF"))
    await spool.append(stamped(2))
    assert await all_of(spool) == ["id-0", "id-2"]


async def test_a_folder_that_was_not_there_at_the_start_is_used_once_it_is(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "later" / "spool.db", max_bytes=ROOM)
    with pytest.raises(Unavailable):
        await spool.open()
    with pytest.raises(Unavailable):
        await spool.append(stamped(0))
    spool.path.parent.mkdir()
    await spool.append(stamped(1))
    assert await all_of(spool) == ["id-1"]
    await spool.close()


async def test_a_file_of_somebody_else_ends_a_start_and_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"notes of somebody else\n" * 100)
    spool = Spool(tmp_path / "spool.db", max_bytes=ROOM)
    with pytest.raises(ForeignSchema):
        await spool.open()
    with pytest.raises(Unavailable, match="not an eventsink database"):
        await spool.append(stamped(0))
    await spool.close()


async def test_it_counts_as_taking_events_while_the_largest_message_fits(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", max_bytes=1_200_000)
    await spool.prove()
    await spool.append(stamped(0, size=200_000))
    with pytest.raises(Unavailable, match="the spool is full"):
        await spool.prove()
    await spool.close()


# -- what the broker will never take --


async def test_what_is_put_aside_is_in_nobodys_way_and_is_taken_up_again_behind_the_others(
    spool: Spool,
) -> None:
    for n in range(250):
        await spool.append(stamped(n, events=2))
    for number in range(1, 249):
        await spool.put_aside(number, "too large")
    assert await all_of(spool) == ["id-248", "id-249"]
    assert spool.held._replace(bytes=0) == Held(2, 4, 0, NOW_MS + 248, 496)
    assert await spool.take_up_again() == 248
    assert await all_of(spool) == ["id-248", "id-249", *(f"id-{n}" for n in range(248))]
    assert spool.held._replace(bytes=0) == Held(250, 500, 0, NOW_MS + 248, 0)


# -- several processes, and their deaths --


async def test_two_processes_may_append_to_one_spool(tmp_path: Path) -> None:
    one, two = (Spool(tmp_path / "spool.db", max_bytes=ROOM) for _ in range(2))
    await asyncio.gather(*(spool.append(stamped(n)) for n in range(50) for spool in (one, two)))
    assert len(await all_of(one)) == 100
    assert (await two.look()).messages == 100
    await one.close()
    await two.close()


#: Appends without end, and says after each one that it is over.
APPENDING = """
import asyncio, sys
from pathlib import Path
from tests.web.spools import ROOM, stamped
from web.spool import Spool

async def main():
    spool = Spool(Path(sys.argv[1]), max_bytes=ROOM)

    async def one(number):
        await spool.append(stamped(number, size=number % 9000))
        print(number, flush=True)

    for start in range(0, 1_000_000, 7):
        await asyncio.gather(*map(one, range(start, start + 7)))

asyncio.run(main())
"""


@pytest.mark.processes
@pytest.mark.parametrize("after", [1, 10, 200])
async def test_every_append_that_was_over_survives_sigkill(tmp_path: Path, after: int) -> None:
    path = tmp_path / "spool.db"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", APPENDING, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    said = [await process.stdout.readline() for _ in range(after)]
    process.kill()
    said += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    over = {int(line) for line in said if line.endswith(b"\n")}
    spool = Spool(path, max_bytes=ROOM)
    found = await all_of(spool)
    assert {f"id-{n}" for n in over} <= set(found)
    assert found == [f"id-{n}" for n in range(len(found))]
    await spool.close()
