"""`faust.App(broker=…)` runs on either log, with no Kafka anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aio_pika
import faust
import pytest
from faust.exceptions import ImproperlyConfigured
from faust.transport.conductor import Conductor
from faust.types import TP
from yarl import URL

from topology.errors import SettingsError, Unavailable
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
        async with asyncio.timeout(60):
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
        async with asyncio.timeout(60):
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


async def published(topic: Any, *values: Any) -> None:
    for value in values:
        await topic.send(value=value)


class Collected:
    """What an agent got; ``until`` waits for so many."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._came = asyncio.Event()

    async def agent(self, stream: Any) -> None:
        async for event in stream.events():
            self.events.append(event)
            self._came.set()

    async def until(self, count: int, limit_s: float = 60) -> list[Any]:
        async with asyncio.timeout(limit_s):
            while len(self.events) < count:
                self._came.clear()
                await self._came.wait()
        return [event.value for event in self.events]


async def begun(app: faust.App) -> None:
    """Wait until the topic's reading knows where it begins."""
    consumer: Any = app.consumer
    while not (feeds := list(consumer._feeds.values())) or feeds[0]._source.__self__._next is None:
        await asyncio.sleep(0.01)


def collecting(url: URL) -> tuple[faust.App, Any, Collected]:
    app = application(url)
    topic = app.topic("numbers", value_type=cast(Any, int), value_serializer="json")
    collected = Collected()
    app.agent(topic, name="collect")(collected.agent)
    return app, topic, collected


@pytest.mark.parametrize("url", LOGS)
async def test_a_message_of_the_log_is_a_message_of_faust(
    url: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    app, topic, collected = collecting(url(tmp_path, request))
    await app.start()
    try:
        await topic.send(value=7, timestamp=1_700_000_000.5, headers={"x-eventsink-id": "seven"})
        assert await collected.until(1) == [7]
    finally:
        await app.stop()
    message = collected.events[0].message
    assert message.offset == 0
    assert message.timestamp == 1_700_000_000.5
    assert message.headers == {
        "content-type": b"application/json",
        "x-eventsink-id": b"seven",
        "x-eventsink-received": b"1700000000500",
    }


@pytest.mark.parametrize("url", LOGS)
@pytest.mark.parametrize(
    ("start", "expected"),
    [("first", [1, 2, 3, 9]), ("2", [3, 9]), ("next", [9]), ("2020-01-01T00:00:00Z", [1, 2, 3, 9])],
)
async def test_a_topic_begins_where_the_url_says(
    url: Any, start: str, expected: list[int], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = url(tmp_path, request)
    before, topic, collected = collecting(place)
    await before.start()
    await published(topic, 1, 2, 3)
    await collected.until(3)
    await before.stop()
    app, topic, collected = collecting(place.update_query(start=start))
    await app.start()
    try:
        await collected.until(len(expected) - 1)
        if start == "next":
            await begun(app)
        await published(topic, 9)
        assert await collected.until(len(expected)) == expected
    finally:
        await app.stop()


@pytest.mark.parametrize("url", LOGS)
async def test_seek_reads_again_and_begin_goes_on(
    url: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = url(tmp_path, request)
    app, topic, collected = collecting(place)
    await app.start()
    try:
        await published(topic, 1, 2, 3)
        await collected.until(3)
        await app.consumer.seek(TP("numbers", 0), 1)
        assert await collected.until(5) == [1, 2, 3, 2, 3]
    finally:
        await app.stop()
    again, topic, collected = collecting(place)
    cast(AmqpTransport, again.transport).begin("numbers", 2)
    await again.start()
    try:
        assert await collected.until(1) == [3]
    finally:
        await again.stop()


@pytest.mark.parametrize("schema", [None, Batches()], ids=["messages", "batches"])
@pytest.mark.parametrize("url", LOGS)
async def test_a_topic_that_is_added_while_the_app_runs_costs_the_others_nothing(
    url: Any,
    schema: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Conductor, "_resubscribe_sleep_lock_seconds", 0)  # 45
    app = application(url(tmp_path, request))
    topic = app.topic("numbers", schema=schema, value_serializer="json")
    read: list[int] = []
    busy, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @app.agent(topic)
    async def agent(stream: Any) -> None:
        async for value in stream:
            offsets = [value] if schema is None else [message.offset for message in value]
            busy.set()
            await go_on.wait()
            read.extend(offsets)
            if read[-1] == 99:
                done.set()

    added: list[int] = []
    both = asyncio.Event()

    async def add() -> None:
        async for number in app.topic("added", value_serializer="json").stream():
            added.append(number)
            if number == 99:
                both.set()

    await app.start()
    adding = None
    try:
        async with asyncio.timeout(60):
            for number in range(100):
                await topic.send(value=number if schema is None else b"%d" % number)
            await busy.wait()
            adding = asyncio.create_task(add())
            await both.wait()  # the streams were emptied: it got what was read after that
            go_on.set()
            await done.wait()
    finally:
        if adding is not None:
            adding.cancel()
            await asyncio.gather(adding, return_exceptions=True)
        await app.stop()
    # What the agent had in hand may come again.
    assert sorted(set(read)) == added == list(range(100))
    assert len(read) <= (101 if schema is None else 200)


@pytest.mark.servers
async def test_a_broker_that_is_killed_ends_nothing(rabbitmq: Any, broker: Any) -> None:
    app, topic, collected = collecting(
        URL(broker.url).with_query(exchange=broker.exchange, queue=broker.queue)
    )
    await app.start()
    try:
        await published(topic, 1, 2)
        await collected.until(2)
        await asyncio.to_thread(rabbitmq.kill)
        await asyncio.to_thread(rabbitmq.start)
        while True:
            try:
                await published(topic, 3)
            except Unavailable:
                continue  # what the guide tells users to do: send it again
            break
        values = await collected.until(3, limit_s=60)
        assert list(dict.fromkeys(values)) == [1, 2, 3]
        assert not app.should_stop
    finally:
        await app.stop()


@pytest.mark.servers
async def test_a_log_that_was_made_again_is_told_and_read_from_its_start(
    rabbitmq: Any, broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app, topic, collected = collecting(
        URL(broker.url).with_query(exchange=broker.exchange, queue=broker.queue)
    )
    await app.start()
    try:
        await published(topic, 1, 2)
        await collected.until(2)
        # What was confirmed a moment ago would be published again, and the new log would be as good as the old one.
        publisher = cast(Any, app.transport).log.publisher
        async with asyncio.timeout(60):
            while publisher.kept_bytes:
                await asyncio.sleep(0.02)
        connection = await aio_pika.connect(broker.url)
        async with connection:
            channel = await connection.channel()
            await channel.queue_delete(broker.queue)
        values = [1, 2]
        async with asyncio.timeout(60):
            number = 3
            while "the log is a new one" not in caplog.text or len(collected.events) < 4:
                try:
                    await published(topic, number)
                except Unavailable:
                    continue
                values.append(number)
                number += 1
                await asyncio.sleep(0.05)
            while collected.events[-1].value != number - 1:
                await asyncio.sleep(0.02)
        assert set(values) <= {event.value for event in collected.events}
    finally:
        await app.stop()


async def test_what_only_kafka_has_is_refused_in_words(tmp_path: Path) -> None:
    app, topic, _ = collecting(URL(f"sqlite://{tmp_path / 'log.db'}"))
    await app.start()
    try:
        with pytest.raises(ValueError, match="has no key"):
            await topic.send(key="k", value=1)
        with pytest.raises(ValueError, match="carries no headers other"):
            await topic.send(value=1, headers={"other": "x"})
    finally:
        await app.stop()
    tables = application(URL(f"sqlite://{tmp_path / 'log.db'}"))
    tables.Table("counts", default=int)
    with pytest.raises(ImproperlyConfigured, match=r"tables \(counts\)"):
        await cast(Any, tables.consumer).on_start()


async def test_a_wrong_start_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    app, _, _ = collecting(URL(f"sqlite://{tmp_path / 'log.db'}").with_query(start="yesterday"))
    with pytest.raises(SettingsError, match="write first, last, next, an offset, or a time"):
        await cast(AmqpTransport, app.transport).open()
