"""What only a broker can do to those who publish: lose what it confirmed, refuse, take nothing. On a real node."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from datetime import timedelta

import aio_pika
import pytest

from tests.broker_logs import (
    MAKE_LOG,
    NEVER,
    foreign,
    ids,
    until,
    until_logged,
    until_published,
)
from tests.servers.rabbitmq import Broker
from tests.tcp_proxy import LOOPBACK, proxy_before
from tests.topology.test_log import event, numbers
from topology.errors import Refused, SettingsError, Unavailable
from topology.rabbitmq.log import RabbitLog
from topology.rabbitmq.publisher import PublisherLimits

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


#: So many are written in several pieces, and are still on their way when the first one is answered.
MANY = 900


@pytest.fixture
async def log(make_log: MAKE_LOG) -> RabbitLog:
    return await make_log()


# -- the log is lost --


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

    async def looked_at() -> bool:
        try:
            await log.publisher.check()
        except Unavailable:
            return False  # a queue that has just been made may keep silent for a moment
        return True

    await until(looked_at)
    # Twice is harmless, by their ids; never is not.
    assert {f"id-{number}" for number in range(1000, 2000)} <= set(await ids(log))


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


async def test_a_channel_that_the_broker_closes_under_many_publishers_costs_no_connection(
    broker: Broker, log: RabbitLog
) -> None:
    before = broker.node.words.count("channel_error")
    published: set[str | None] = set()
    stopped = asyncio.Event()

    async def publish(publisher: int) -> None:
        for number in itertools.count(publisher * 1_000_000, MANY):
            if stopped.is_set():
                return
            messages = [event(n) for n in range(number, number + MANY)]
            await until_published(log, *messages)
            published.update(message.event_id for message in messages)

    async with foreign(broker) as channel, asyncio.TaskGroup() as group:
        for publisher in range(10):
            group.create_task(publish(publisher))
        for _ in range(10):

            async def some_more(wanted: int = len(published) + MANY) -> bool:
                return len(published) >= wanted

            await until(some_more)
            await channel.exchange_delete(broker.exchange)
        stopped.set()
    await until_logged(broker, "the exchange stays now")
    assert broker.node.words.count("channel_error") == before
    await log.publisher.check()
    assert published <= set(await ids(log))


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
    # One at a time, so that a fault falls in the midst of publishing again.
    limits = PublisherLimits(check_every=NEVER, outstanding=1, timeout=timedelta(seconds=0.5))
    other = await make_log()
    async with proxy_before(broker.node.port) as proxy, foreign(broker) as channel:
        url = f"amqp://guest:guest@{LOOPBACK}:{proxy.port}/{broker.vhost}"
        log = RabbitLog(url, broker.exchange, broker.queue, publishing=limits)
        await log.open()
        await until_published(log, event(0))  # connecting may take longer than one may wait here
        await log.publish([event(number) for number in range(1, 50)])
        kept = log.publisher.kept_bytes
        proxy.lose_answers_at(b"id-25", times=2)
        await channel.queue_delete(broker.queue)  # the sentinel tells

        async def all_are_published_again() -> bool:
            assert log.publisher.kept_bytes <= kept
            return await other.end_offset() >= 25 + 25 + 50

        await until(all_are_published_again)
        await log.close()
    assert proxy.accepted >= 3
    assert set(await ids(other)) == {f"id-{number}" for number in range(50)}


# -- the broker refuses --


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
        await until_logged(broker, "all of them were refused")
        assert 1 <= broker.node.words.count("inequivalent arg 'type'") - before <= 10
        await channel.exchange_delete(broker.exchange)
    await until_published(log, event(1))


async def test_a_message_larger_than_the_broker_takes_is_refused_and_holds_nobody_up(
    broker: Broker, log: RabbitLog
) -> None:
    before = broker.node.words.count("larger than")
    broker.node.ctl("eval", "application:set_env(rabbit, max_message_size, 100000).")
    try:
        beside = [asyncio.create_task(log.publish([event(number)])) for number in range(50)]
        for _ in range(5):
            with pytest.raises(Refused, match="takes no message of 100014 bytes: send at most 100000"):
                await log.publish([event(100, size=100_000)])
        await asyncio.gather(*beside)
        await log.publish([event(50, size=99_000)])
    finally:
        broker.node.ctl("eval", "application:set_env(rabbit, max_message_size, 134217728).")
    await until_logged(broker, "all sizes again")
    assert broker.node.words.count("larger than") - before == 1  # asked once
    assert set(await ids(log)) == {f"id-{number}" for number in range(51)}


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


# -- the broker takes nothing --


async def test_a_blocked_broker_is_unavailable_within_bounds_and_taken_up_again(
    broker: Broker, make_log: MAKE_LOG
) -> None:
    log = await make_log(PublisherLimits(timeout=timedelta(seconds=0.5)))
    await until_published(log, event(0))  # connecting may take longer than that
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
        async with asyncio.timeout(60):
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
        await until_published(each, event(0))  # connecting may take longer than that
    await asyncio.to_thread(broker.node.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:

        async def blocked() -> bool:
            with suppress(Unavailable):  # told of the alarm, it stays in doubt; before, it is taken
                await log.publish([event(1)])
            return log.publisher.blocked is not None

        await until(blocked)
        refusals = await asyncio.gather(
            *(log.publish([event(number)]) for number in range(10, 20)), return_exceptions=True
        )
        assert all(isinstance(each, Unavailable) and "low on memory" in str(each) for each in refusals)
        with pytest.raises(Unavailable):  # more than the socket takes
            await full.publish([event(number, size=900_000) for number in range(20, 60)])
        async with asyncio.timeout(60):
            await full.close()
    finally:
        await asyncio.to_thread(broker.node.ctl, "set_vm_memory_high_watermark", "absolute", "1GB")
    await until_published(log, event(2))
    assert {"id-1", "id-2"} >= set(await ids(log)) - {"id-0"} - {f"id-{number}" for number in range(20, 60)}


async def test_a_closed_log_takes_nothing_until_it_is_opened_again(broker: Broker, log: RabbitLog) -> None:
    await log.publish([event(0)])
    publishing = [asyncio.create_task(_publish_for_ever(log, number)) for number in range(3)]

    async def some_are_published() -> bool:
        return await log.end_offset() > 1

    await until(some_are_published)
    await log.close()
    for task in publishing:
        async with asyncio.timeout(60):
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
