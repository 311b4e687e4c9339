"""What only a broker can do to a log: go away, lose it, refuse it, hold it up. On a real node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

import aio_pika
import pamqp.frame
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from tests.broker_logs import (
    MAKE_LOG,
    foreign,
    ids,
    until_held,
    until_published,
    until_replaced,
)
from tests.servers.rabbitmq import Broker
from tests.topology.test_log import SOON, UNBOUNDED, as_read, event, numbers, read, until_at_end
from topology.errors import SettingsError, Unavailable
from topology.log import LogReplaced, Message
from topology.rabbitmq import connection as rabbitmq
from topology.rabbitmq.log import RabbitLog
from topology.rabbitmq.probes import Probes
from topology.rabbitmq.publisher import PublisherLimits
from topology.rabbitmq.reader import ReaderLimits

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
async def log(make_log: MAKE_LOG) -> RabbitLog:
    return await make_log()


# -- the queue is lost --


async def test_a_queue_made_again_while_it_is_read_is_told_and_read_from_its_start(
    broker: Broker, log: RabbitLog
) -> None:
    await log.publish([event(number) for number in range(10)])
    await log.publisher.check()  # so that none of them is published again
    reader = await log.reader(0)
    before = await read(reader, 10)
    async with foreign(broker) as channel:
        await channel.queue_delete(broker.queue)
    assert await until_replaced(reader) == []
    assert await log.message_at(9) is None
    await log.publish([event(number) for number in range(100, 105)])
    new = await log.reader(0)
    after = await read(new, 5)
    assert [message.offset for message in after] == [0, 1, 2, 3, 4]
    assert {message.digest() for message in before}.isdisjoint(message.digest() for message in after)
    await new.close()
    await reader.close()


async def test_what_came_before_the_queue_was_lost_is_handed_out_first(
    broker: Broker, log: RabbitLog
) -> None:
    await log.publish([event(number) for number in range(10)])
    reader = await log.reader(0)
    first = await reader.fetch(limit=1, max_bytes=UNBOUNDED, timeout=SOON)
    await until_held(reader, 9 * len(event(1).body))
    async with foreign(broker) as channel:
        await channel.queue_delete(broker.queue)
    assert [message.offset for message in [*first, *await until_replaced(reader)]] == list(range(10))
    await reader.close()


# -- the broker goes away --


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_reader_and_publisher_come_back_after_the_broker_was_away(
    broker: Broker, make_log: MAKE_LOG, how: str
) -> None:
    log = await make_log(PublisherLimits(timeout=timedelta(seconds=2)))
    await log.publish([event(number) for number in range(100)])
    reader = await log.reader(0)
    before = await numbers(reader, 60)
    await asyncio.to_thread(broker.node.kill if how == "kill" else broker.node.stop)
    with pytest.raises(Unavailable):
        await log.publish([event(1000)])
    with pytest.raises(Unavailable):
        await log.end_offset()
    starting = asyncio.create_task(asyncio.to_thread(broker.node.start))
    before += [message.offset for message in await until_replaced(reader)]
    await reader.close()
    await until_published(log, event(100))
    # Everything that was confirmed is there, once, and reading goes on where it was.
    last = await log.message_at(before[-1])
    assert last == as_read(before[-1], event(before[-1]))
    new = await log.reader(before[-1] + 1)
    after: list[Message] = []
    while not after or after[-1].event_id != "id-100":
        after += await read(new, 1)
    assert before + [message.offset for message in after] == list(range(len(before) + len(after)))
    assert {f"id-{number}" for number in range(101)} <= set(await ids(log))
    await new.close()
    await starting


async def test_connections_closed_by_force_cost_nothing(broker: Broker, log: RabbitLog) -> None:
    reader = await log.reader(0)
    sent = 0
    closing = asyncio.create_task(
        asyncio.to_thread(broker.node.ctl, "close_all_connections", "--vhost", broker.vhost, "a test")
    )
    while not closing.done() or sent < 500:
        await log.publish([event(number) for number in range(sent, sent + 50)])
        sent += 50
        await asyncio.sleep(0.005)
    came = await until_replaced(reader)
    await reader.close()
    new = await log.reader(came[-1].offset + 1 if came else 0)
    while not came or came[-1].event_id != f"id-{sent - 1}":
        came += await read(new, 1)
    await new.close()
    assert [message.offset for message in came] == list(range(len(came)))
    assert {message.event_id for message in came} == {f"id-{number}" for number in range(sent)}


async def test_a_consumer_that_is_forgotten_behind_a_good_connection_is_noticed(
    broker: Broker, make_log: MAKE_LOG
) -> None:
    log = await make_log(reading=ReaderLimits(supervise_every=timedelta(seconds=0.5)))
    await log.publish([event(0)])
    reader = await log.reader(0)
    await numbers(reader, 1)
    # Every channel of this reader's connection stops: connected, heartbeats, nothing comes. A new one works.
    broker.node.ctl(
        "eval",
        "[sys:suspend(Channel) || Channel <- rabbit_channel:list(), "
        f'[{{vhost, <<"{broker.vhost}">>}}, {{consumer_count, 1}}, {{prefetch_count, 2000}}] '
        "=:= rabbit_channel:info(Channel, [vhost, consumer_count, prefetch_count])].",
    )
    await log.publish([event(1)])
    assert not await reader.at_end()
    async with asyncio.timeout(60):
        assert await until_replaced(reader) == []
    new = await log.reader(1)
    assert await read(new, 1) == [as_read(1, event(1))]
    await new.close()
    await reader.close()


# -- what a reader holds --


async def test_more_messages_than_prefetch_come_one_by_one(make_log: MAKE_LOG) -> None:
    log = await make_log(reading=ReaderLimits(prefetch=10))
    await log.publish([event(number) for number in range(100)])
    reader = await log.reader(0)
    for number in range(100):
        assert await read(reader, 1) == [as_read(number, event(number))]
    await until_at_end(reader)
    await reader.close()


async def test_large_messages_are_held_within_bounds_and_small_ones_fast_again(make_log: MAKE_LOG) -> None:
    sizes = [100] * 50 + [200_000] * 60 + [100] * 3000
    log = await make_log(reading=ReaderLimits(prefetch=500, buffer_bytes=1_000_000))
    await log.publish([event(number, size) for number, size in enumerate(sizes)])
    reader = await log.reader(0)
    prefetches = set()
    for start in range(0, len(sizes), 10):
        came = await read(reader, 10)
        assert came == [as_read(n, event(n, sizes[n])) for n in range(start, start + 10)]
        assert reader.held_bytes <= 1_000_000
        prefetches.add(reader.prefetch)
        await asyncio.sleep(0.001)
    assert min(prefetches) < 100  # how few exactly hangs on what came when
    assert reader.prefetch > 100
    await reader.close()


async def test_a_log_that_is_replaced_while_another_consumer_takes_over_is_not_read_on(
    broker: Broker, make_log: MAKE_LOG
) -> None:
    log = await make_log(reading=ReaderLimits(prefetch=100, buffer_bytes=100_000))
    await log.publish([event(number, size=10_000) for number in range(50)])
    reader = await log.reader(0)
    came = await read(reader, 1)
    await until_held(reader, 70_000)  # there is room for nine; all were allowed to be sent
    async with foreign(broker) as channel:
        await channel.queue_delete(broker.queue)
    await log.publish([event(number, size=10_000) for number in range(100, 150)])
    came += await until_replaced(reader)
    assert [m.event_id for m in came] == [f"id-{number}" for number in range(len(came))]
    await reader.close()


async def test_a_log_that_was_cut_begins_at_its_first_message_left(make_log: MAKE_LOG) -> None:
    log = await make_log(max_bytes=200_000)
    await fill_until(log, lambda first: first > 0)
    first = await log.first_offset()
    assert first is not None
    assert await log.message_at(0) is None
    found = await log.message_at(first)
    assert found is not None
    reader = await log.reader(0)
    assert await read(reader, 1) == [found]
    await reader.close()


async def test_a_stream_has_gaps_of_its_own_and_none_of_ours(
    make_log: MAKE_LOG, caplog: pytest.LogCaptureFixture
) -> None:
    log = await make_log(max_bytes=2_000_000)
    for number in range(100):
        await log.publish([event(number, size=10_000)])
    reader = await log.reader(0)
    came = await read(reader, 100)
    assert [message.event_id for message in came] == [f"id-{number}" for number in range(100)]
    # A segment holds 100 kB here: so about ten of them, each begun with a note of the broker's.
    assert 102 <= came[-1].offset <= 120
    await until_at_end(reader)
    assert await log.end_offset() == came[-1].offset + 1
    assert "data at risk" not in caplog.text
    await reader.close()


async def test_a_reader_that_is_overtaken_by_retention_says_so_and_reads_on(
    make_log: MAKE_LOG, caplog: pytest.LogCaptureFixture
) -> None:
    log = await make_log(max_bytes=200_000, reading=ReaderLimits(prefetch=5))
    await log.publish([event(number, size=1000) for number in range(20)])
    reader = await log.reader(0)
    came = await read(reader, 1)
    await fill_until(log, lambda first: first > 500)
    end = await log.end_offset()
    while came[-1].offset < end - 1:
        came += await read(reader, 1)
    offsets = [message.offset for message in came]
    assert offsets == sorted(set(offsets))
    assert [r.levelname for r in caplog.records if "data at risk" in r.message] == ["ERROR"]
    await reader.close()


async def test_a_message_that_retention_cut_off_is_not_taken_for_one_that_never_came(
    broker: Broker, make_log: MAKE_LOG
) -> None:
    log = await make_log(max_bytes=200_000)
    await log.publish([event(100_000)])
    await fill_until(log, lambda first: first > 0)
    end = await log.end_offset()
    address = rabbitmq.Broker(broker.url)
    probes = Probes(address, broker.queue)
    connection = await address.connect("a test")
    # 0      left           end
    # x cut    |--------------|
    assert await probes.holds(connection, "id-100000", after=0, end=end)
    assert not await probes.holds(connection, "id-100000", after=end - 1, end=end)
    with pytest.raises(Unavailable, match="does not deliver"):  # what the log holds it would have delivered
        await probes.holds(connection, "id-100000", after=end - 1, end=end + 1)
    await rabbitmq.end(connection)


async def fill_until(log: RabbitLog, holds: Callable[[int], bool]) -> None:
    """Append until retention has cut off enough at the front."""
    for number in range(0, 20_000, 100):
        await log.publish([event(n, size=1000) for n in range(number, number + 100)])
        if holds(await log.first_offset() or 0):
            return
    pytest.fail("the log was never cut")


# -- settings --


async def test_an_exchange_declared_otherwise_is_an_error_that_names_both(broker: Broker) -> None:
    async with foreign(broker) as channel:
        await channel.declare_exchange(broker.exchange, "fanout", durable=False)
    log = RabbitLog(broker.url, broker.exchange, broker.queue)
    with pytest.raises(SettingsError) as refused:
        await log.open()
    assert "Ours: exchange 'clowder.metrics' (type 'fanout', durable 'true'" in str(refused.value)
    assert "received 'true' but current is 'false'" in str(refused.value)
    await log.close()


async def test_an_exchange_declared_otherwise_later_ends_a_reader(broker: Broker, log: RabbitLog) -> None:
    reader = await log.reader(0)
    async with foreign(broker) as channel:
        await channel.exchange_delete(broker.exchange)
        await channel.declare_exchange(broker.exchange, "topic", durable=True)
        await channel.queue_delete(broker.queue)
    with pytest.raises(SettingsError, match="Ours: exchange"):
        await until_replaced(reader)
    with pytest.raises(Unavailable, match="Ours: exchange"):  # so that it is spooled
        await log.publish([event(0)])
    await reader.close()


async def test_a_log_with_another_retention_is_used_and_told_once(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async with foreign(broker) as channel:
        await channel.declare_queue(
            broker.queue, durable=True, arguments={"x-queue-type": "stream", "x-max-age": "1h"}
        )
    log = RabbitLog(broker.url, broker.exchange, broker.queue)
    for _ in range(3):
        await log.open()
    await log.publish([event(0)])
    assert await ids(log) == ["id-0"]
    await log.close()
    assert len([r for r in caplog.records if "declared otherwise and is used" in r.message]) == 1


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "quorum"}])
async def test_a_queue_that_forgets_what_was_read_is_refused_and_left_as_it_is(
    broker: Broker, arguments: dict[str, str]
) -> None:
    async with foreign(broker) as channel:
        queue = await channel.declare_queue(broker.queue, durable=True, arguments=dict(arguments))
        await channel.default_exchange.publish(aio_pika.Message(b"theirs"), broker.queue)
        log = RabbitLog(broker.url, broker.exchange, broker.queue)
        with pytest.raises(SettingsError, match="not a stream"):
            await log.open()
        await log.close()
        left = await queue.get(timeout=10)
        assert left is not None
        assert left.body == b"theirs"


async def test_wrong_credentials_and_hosts_are_told_apart_without_secrets(
    broker: Broker, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = [
        (broker.node.url(broker.vhost, password="hidden-word"), SettingsError, "user or password"),
        (broker.node.url("nowhere"), SettingsError, "virtual host 'nowhere'"),
        (f"amqp://guest:hidden-word@127.0.0.1:{free_port()}/", Unavailable, "Connect call failed"),
        ("amqp://guest:hidden-word@host.invalid/", Unavailable, "host.invalid"),
        (f"amqps://guest:hidden-word@127.0.0.1:{broker.node.port}/", Unavailable, "SSL"),
    ]
    for url, kind, words in wrong:
        log = RabbitLog(url, broker.exchange, broker.queue)
        with pytest.raises(kind, match=words) as refused:
            await log.open()
        assert type(refused.value) is kind or kind is SettingsError
        assert "hidden-word" not in str(refused.value)
        await log.close()
    assert "hidden-word" not in caplog.text


# -- other people's messages --


async def test_a_message_without_any_property_is_read(broker: Broker, log: RabbitLog) -> None:
    async with foreign(broker) as channel:
        plain = await channel.get_underlay_channel()
        await plain.basic_publish(b'{"a":1}', exchange=broker.exchange)
        await plain.basic_publish(b"", exchange=broker.exchange)
    reader = await log.reader(0)
    assert await read(reader, 2) == [Message(0, b'{"a":1}'), Message(1, b"")]
    await reader.close()


async def publish_raw(channel: AbstractChannel, exchange: str, content_type: bytes) -> None:
    """A message with a content type (of four bytes) that no client library would send."""
    plain = await channel.get_underlay_channel()
    header = ContentHeader(0, 4, Basic.Properties(content_type="QQQQ"))
    frames = (Basic.Publish(exchange=exchange, routing_key=""), header, ContentBody(b"body"))
    payload = b"".join(pamqp.frame.marshal(frame, plain.number) for frame in frames)
    await plain.connection.write_queue.put(
        ChannelFrame(payload.replace(b"QQQQ", content_type), should_close=False, drain_future=None)
    )


async def test_a_message_that_cannot_be_decoded_stops_nothing(broker: Broker, log: RabbitLog) -> None:
    async with foreign(broker) as channel:
        for content_type in (b"good", b"\xff\xfe\xff\xfe", b"good"):
            await publish_raw(channel, broker.exchange, content_type)
        exchange = await channel.get_exchange(broker.exchange, ensure=False)
        await exchange.publish(aio_pika.Message(b"last"), "")
    reader = await log.reader(0)
    came: list[Message] = []
    while len(came) < 4:
        try:
            came += await read(reader, 1)
        except LogReplaced:
            await reader.close()
            reader = await log.reader(came[-1].offset + 1 if came else 0)
    assert [(m.offset, m.body, m.content_type) for m in came] == [
        (0, b"body", "good"),
        (1, b"body", None),
        (2, b"body", "good"),
        (3, b"last", None),
    ]
    assert await log.message_at(1) == Message(1, b"body")
    await reader.close()
