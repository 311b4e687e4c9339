"""What only a broker can do to a log: go away, lose it, refuse it, hold it up. On a real node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import aio_pika
import pamqp.frame
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from tests.servers.rabbitmq import Broker
from tests.tcp_proxy import LOOPBACK, proxy_before
from tests.topology.test_log import SOON, UNBOUNDED, as_read, event, numbers, read, until_at_end
from topology.errors import SettingsError, Unavailable
from topology.log import LogReader, LogReplaced, Message, Outgoing
from topology.rabbitmq_log import PUBLISHING, READING, RabbitLog
from topology.rabbitmq_publisher import PublisherLimits
from topology.rabbitmq_reader import RabbitReader, ReaderLimits

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

#: No look at the log but those that a test asks for by an event.
NEVER = timedelta(hours=1)
MAKE_LOG = Callable[..., Awaitable[RabbitLog]]


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


@pytest.fixture
async def log(make_log: MAKE_LOG) -> RabbitLog:
    return await make_log()


@asynccontextmanager
async def foreign(broker: Broker) -> AsyncIterator[AbstractChannel]:
    """A channel of somebody else."""
    connection = await aio_pika.connect(broker.url)
    try:
        channel = connection.channel(publisher_confirms=False)
        await channel.initialize()
        yield channel
    finally:
        await connection.close()


async def ids(log: RabbitLog) -> list[str | None]:
    """The ids of all messages in the log."""
    reader = await log.reader(0)
    try:
        return [message.event_id for message in await read(reader, await log.end_offset())]
    finally:
        await reader.close()


async def until_replaced(reader: LogReader) -> list[Message]:
    """What still comes before ``LogReplaced``, through any outage."""
    messages: list[Message] = []
    async with asyncio.timeout(60):
        while True:
            try:
                messages += await reader.fetch(
                    limit=1000, max_bytes=UNBOUNDED, timeout=timedelta(seconds=0.2)
                )
            except Unavailable:
                pass
            except LogReplaced:
                return messages


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0.02)


async def until_held(reader: RabbitReader, size: int) -> None:
    async with asyncio.timeout(30):
        while reader.held_bytes < size:
            await asyncio.sleep(0.01)


async def until_published(log: RabbitLog, *messages: Outgoing) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await log.publish(messages)
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


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


async def test_what_was_confirmed_since_the_last_good_look_is_published_again_when_the_queue_was_lost(
    broker: Broker, make_log: MAKE_LOG, caplog: pytest.LogCaptureFixture
) -> None:
    log = await make_log(PublisherLimits(check_every=NEVER))
    await log.publish([event(0)])
    await log.publisher.check()  # good: what was confirmed so far needs no second publish
    await log.publish([event(number) for number in range(1, 6)])
    async with foreign(broker) as channel:
        await channel.queue_delete(broker.queue)  # the sentinel tells

    async def published_again() -> bool:
        return await log.end_offset() == 5

    await until(published_again)
    await log.publish([event(number) for number in range(6, 9)])
    assert await ids(log) == [f"id-{number}" for number in range(1, 9)]
    assert [r.levelname for r in caplog.records if "data at risk" in r.message] == ["ERROR"]


async def test_a_queue_deleted_during_publishing_loses_nothing_that_came_after(
    broker: Broker, log: RabbitLog
) -> None:
    async with foreign(broker) as channel:
        for number in range(0, 2000, 20):
            await until_published(log, *(event(n) for n in range(number, number + 20)))
            if number == 1000:
                await channel.queue_delete(broker.queue)
    await log.publisher.check()
    # Twice is harmless, by their ids; never is not.
    assert {f"id-{number}" for number in range(1000, 2000)} <= set(await ids(log))


async def test_a_log_that_is_closed_at_any_moment_leaves_no_call_cut_off(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(12):
        log = RabbitLog(broker.url, broker.exchange, broker.queue)
        await log.open()
        await log.publish([event(number)])
        for _ in range(number):
            await asyncio.sleep(0.001)
        await log.close()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("aiormq")] == []


async def test_closing_looks_at_the_log_a_last_time(broker: Broker, make_log: MAKE_LOG) -> None:
    log = await make_log(PublisherLimits(check_every=NEVER))
    await log.publish([event(0)])
    await log.publisher.check()
    await log.publish([event(1), event(2)])
    async with foreign(broker) as channel:
        await channel.queue_delete(broker.queue)
        await log.close()
    after = await make_log()
    assert await ids(after) == ["id-1", "id-2"]


async def test_an_unroutable_message_is_never_taken_for_published(broker: Broker, make_log: MAKE_LOG) -> None:
    log = await make_log(PublisherLimits(check_every=NEVER))
    await log.publish([event(0)])
    async with foreign(broker) as channel:
        queue = await channel.get_queue(broker.queue, ensure=False)
        await queue.unbind(broker.exchange)
        await log.publish([event(1)])
        assert "id-1" in await ids(log)
        await channel.exchange_delete(broker.exchange)
        await log.publish([event(2)])
        assert "id-2" in await ids(log)


async def test_where_the_log_cannot_be_made_again_nothing_is_confirmed(
    broker: Broker, log: RabbitLog
) -> None:
    broker.node.ctl("add_user", "writer", "secret")
    broker.node.ctl("set_permissions", "--vhost", broker.vhost, "writer", "^$", ".*", ".*")
    async with foreign(broker) as channel:
        await channel.queue_delete(broker.queue)
    url = broker.node.url(broker.vhost, user="writer", password="secret")
    barred = RabbitLog(url, broker.exchange, broker.queue)
    with pytest.raises(SettingsError, match="may not declare"):
        await barred.open()
    with pytest.raises(Unavailable, match="may not declare"):
        await barred.publish([event(0)])
    await barred.close()


async def test_a_lost_binding_beside_a_queue_of_somebody_else_is_noticed_by_the_log_not_growing(
    broker: Broker, make_log: MAKE_LOG
) -> None:
    log = await make_log(PublisherLimits(check_every=NEVER))
    await log.publish([event(number) for number in range(3)])
    await log.publisher.check()
    async with foreign(broker) as channel:
        theirs = await channel.declare_queue("theirs", exclusive=True)
        await theirs.bind(broker.exchange)
        ours = await channel.get_queue(broker.queue, ensure=False)
        await ours.unbind(broker.exchange)
        await log.publish([event(number) for number in range(3, 6)])  # routed, to the other one
        assert await log.end_offset() == 3
        await log.publisher.check()
        assert await ids(log) == [f"id-{number}" for number in range(6)]
        await log.publisher.check()
        assert await log.end_offset() == 6  # once is enough


async def test_a_lost_binding_is_noticed_although_others_append_to_the_log(
    broker: Broker, make_log: MAKE_LOG, caplog: pytest.LogCaptureFixture
) -> None:
    log = await make_log(PublisherLimits(check_every=NEVER))
    await log.publish([event(0)])
    await log.publisher.check()
    async with foreign(broker) as channel:
        theirs = await channel.declare_queue("theirs", exclusive=True)
        await theirs.bind(broker.exchange)
        exchange = await channel.get_exchange(broker.exchange, ensure=False)
        ours = await channel.get_queue(broker.queue, ensure=False)
        for number in range(50):
            await exchange.publish(aio_pika.Message(b'{"foreign": %d}' % number), "")
        await log.publish([event(number) for number in range(1, 4)])  # behind those, and in the log
        await log.publisher.check()
        assert "data at risk" not in caplog.text
        for number in range(50):
            await exchange.publish(aio_pika.Message(b'{"foreign": %d}' % number), "")

        async def grown() -> bool:
            return await log.end_offset() == 104

        await until(grown)
        await ours.unbind(broker.exchange)
        await log.publish([event(number) for number in range(4, 7)])  # to the other queue alone
        await log.publisher.check()
    assert {f"id-{number}" for number in range(7)} <= set(await ids(log))
    assert [r.levelname for r in caplog.records if "data at risk" in r.message] == ["ERROR"]


async def test_what_is_kept_for_publishing_again_is_bounded(broker: Broker, make_log: MAKE_LOG) -> None:
    log = await make_log(PublisherLimits(check_every=NEVER, kept_bytes=10_000, outstanding=10))
    for number in range(0, 100, 10):
        await log.publish([event(n, size=1000) for n in range(number, number + 10)])
        assert log.publisher.kept_bytes <= 20_000


async def test_publishing_again_that_fails_again_and_again_keeps_each_message_once(
    broker: Broker, make_log: MAKE_LOG
) -> None:
    # One at a time: there is time for a fault while they are published again.
    limits = PublisherLimits(check_every=NEVER, outstanding=1, timeout=timedelta(seconds=0.5))
    other = await make_log()
    async with proxy_before(broker.node.port) as proxy, foreign(broker) as channel:
        url = f"amqp://guest:guest@{LOOPBACK}:{proxy.port}/{broker.vhost}"
        log = RabbitLog(url, broker.exchange, broker.queue, publishing=limits)
        await log.open()
        await log.publish([event(number) for number in range(500)])
        kept = log.publisher.kept_bytes
        for _ in range(2):
            await channel.queue_delete(broker.queue)
            mending = asyncio.create_task(log.publisher.check())

            async def some_are_published_again() -> bool:
                return await other.end_offset() > 0

            await until(some_are_published_again)
            proxy.lose_answers()
            # The sentinel may have been faster, and this look be the second one.
            await asyncio.gather(mending, return_exceptions=True)
            assert log.publisher.kept_bytes <= kept
        await log.close()  # with a last look, which mends
    assert set(await ids(other)) == {f"id-{number}" for number in range(500)}


async def test_what_the_broker_refused_to_declare_is_not_asked_for_in_a_loop(
    broker: Broker, log: RabbitLog
) -> None:
    async with foreign(broker) as channel:
        await channel.exchange_delete(broker.exchange)
        await channel.declare_exchange(broker.exchange, "topic", durable=True)
        before = broker.node.words.count("inequivalent arg 'type'")
        for number in range(200):
            with pytest.raises(Unavailable, match="somebody declared the exchange otherwise"):
                await log.publish([event(number)])
        await asyncio.to_thread(broker.node.ctl, "eval", 'rabbit_log:info("all of them were refused").')

        async def written() -> bool:  # the broker writes its log with a delay
            return "all of them were refused" in broker.node.words

        await until(written)
        assert 1 <= broker.node.words.count("inequivalent arg 'type'") - before <= 10
        await channel.exchange_delete(broker.exchange)
    await until_published(log, event(1))


async def test_a_look_that_is_cut_off_at_any_moment_does_not_hold_up_its_connection(
    broker: Broker, log: RabbitLog
) -> None:
    await log.publish([event(number) for number in range(1000)])
    await log.publisher.close()  # else it looks, too
    for turns in [*range(1, 120)] * 4:
        look = asyncio.create_task(log.end_offset())
        for _ in range(turns):
            await asyncio.sleep(0)
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)
        try:
            async with asyncio.timeout(7):
                assert await log.end_offset() == 1000
        except Unavailable:
            pass  # aiormq lost track of a channel number: said at once, and the next use connects anew


async def test_a_closed_log_takes_nothing_until_it_is_opened_again(broker: Broker, log: RabbitLog) -> None:
    await log.publish([event(0)])
    publishing = [asyncio.create_task(_publish_for_ever(log, number)) for number in range(3)]
    await asyncio.sleep(0.05)
    await log.close()
    for task in publishing:
        async with asyncio.timeout(30):
            assert "closed" in await task
    with pytest.raises(Unavailable, match="was closed"):
        await log.publish([event(1)])
    await log.open()
    await log.publish([event(1)])
    assert (await ids(log))[-1] == "id-1"


async def _publish_for_ever(log: RabbitLog, number: int) -> str:
    while True:
        try:
            await log.publish([event(number, size=1000) for _ in range(200)])
        except Unavailable as error:
            return str(error)


async def test_a_user_who_may_not_read_is_told_and_what_is_kept_stays_bounded(broker: Broker) -> None:
    broker.node.ctl("add_user", "deaf", "secret")
    broker.node.ctl("set_permissions", "--vhost", broker.vhost, "deaf", ".*", ".*", r"clowder\..*")
    url = broker.node.url(broker.vhost, user="deaf", password="secret")
    log = RabbitLog(url, broker.exchange, broker.queue, publishing=PublisherLimits(kept_bytes=100_000))
    await log.open()
    told = ""
    for _ in range(30):
        try:
            await log.publish([event(number, size=1000) for number in range(50)])
        except Unavailable as error:
            told = str(error)
    assert "the user may not read the queue" in told
    assert log.publisher.kept_bytes <= 200_000
    await log.close()


async def test_what_cannot_be_written_as_amqp_is_refused_and_counts_for_nothing(log: RabbitLog) -> None:
    unfit = event(1)._replace(received_ms=-1)
    with pytest.raises(ValueError, match="arrival"):
        await log.publish([event(0), unfit])
    await log.publish([event(2)])
    assert await ids(log) == ["id-2"]


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
    async with asyncio.timeout(30):
        assert await until_replaced(reader) == []
    new = await log.reader(1)
    assert await read(new, 1) == [as_read(1, event(1))]
    await new.close()
    await reader.close()


async def test_a_blocked_broker_is_unavailable_within_bounds_and_taken_up_again(
    broker: Broker, make_log: MAKE_LOG
) -> None:
    log = await make_log(PublisherLimits(timeout=timedelta(seconds=0.5)))
    await log.publish([event(0)])
    reader = await log.reader(0)
    await asyncio.to_thread(broker.node.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:

        async def blocked() -> bool:
            try:
                await log.publish([event(1)])
            except Unavailable as error:
                return "low on memory" in str(error)
            return False

        await until(blocked)  # the alarm is raised within some seconds
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await log.publish([event(number) for number in range(5000)])
        # What does not publish goes on.
        assert await numbers(reader, 1) == [0]
        assert await log.end_offset() >= 1
    finally:
        await asyncio.to_thread(broker.node.ctl, "set_vm_memory_high_watermark", "absolute", "1GB")
    await until_published(log, event(2))
    assert "id-2" in await ids(log)
    await reader.close()


async def test_what_is_refused_while_the_broker_is_blocked_does_not_come_afterwards_and_closing_ends(
    broker: Broker, make_log: MAKE_LOG
) -> None:
    log = await make_log(PublisherLimits(timeout=timedelta(seconds=0.5)))
    full = await make_log(PublisherLimits(timeout=timedelta(seconds=0.5)))
    for each in (log, full):
        await each.publish([event(0)])
    await asyncio.to_thread(broker.node.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:

        async def blocked() -> bool:
            with pytest.raises(Unavailable):
                await log.publish([event(1)])  # told of the alarm, it stays in doubt
            return log.publisher.blocked is not None

        await until(blocked)
        for number in range(10, 20):
            with pytest.raises(Unavailable, match="low on memory"):
                await log.publish([event(number)])
        with pytest.raises(Unavailable):  # more than the socket takes
            await full.publish([event(number, size=900_000) for number in range(20, 60)])
        async with asyncio.timeout(30):
            await full.close()
    finally:
        await asyncio.to_thread(broker.node.ctl, "set_vm_memory_high_watermark", "absolute", "1GB")
    await until_published(log, event(2))
    assert {"id-1", "id-2"} >= set(await ids(log)) - {"id-0"} - {f"id-{number}" for number in range(20, 60)}


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
