"""What only the embedded log has: trimming, and other processes on the same file."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from tests.topology.test_log import SOON, UNBOUNDED, event, numbers, read
from topology.errors import Unavailable
from topology.log import JSON, Message, Outgoing
from topology.sqlite.file import Database
from topology.sqlite.log import SCHEMA, SqliteLog

ROOT = Path(__file__).parents[2]
NO_BYTES_LIMIT = 1 << 60
FOR_EVER = timedelta(days=36_500)
SECOND = timedelta(seconds=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "eventsink.db"


@pytest.fixture
async def log(file: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(Database(file, schema=SCHEMA))
    await log.open()
    yield log
    await log.close()


def received(at_ms: int | None, size: int = 10) -> Outgoing:
    return Outgoing(b"x" * size, JSON, "id", at_ms)


async def left(log: SqliteLog) -> list[int]:
    return [message.offset for message in await log.read(0, limit=10_000, max_bytes=NO_BYTES_LIMIT)]


async def test_messages_older_than_the_limit_are_trimmed_from_the_front(log: SqliteLog) -> None:
    # received   0   1   2   3   4   5   6   7   8   9 s
    #            |---trimmed---|                       now = 13 s, 10 s are kept
    await log.publish([received(second * 1000) for second in range(10)])
    assert await log.trim(max_age=10 * SECOND, max_bytes=NO_BYTES_LIMIT, now_ms=13_000) == 3
    assert await left(log) == [3, 4, 5, 6, 7, 8, 9]
    assert await log.first_offset() == 3


async def test_the_front_goes_first_even_where_arrivals_are_not_in_order(log: SqliteLog) -> None:
    # A message with a young one before it stays: there are no holes.
    await log.publish([received(at) for at in (0, 9000, 1000, 9500)])
    assert await log.trim(max_age=SECOND, max_bytes=NO_BYTES_LIMIT, now_ms=9500) == 1
    assert await left(log) == [1, 2, 3]


async def test_a_message_of_unknown_age_is_as_old_as_the_one_behind_it(log: SqliteLog) -> None:
    await log.publish([received(at) for at in (0, None, 1000, None, 9000, None)])
    assert await log.trim(max_age=SECOND, max_bytes=NO_BYTES_LIMIT, now_ms=9500) == 4
    assert await left(log) == [4, 5]


async def test_messages_of_unknown_age_alone_are_kept(log: SqliteLog) -> None:
    await log.publish([received(None)] * 3)
    assert await log.trim(max_age=SECOND, max_bytes=NO_BYTES_LIMIT, now_ms=9500) == 0


@pytest.mark.parametrize("max_bytes", [0, 10, 25, 30, 65, 100, 1000])
async def test_bodies_beyond_the_limit_are_trimmed_from_the_front(log: SqliteLog, max_bytes: int) -> None:
    sizes = [10, 20, 0, 30, 5, 5, 10]
    await log.publish([received(0, size) for size in sizes])
    await log.trim(max_age=FOR_EVER, max_bytes=max_bytes, now_ms=0)
    # The longest stretch at the end that fits, and the newest message in any case.
    fitting = [n for n in range(len(sizes)) if sum(sizes[n:]) <= max_bytes]
    assert await left(log) == list(range(min([*fitting, len(sizes) - 1]), len(sizes)))


async def test_the_newest_message_stays_and_offsets_never_start_again(log: SqliteLog) -> None:
    await log.publish([received(0) for _ in range(5)])
    assert await log.trim(max_age=SECOND, max_bytes=0, now_ms=10**12) == 4
    assert await log.trim(max_age=SECOND, max_bytes=0, now_ms=10**12) == 0
    assert (await log.first_offset(), await log.end_offset()) == (4, 5)
    await log.publish([received(0)])
    assert await left(log) == [4, 5]


async def test_an_empty_log_can_be_trimmed(log: SqliteLog) -> None:
    assert await log.trim(max_age=SECOND, max_bytes=0, now_ms=10**12) == 0


async def test_the_size_is_right_after_trimming_and_appending_in_turns(log: SqliteLog) -> None:
    kept: Sequence[Message] = ()
    for size in itertools.islice(itertools.cycle([100, 1, 50]), 50):
        await log.publish([received(0, size)])
        await log.trim(max_age=FOR_EVER, max_bytes=300, now_ms=0)
        kept = await log.read(0, limit=1000, max_bytes=NO_BYTES_LIMIT)
        assert sum(len(message.body) for message in kept) <= 300
    # 100 + 1 + 50 thrice would be 453: the last six messages are 302, so five of them stay.
    assert len(kept) == 5


async def test_a_large_trim_leaves_room_for_appends_in_between(log: SqliteLog) -> None:
    await log.publish([received(0) for _ in range(10_000)])
    trimming = asyncio.create_task(log.trim(max_age=FOR_EVER, max_bytes=0, now_ms=0))
    await asyncio.sleep(0)  # it begins
    await log.publish([received(0)])
    assert await trimming == 9_999
    assert await left(log) == [9_999, 10_000]


async def test_a_reader_that_is_overtaken_by_trimming_says_so_and_reads_on(
    log: SqliteLog, caplog: pytest.LogCaptureFixture
) -> None:
    await log.publish([received(0) for _ in range(10)])
    reader = await log.reader(0)
    assert await numbers(reader, 3) == [0, 1, 2]
    await log.trim(max_age=FOR_EVER, max_bytes=20, now_ms=0)
    assert await numbers(reader, 2) == [8, 9]
    assert "data at risk: messages 3 to 7 " in caplog.text


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.topology.test_log import event
from topology.sqlite.file import Database
from topology.sqlite.log import SCHEMA, SqliteLog

async def main():
    log = SqliteLog(Database(Path(sys.argv[1]), schema=SCHEMA))
    await log.open()
    for number in range(1_000_000):
        await log.publish([event(number)])
        print(number, flush=True)

asyncio.run(main())
"""


async def test_what_a_killed_process_had_published_is_there(file: Path, log: SqliteLog) -> None:
    reader = await log.reader(0)
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(file), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    # Seen from here while the other one writes.
    came = await read(reader, 20)
    writer.send_signal(signal.SIGKILL)
    printed = (await writer.stdout.read()).split()
    await writer.wait()
    published = len(printed)
    assert published >= 20
    came += await read(reader, published - len(came))
    assert [message.body for message in came] == [event(number).body for number in range(len(came))]
    # The one that was being appended may have made it, and only that.
    assert await log.end_offset() - published in (0, 1)


async def test_a_closed_log_is_unavailable(file: Path) -> None:
    log = SqliteLog(Database(file, schema=SCHEMA))
    with pytest.raises(Unavailable):
        await log.publish([event(0)])
    with pytest.raises(Unavailable):
        await log.end_offset()
    reader = await log.reader(0)
    with pytest.raises(Unavailable):
        await reader.fetch(limit=1, max_bytes=UNBOUNDED, timeout=SOON)
