"""Following a log from a start on: what cannot be read as asked is said, never left out in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from topology.following import Following
from topology.log import JSON, LogStart, Outgoing
from topology.sqlite.file import Database
from topology.sqlite.log import SCHEMA, SqliteLog


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(Database(tmp_path / "log.db", schema=SCHEMA))
    await log.open()
    yield log
    await log.close()


async def publish(log: SqliteLog, count: int) -> None:
    await log.publish([Outgoing(b"%d" % number, JSON, None, 0) for number in range(count)])


async def cut(log: SqliteLog, keep: int) -> None:
    """Retention leaves the last ``keep`` messages of one byte."""
    await log.trim(max_age=timedelta(days=365_000), max_bytes=keep, now_ms=0)


async def followed(log: SqliteLog, start: LogStart | int, until: int) -> list[int]:
    """Offsets from ``start`` up to and with ``until``."""
    offsets: list[int] = []
    batches = Following(log, start).batches()
    async with asyncio.timeout(60):
        while not offsets or offsets[-1] < until:
            offsets += [message.offset for message in await anext(batches)]
    await batches.aclose()
    return offsets


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_number_is_where_reading_begins(log: SqliteLog, caplog: pytest.LogCaptureFixture) -> None:
    await publish(log, 10)
    assert await followed(log, 7, 9) == [7, 8, 9]
    assert await followed(log, 0, 9) == list(range(10))
    assert errors(caplog) == []


async def test_a_number_at_the_end_waits_for_that_message(
    log: SqliteLog, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(log, 5)
    following = asyncio.create_task(followed(log, 5, 5))
    await asyncio.sleep(0.02)
    await publish(log, 1)
    assert await following == [5]
    assert errors(caplog) == []


async def test_a_number_beyond_the_end_is_of_another_log_and_leaves_nothing_out(
    log: SqliteLog, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(log, 5)
    assert await followed(log, 1000, 4) == [0, 1, 2, 3, 4]
    (said,) = errors(caplog)
    assert "the log is a new one (it ends before message 1000, at 5)" in said


@pytest.mark.parametrize("start", [1, 3])
async def test_a_number_that_was_cut_off_is_told_with_what_is_missing(
    log: SqliteLog, start: int, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(log, 10)
    await cut(log, keep=4)
    assert await followed(log, start, 9) == [6, 7, 8, 9]
    (said,) = errors(caplog)
    assert f"data at risk: messages {start} to 5 of the log were cut off" in said


async def test_the_first_message_of_a_cut_log_is_no_loss(
    log: SqliteLog, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(log, 10)
    await cut(log, keep=4)
    assert await followed(log, "first", 9) == [6, 7, 8, 9]
    assert errors(caplog) == []
