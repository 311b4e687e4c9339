"""`faust.App(broker=…)` runs on either log, with no Kafka anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faust
import pytest
from yarl import URL

from topology.log import Message
from topology.transports import AmqpTransport, Batches, SqliteTransport


def sqlite_url(tmp_path: Path, request: pytest.FixtureRequest) -> URL:
    return URL(f"sqlite://{tmp_path / 'log.db'}")


def amqp_url(tmp_path: Path, request: pytest.FixtureRequest) -> URL:
    broker = request.getfixturevalue("broker")
    return URL(broker.url).with_query(exchange=broker.exchange, queue=broker.queue)


LOGS = [
    pytest.param(sqlite_url, id="sqlite"),
    pytest.param(amqp_url, id="amqp", marks=pytest.mark.servers),
]


def application(url: URL) -> faust.App:
    return faust.App(
        "test",
        broker=[url],
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        web_enabled=False,
    )


def test_the_package_registers_its_transports_with_faust() -> None:
    assert isinstance(application(URL("amqp://localhost")).transport, AmqpTransport)
    assert isinstance(application(URL("amqps://localhost")).transport, AmqpTransport)
    assert isinstance(application(URL("sqlite:///x.db")).transport, SqliteTransport)


@pytest.mark.parametrize("url", LOGS)
async def test_an_agent_gets_what_is_sent_in_order_and_in_batches(
    url: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    app = application(url(tmp_path, request))
    topic = app.topic("readers", schema=Batches(), acks=False)
    received: list[bytes] = []
    complete = asyncio.Event()

    @app.agent(topic)
    async def reader(batches: faust.StreamT[Any]) -> None:
        async for batch in batches:
            assert [message.offset for message in batch] == list(
                range(len(received), len(received) + len(batch))
            )
            received.extend(message.body for message in batch)
            if len(received) == 100:
                complete.set()

    await app.start()
    try:
        for number in range(100):
            await app.producer.send_and_wait("readers", None, b"%d" % number, None, None, None)
        async with asyncio.timeout(30):
            await complete.wait()
    finally:
        await app.stop()
    assert received == [b"%d" % number for number in range(100)]


@pytest.mark.parametrize("url", LOGS)
async def test_two_topics_are_two_readings_and_a_blocked_one_does_not_stop_the_other(
    url: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    app = application(url(tmp_path, request))
    unblocked = asyncio.Event()
    received: dict[str, int] = {"quick": 0, "blocked": 0}
    reached = asyncio.Event()

    def reading(name: str) -> Any:
        async def read(batches: AsyncIterator[tuple[Message, ...]]) -> None:
            async for batch in batches:
                if name == "blocked":
                    await unblocked.wait()
                received[name] += len(batch)
                reached.set()

        read.__name__ = name
        return read

    for name in received:
        app.agent(app.topic(name, schema=Batches(), acks=False), name=name)(reading(name))

    async def until(name: str, count: int) -> None:
        async with asyncio.timeout(30):
            while received[name] < count:
                await reached.wait()
                reached.clear()

    await app.start()
    try:
        for number in range(50):
            await app.producer.send_and_wait("quick", None, b"%d" % number, None, None, None)
            await until("quick", number + 1)
        assert received["blocked"] == 0
        unblocked.set()
        await until("blocked", 50)
    finally:
        await app.stop()


def test_a_password_in_the_broker_url_is_in_no_text_of_the_application() -> None:
    app = application(URL("amqp://user:hunter22@localhost/vhost"))
    assert "hunter22" not in f"{app!r} {app} {app.transport!r}"
