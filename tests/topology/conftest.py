"""Both ways to keep state, raw events and dead letters, and logs on a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.broker_logs import MAKE_LOG
from tests.servers.mongo import Mongo
from tests.servers.rabbitmq import Broker
from tests.topology.keeping import IMPATIENT, Kept
from topology.rabbitmq.log import PUBLISHING, READING, RabbitLog
from topology.rabbitmq.publisher import PublisherLimits
from topology.rabbitmq.reader import ReaderLimits


@pytest.fixture(params=["sqlite", pytest.param("mongo", marks=pytest.mark.servers)])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    mongo = request.getfixturevalue("mongo") if request.param == "mongo" else None
    kept = Kept(tmp_path, mongo)
    yield kept
    await kept.close()


@pytest.fixture
async def on_mongo(mongo: Mongo, tmp_path: Path) -> AsyncIterator[Kept]:
    """Only on MongoDB, for tests of its outages: an absent server is noticed soon."""
    kept = Kept(tmp_path, mongo, IMPATIENT)
    yield kept
    await kept.close()


@pytest.fixture
async def make_log(broker: Broker) -> AsyncIterator[MAKE_LOG]:
    """Opens logs, closed at the end of the test."""
    logs: list[RabbitLog] = []

    async def make(
        publishing: PublisherLimits = PUBLISHING,
        reading: ReaderLimits = READING,
        max_bytes: int = 20_000_000_000,
    ) -> RabbitLog:
        log = RabbitLog(
            broker.url,
            broker.exchange,
            broker.queue,
            max_bytes=max_bytes,
            publishing=publishing,
            reading=reading,
        )
        logs.append(log)
        await log.open()
        return log

    yield make
    for log in logs:
        await log.close()
