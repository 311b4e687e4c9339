"""The outbox: in order, over restarts, bounded, and honest about what it lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from monitors.outbox import Kept, Outbox
from monitors.probe import Progress, Read, Unknown


def event(number: int, padding: int = 0) -> Mapping[str, object]:
    return {"type": "health.pinged", "id": str(number), "time": 1000 + number, "x": "x" * padding}


def numbers(waiting: Sequence[object]) -> list[int]:
    return [int(json.loads(each.body)["id"]) for each in waiting]  # type: ignore[attr-defined] # Waiting


async def opened(folder: Path, max_bytes: int = 1 << 20) -> Outbox:
    outbox = Outbox(folder / "outbox.db", max_bytes=max_bytes)
    await outbox.open()
    return outbox


async def test_what_was_kept_comes_out_in_order_after_a_restart(tmp_path: Path) -> None:
    outbox = await opened(tmp_path)
    await outbox.keep([event(1), event(2)])
    await outbox.keep([event(3)])
    await outbox.close()
    outbox = await opened(tmp_path)
    assert numbers(await outbox.first(limit=2, max_bytes=1 << 20)) == [1, 2]
    assert (outbox.held.events, outbox.held.oldest_ms) == (3, 1001)
    first = await outbox.first(limit=2, max_bytes=1 << 20)
    await outbox.remove(first[-1].number, refused=1)
    assert numbers(await outbox.first(limit=2, max_bytes=1 << 20)) == [3]
    assert (outbox.held.events, outbox.held.refused) == (1, 1)
    await outbox.close()


async def test_at_least_one_comes_out_whatever_its_size(tmp_path: Path) -> None:
    outbox = await opened(tmp_path)
    await outbox.keep([event(1, 5000), event(2, 5000)])
    assert numbers(await outbox.first(limit=9, max_bytes=10)) == [1]
    await outbox.close()


async def test_a_full_one_keeps_the_oldest_and_counts_what_it_drops_over_restarts(tmp_path: Path) -> None:
    outbox = await opened(tmp_path, max_bytes=200_000)
    kept = sum([1 - (await outbox.keep([event(number, 1000)])).dropped for number in range(300)])
    assert 100 < kept < 300
    assert outbox.held.bytes <= 200_000
    await outbox.close()
    outbox = await opened(tmp_path, max_bytes=200_000)
    assert (outbox.held.events, outbox.held.dropped) == (kept, 300 - kept)
    everything = await outbox.first(limit=1000, max_bytes=1 << 30)
    assert numbers(everything) == list(range(kept))
    # Room that becomes free is used again.
    await outbox.remove(everything[kept // 2].number)
    assert await outbox.keep([event(1000, 1000)]) == Kept()
    await outbox.close()


async def test_two_processes_put_in_and_take_out(tmp_path: Path) -> None:
    monitor, command = await opened(tmp_path), await opened(tmp_path)
    await monitor.keep([event(1)])
    await command.keep([event(2)])
    await monitor.keep([event(3)])
    assert (await monitor.look()).events == 3
    seen = await monitor.first(limit=2, max_bytes=1 << 20)
    await command.remove((await command.first(limit=9, max_bytes=1 << 20))[-1].number)
    await monitor.remove(seen[-1].number)
    assert (await monitor.look()).events == 0
    await monitor.close()
    await command.close()


async def test_progress_is_kept_with_its_result_or_not_at_all(tmp_path: Path) -> None:
    outbox = await opened(tmp_path, max_bytes=100_000)
    begins = Read(Unknown("counting begins"), Progress("log", None, b"1"))
    assert await outbox.keep([begins, Read(event(1), Progress("log", b"1", b"2"))]) == Kept()
    assert (await outbox.progress("log"), await outbox.progress("other")) == (b"2", None)
    # No room for the result: what was read is to be read again.
    assert await outbox.keep([Read(event(2, 200_000), Progress("log", b"2", b"3"))]) == Kept(dropped=1)
    await outbox.close()
    outbox = await opened(tmp_path)
    assert await outbox.progress("log") == b"2"
    assert numbers(await outbox.first(limit=9, max_bytes=1 << 20)) == [1]
    await outbox.close()


async def test_what_two_processes_have_read_is_told_once(tmp_path: Path) -> None:
    monitor, command = await opened(tmp_path), await opened(tmp_path)
    for outbox, number in ((monitor, 1), (command, 2)):
        kept = await outbox.keep([Read(event(number), Progress("log", None, str(number).encode()))])
        assert kept == Kept(overtaken=number - 1)
    assert await command.progress("log") == b"1"
    assert numbers(await command.first(limit=9, max_bytes=1 << 20)) == [1]
    await monitor.close()
    await command.close()


async def test_what_two_processes_see_refused_is_counted_once(tmp_path: Path) -> None:
    monitor, command = await opened(tmp_path), await opened(tmp_path)
    await monitor.keep([event(1)])
    await monitor.remove(1, refused=1)
    await command.remove(1, refused=1)
    assert (await monitor.look()).refused == 1
    await monitor.close()
    await command.close()
