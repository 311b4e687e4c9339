"""What can happen to the broker while events flow: everything comes back, and every number is exact."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from tests.pipeline import Pipeline, numbers_in
from tests.servers.rabbitmq import Broker
from tests.tcp_proxy import LOOPBACK, TcpProxy, proxy_before
from tests.topology.stores import opened
from topology.errors import SettingsError, Unavailable
from topology.log import Message
from topology.rabbitmq_log import RabbitLog
from topology.rabbitmq_publisher import PublisherLimits
from topology.rabbitmq_reader import ReaderLimits

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

MAKE_PIPELINE = Callable[..., Awaitable[Pipeline]]


@pytest.fixture
async def make_pipeline(broker: Broker, tmp_path: Path) -> AsyncIterator[MAKE_PIPELINE]:
    """Makes a pipeline that runs, impatient so that tests are short."""
    pipelines: list[Pipeline] = []
    async with opened(tmp_path) as stores:

        async def make(url: str = broker.url, max_bytes: int = 1_000_000_000) -> Pipeline:
            log = RabbitLog(
                url,
                broker.exchange,
                broker.queue,
                max_bytes=max_bytes,
                publishing=PublisherLimits(timeout=timedelta(seconds=2)),
                reading=ReaderLimits(supervise_every=timedelta(seconds=1)),
            )
            pipeline = Pipeline(log, stores)
            pipelines.append(pipeline)
            await log.open()
            await pipeline.start()
            return pipeline

        yield make
        for pipeline in pipelines:
            await pipeline.end()
            await pipeline.log.close()


@pytest.fixture
async def pipeline(make_pipeline: MAKE_PIPELINE) -> Pipeline:
    return await make_pipeline()


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


async def ctl(broker: Broker, *arguments: str) -> str:
    return await asyncio.to_thread(broker.node.ctl, *arguments)


def errors(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    """What was logged as an ERROR with these words in it."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR and words in r.getMessage()]


# -- the broker goes away --


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_broker_that_is_stopped_or_killed_and_started_again(
    broker: Broker, pipeline: Pipeline, how: str
) -> None:
    await asyncio.to_thread(broker.node.kill if how == "kill" else broker.node.stop)

    async def noticed() -> bool:
        return bool(pipeline.refusals)

    await pipeline.until(noticed)
    await asyncio.to_thread(broker.node.start)
    await pipeline.goes_on()
    await pipeline.comes_out_exact()


async def test_all_connections_closed_by_force(broker: Broker, pipeline: Pipeline) -> None:
    for _ in range(2):
        await ctl(broker, "close_all_connections", "--vhost", broker.vhost, "a test")
        await pipeline.goes_on()
    await pipeline.comes_out_exact()


async def test_connections_on_which_all_packets_are_lost_are_ended_by_the_heartbeat(
    broker: Broker, make_pipeline: MAKE_PIPELINE
) -> None:
    async with proxy_before(broker.node.port) as proxy:
        pipeline = await make_pipeline(
            f"amqp://guest:guest@{LOOPBACK}:{proxy.port}/{broker.vhost}?heartbeat=1"
        )
        proxy.lose_all_packets()
        async with asyncio.timeout(30):
            await pipeline.goes_on()
        await pipeline.comes_out_exact()


# -- the consumer goes away --


def each_reader(broker: Broker, does: str) -> str:
    """Erlang that does something to every channel of this virtual host on which the log is read."""
    return (
        f'QName = rabbit_misc:r(<<"{broker.vhost}">>, queue, <<"{broker.queue}">>), '
        "Channels = [Channel || Channel <- rabbit_channel:list(), "
        f'rabbit_channel:info(Channel, [vhost]) =:= [{{vhost, <<"{broker.vhost}">>}}], '
        f"rabbit_channel:info(Channel, [consumer_count]) =/= [{{consumer_count, 0}}]], {does}."
    )


#: As when the queue is gone; the broker would consume for the channel anew if it might, so for that moment it
#: looks as if the queue were another connection's own. Publishing goes on all the while.
CANCEL = (
    "{ok, Q} = rabbit_amqqueue:lookup(QName), "
    "ok = mnesia:dirty_write(rabbit_queue, setelement(5, Q, self())), "
    "[gen_server2:cast(Channel, {queue_event, QName, eol}) || Channel <- Channels], "
    "Counts = [rabbit_channel:info(Channel, [consumer_count]) || Channel <- Channels], "
    "ok = mnesia:dirty_write(rabbit_queue, Q), [[{consumer_count, 0}]] = lists:usort(Counts)"
)


async def test_consumers_cancelled_by_the_server_while_the_queue_stays(
    broker: Broker, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    await ctl(broker, "eval", each_reader(broker, CANCEL))
    await pipeline.goes_on()
    assert "the broker cancelled the consumer" in caplog.text
    await pipeline.comes_out_exact()


async def test_consumers_that_the_broker_makes_anew_by_itself(broker: Broker, pipeline: Pipeline) -> None:
    await ctl(
        broker,
        "eval",
        each_reader(broker, "[gen_server2:cast(Channel, {queue_event, QName, eol}) || Channel <- Channels]"),
    )
    async with asyncio.timeout(30):
        await pipeline.goes_on()
    await pipeline.comes_out_exact()


async def test_silence_behind_connections_that_look_well_is_noticed_within_30_s(
    broker: Broker, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    suspended = await ctl(
        broker, "eval", each_reader(broker, "[begin sys:suspend(Channel), Channel end || Channel <- Channels]")
    )
    async with asyncio.timeout(30):
        await pipeline.goes_on()
    assert "nothing was delivered although the log has message" in caplog.text
    await pipeline.comes_out_exact()


# -- the log goes away --


@pytest.mark.parametrize("again", ["made by us", "made by somebody else at once"])
async def test_a_queue_deleted_and_made_again(
    broker: Broker, pipeline: Pipeline, caplog: pytest.LogCaptureFixture, again: str
) -> None:
    async with foreign(broker) as channel:
        await channel.queue_delete(broker.queue)
        if again != "made by us":
            queue = await channel.declare_queue(
                broker.queue, durable=True, arguments=declared_arguments(pipeline)
            )
            await queue.bind(broker.exchange)
    await pipeline.goes_on()
    assert errors(caplog, "the log is a new one")
    await pipeline.comes_out_exact()


def declared_arguments(pipeline: Pipeline) -> dict[str, str | int]:
    return {
        "x-queue-type": "stream",
        "x-max-age": "14D",
        "x-max-length-bytes": 1_000_000_000,
        "x-stream-max-segment-size-bytes": 50_000_000,
    }


async def test_a_log_cut_by_retention_before_it_was_read(
    broker: Broker, make_pipeline: MAKE_PIPELINE, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = await make_pipeline(max_bytes=200_000)
    await pipeline.feed_no_more()
    await pipeline.goes_nowhere()
    log = pipeline.log
    read = await log.end_offset()
    counted = list(pipeline.published)
    await pipeline.flow.stop()
    while (await log.first_offset() or 0) < read + 100:
        await pipeline.publish(400)
    first = await log.first_offset()
    left = await whole(log)
    lost = set(pipeline.published) - set(counted) - set(numbers_in(left))
    assert lost
    await pipeline.restart_agents()
    await pipeline.comes_out_exact(lost)
    (told,) = {message.split(" for group ")[0] for message in errors(caplog, "data at risk")}
    print(told, first, read, len(lost))


async def whole(log: RabbitLog) -> list[Message]:
    """Everything that is in the log."""
    reader = await log.reader(0)
    messages: list[Message] = []
    while not messages or messages[-1].offset + 1 < await log.end_offset():
        messages += await reader.fetch(limit=1000, max_bytes=1 << 30, timeout=timedelta(seconds=5))
    await reader.close()
    return messages


# -- the broker takes nothing --

ALARMS = {
    "memory": (
        ("set_vm_memory_high_watermark", "absolute", "1MB"),
        ("set_vm_memory_high_watermark", "absolute", "1GB"),
    ),
    "disk": (("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "1MB")),
}


@pytest.mark.parametrize("short_of", ALARMS)
async def test_a_broker_short_of_memory_or_disk(broker: Broker, pipeline: Pipeline, short_of: str) -> None:
    raised, cleared = ALARMS[short_of]

    async def refused() -> bool:
        return bool(pipeline.refusals)

    await ctl(broker, *raised)
    try:
        await pipeline.until(refused)
        taken = len(pipeline.published)
        # Readers are not blocked: what the log took comes out.
    finally:
        await ctl(broker, *cleared)
    await pipeline.goes_on()
    await pipeline.comes_out_exact()


# -- somebody else's declarations --


async def test_an_exchange_declared_otherwise_ends_the_agents_with_both_declarations(
    broker: Broker, make_pipeline: MAKE_PIPELINE
) -> None:
    async with proxy_before(broker.node.port) as proxy:
        pipeline = await make_pipeline(f"amqp://guest:guest@{LOOPBACK}:{proxy.port}/{broker.vhost}")
        await pipeline.feed_no_more()
        await pipeline.goes_nowhere()
        async with foreign(broker) as channel:
            await channel.exchange_delete(broker.exchange)
            await channel.declare_exchange(broker.exchange, "topic", durable=True)
        before = proxy.accepted
        refused_before = broker.node.words.count("inequivalent arg 'type' for exchange")
        await ctl(broker, "close_all_connections", "--vhost", broker.vhost, "a test")
        assert pipeline.flow.failed is not None
        with pytest.raises(SettingsError) as refused:
            async with asyncio.timeout(30):
                await pipeline.flow.failed
        assert "Ours: exchange 'clowder.metrics' (type 'fanout', durable 'true'" in str(refused.value)
        assert "received 'fanout' but current is 'topic'" in str(refused.value)
        print(proxy.accepted - before, broker.node.words.count("inequivalent arg 'type' for exchange") - refused_before)


# -- TLS --


async def test_tls_with_a_certificate_of_a_private_authority(
    broker: Broker, make_pipeline: MAKE_PIPELINE
) -> None:
    url = broker.node.tls_url(broker.vhost)
    pipeline = await make_pipeline(f"{url}?cafile={broker.node.authority}")
    await ctl(broker, "close_all_connections", "--vhost", broker.vhost, "a test")
    await pipeline.goes_on()
    await pipeline.comes_out_exact()


async def test_tls_with_a_certificate_of_an_authority_that_is_unknown_is_refused(broker: Broker) -> None:
    log = RabbitLog(broker.node.tls_url(broker.vhost), broker.exchange, broker.queue)
    with pytest.raises(SettingsError, match="certificate .* cannot be verified .* add \\?cafile=FILE"):
        await log.open()
    await log.close()
