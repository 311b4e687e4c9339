from __future__ import annotations

from pathlib import Path

from cli import parts
from cli.settings import Settings, load
from topology.log import JSON, Outgoing
from topology.mongo.events import MongoDeadLetters, MongoRawEvents
from topology.mongo.state import MongoState
from topology.rabbitmq.log import RabbitLog
from topology.sqlite.events import SqliteDeadLetters, SqliteRawEvents
from topology.sqlite.log import SqliteLog
from topology.sqlite.rollups import SqliteRollups
from topology.sqlite.state import SqliteState


def settings(folder: Path, **values: str) -> Settings:
    return load({"EVENTSINK_DATA": str(folder), **values})


async def test_with_nothing_set_everything_works_in_one_file(tmp_path: Path) -> None:
    embedded = settings(tmp_path / "data")
    shared = parts.Shared(embedded)
    log = parts.open_log(embedded)
    state = parts.state_store(embedded, shared)
    sink = parts.rollup_sink(embedded, shared)
    events = parts.raw_events(embedded, shared)
    letters = parts.dead_letters(embedded, shared)
    assert isinstance(log, SqliteLog)
    assert isinstance(state, SqliteState)
    assert isinstance(sink, SqliteRollups)
    assert isinstance(events, SqliteRawEvents)
    assert isinstance(letters, SqliteDeadLetters)
    for part in (log, state, sink, events, letters):
        await part.open()
    await log.publish([Outgoing(b"{}", JSON, "id", 1)])
    assert (await state.begin("rollups")).generation == 1
    assert await letters.count() == 0
    assert await log.end_offset() == 1
    for part in (state, sink, events, letters, log):
        await part.close()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["eventsink.db"]


async def test_a_database_that_is_shared_is_one(tmp_path: Path) -> None:
    shared = parts.Shared(settings(tmp_path))
    assert shared.database() is shared.database()


def test_each_server_that_is_set_is_used(tmp_path: Path) -> None:
    chosen = settings(
        tmp_path / "data",
        EVENTSINK_BROKER_URL="amqp://user:pw@mq/",
        EVENTSINK_MONGO_URL="mongodb://mongo/",
    )
    assert isinstance(parts.open_log(chosen), RabbitLog)
    assert isinstance(parts.state_store(chosen), MongoState)
    assert isinstance(parts.raw_events(chosen), MongoRawEvents)
    assert isinstance(parts.dead_letters(chosen), MongoDeadLetters)
    assert not (tmp_path / "data").exists()


async def test_state_can_be_kept_apart(tmp_path: Path) -> None:
    apart = settings(
        tmp_path / "data",
        EVENTSINK_MONGO_URL="mongodb://mongo/",
        EVENTSINK_STATE_URL=f"sqlite://{tmp_path}/state/rows.db",
    )
    state = parts.state_store(apart)
    await state.open()
    await state.close()
    assert (tmp_path / "state" / "rows.db").exists()
    assert not (tmp_path / "data").exists()
