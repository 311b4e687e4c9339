"""What can happen to the broker while events flow: everything comes back, and every number is exact."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pamqp.common import Arguments

from cli.running import Opened, Running
from cli.settings import load
from tests.broker_logs import foreign, until_logged
from tests.pipeline import GROUPS, Pipeline, numbers_in
from tests.servers.rabbitmq import Broker
from tests.tcp_proxy import LOOPBACK, TcpProxy, proxy_before
from tests.topology.stores import opened
from topology.errors import SettingsError
from topology.log import Message
from topology.rabbitmq.log import RabbitLog
from topology.rabbitmq.publisher import PublisherLimits
from topology.rabbitmq.reader import ReaderLimits

pytestmark = [pytest.mark.servers, pytest.mark.timeout(360)]

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
                publishing=PublisherLimits(timeout=timedelta(seconds=2), waiting_bytes=200_000),
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
async def proxy(broker: Broker) -> AsyncIterator[TcpProxy]:
    """On the way to the node. Asked for before ``make_pipeline``, it outlives the pipeline."""
    async with proxy_before(broker.node.port) as proxy:
        yield proxy


@pytest.fixture
async def pipeline(make_pipeline: MAKE_PIPELINE) -> Pipeline:
    return await make_pipeline()


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
    broker: Broker, proxy: TcpProxy, make_pipeline: MAKE_PIPELINE
) -> None:
    pipeline = await make_pipeline(f"amqp://guest:guest@{LOOPBACK}:{proxy.port}/{broker.vhost}?heartbeat=1")
    proxy.lose_all_packets()
    async with asyncio.timeout(60):
        await pipeline.goes_on()
    await pipeline.comes_out_exact()


async def test_answers_that_are_lost_put_events_into_the_log_twice_and_into_no_number_twice(
    broker: Broker, proxy: TcpProxy, make_pipeline: MAKE_PIPELINE
) -> None:
    pipeline = await make_pipeline(f"amqp://guest:guest@{LOOPBACK}:{proxy.port}/{broker.vhost}?heartbeat=1")
    proxy.lose_answers()
    async with asyncio.timeout(60):
        await pipeline.goes_on()
    await pipeline.comes_out_exact()
    assert len(numbers_in(await whole(pipeline.log))) > len(pipeline.published)


# -- the consumer goes away --


def each_reader(broker: Broker, does: str) -> str:
    """Erlang that does something to every channel of this virtual host on which the log is read. Looks at the log
    have channels, too, that may end at any moment."""
    return (
        f'QName = rabbit_misc:r(<<"{broker.vhost}">>, queue, <<"{broker.queue}">>), '
        "Consumers = fun(Channel) -> case catch rabbit_channel:info(Channel, [vhost, consumer_count]) of "
        f'[{{vhost, <<"{broker.vhost}">>}}, {{consumer_count, Count}}] -> Count; _ -> 0 end end, '
        f"Channels = [Channel || Channel <- rabbit_channel:list(), Consumers(Channel) > 0], {does}."
    )


#: The way of a deleted queue to its consumers.
END_OF_QUEUE = "[gen_server2:cast(Channel, {queue_event, QName, eol}) || Channel <- Channels]"
#: After it the broker consumes anew by itself where it may: so for that moment it looks as if the queue were
#: another connection's own. Publishing goes on all the while.
CANCEL = (
    "{ok, Q} = rabbit_amqqueue:lookup(QName), "
    "ok = mnesia:dirty_write(rabbit_queue, setelement(5, Q, self())), "
    f"{END_OF_QUEUE}, "
    "Counts = [Consumers(Channel) || Channel <- Channels], "
    "ok = mnesia:dirty_write(rabbit_queue, Q), [0] = lists:usort(Counts)"
)


async def test_consumers_cancelled_by_the_server_while_the_queue_stays(
    broker: Broker, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    await ctl(broker, "eval", each_reader(broker, CANCEL))
    await pipeline.goes_on()
    assert "the broker cancelled the consumer" in caplog.text
    await pipeline.comes_out_exact()


async def test_consumers_that_the_broker_makes_anew_by_itself(broker: Broker, pipeline: Pipeline) -> None:
    # They begin where they began before, and repeat more than may be unacknowledged.
    await ctl(broker, "eval", each_reader(broker, END_OF_QUEUE))
    async with asyncio.timeout(60):
        await pipeline.goes_on()
    await pipeline.comes_out_exact()


#: Connections stay, heartbeats go on, and the channels do nothing.
SUSPEND = "persistent_term:put(suspended, Channels), [sys:suspend(Channel) || Channel <- Channels]"
RESUME = "[catch sys:resume(Channel) || Channel <- persistent_term:get(suspended)]."


async def test_silence_behind_connections_that_look_well_is_noticed_within_30_s(
    broker: Broker, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    await ctl(broker, "eval", each_reader(broker, SUSPEND))
    async with asyncio.timeout(30):
        await pipeline.goes_on()
    await ctl(broker, "eval", RESUME)
    assert "nothing was delivered although the log has message" in caplog.text
    await pipeline.comes_out_exact()


# -- the log goes away --


@pytest.mark.parametrize("again", ["by us", "by somebody else"])
async def test_a_queue_deleted_and_made_again(
    broker: Broker, pipeline: Pipeline, caplog: pytest.LogCaptureFixture, again: str
) -> None:
    await (
        pipeline.log.publisher.check()
    )  # else all of it is published again, and the new log is like the old one
    async with foreign(broker) as channel:
        await channel.queue_delete(broker.queue)
        if again == "by somebody else":
            # At once: the broker may not have told its consumers yet.
            stream: Arguments = {"x-queue-type": "stream"}
            queue = await channel.declare_queue(broker.queue, durable=True, arguments=stream)
            await queue.bind(broker.exchange)
    await pipeline.goes_on()
    assert len(errors(caplog, "the log is a new one")) == len(GROUPS)
    await pipeline.comes_out_exact()


async def test_a_log_cut_by_retention_before_it_was_read(
    broker: Broker, make_pipeline: MAKE_PIPELINE, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = await make_pipeline(max_bytes=200_000)
    await pipeline.feed_no_more()
    await pipeline.rests()
    read = await pipeline.log.end_offset()
    counted = set(pipeline.published)
    await pipeline.flow.stop()
    while (await pipeline.log.first_offset() or 0) <= read + 20:
        await pipeline.publish(400)
    left = await whole(pipeline.log)
    lost = set(pipeline.published) - counted - set(numbers_in(left))
    assert lost
    await pipeline.restart_agents()
    await pipeline.comes_out_exact(lost)
    told = errors(caplog, "data at risk: the log was cut before it was read")
    assert len(told) == len(GROUPS)
    assert all(f"up to {left[0].offset - read} message(s) are gone" in each for each in told)
    for group in GROUPS:
        assert pipeline.metric("eventsink_log_messages_cut_total", group=group) == left[0].offset - read


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
    "low on memory": (
        ("set_vm_memory_high_watermark", "absolute", "1MB"),
        ("set_vm_memory_high_watermark", "absolute", "1GB"),
    ),
    "low on disk": (("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "1MB")),
}


@pytest.mark.parametrize("short", ALARMS)
async def test_a_broker_short_of_memory_or_disk(
    broker: Broker, pipeline: Pipeline, tmp_path: Path, short: str
) -> None:
    raised, cleared = ALARMS[short]
    async with readiness(pipeline, tmp_path) as ready:
        assert (await ready())[0] == 200
        waiting: list[asyncio.Task[None]] = []
        await ctl(broker, *raised)
        try:

            async def told() -> bool:
                return (await ready())[1] == f"not ready: log: the broker takes nothing: {short}"

            await pipeline.until(told)
            # Together more than may wait: some are refused at once, the others in time.
            waiting += (asyncio.create_task(pipeline.publish(200)) for _ in range(20))

            async def refused() -> bool:
                return all(
                    any(words in refusal and short in refusal for refusal in pipeline.refusals)
                    for words in ("MiB wait already: try again later", "for 2 s")
                )

            await pipeline.until(refused)
            # Reading is not blocked: what the log took comes out meanwhile.
            await pipeline.rests()
            assert (await ready())[0] == 503
        finally:
            await ctl(broker, *cleared)
        await asyncio.gather(*waiting)
        await pipeline.goes_on()
        assert (await ready())[0] == 200
    await pipeline.comes_out_exact()


@asynccontextmanager
async def readiness(
    pipeline: Pipeline, folder: Path
) -> AsyncIterator[Callable[[], Awaitable[tuple[int, str]]]]:
    """What `/readyz` of a process with this log answers: status and, where it is not ready, why."""
    stores = pipeline.stores
    part = Opened(
        log=pipeline.log,
        state=stores.state,
        rollup_sink=stores.rollups,
        raw_events=stores.raw_events,
        dead_letters=stores.dead_letters,
    )
    async with AsyncExitStack() as stack:
        running = Running(stack, load({}, data=folder), part)
        client = await stack.enter_async_context(TestClient(TestServer(running.probes_application())))

        async def ready() -> tuple[int, str]:
            async with client.get("/readyz") as answer:
                document = json.loads(await answer.read())
                return answer.status, document.get("detail", "")

        yield ready


# -- somebody else's declarations --


async def test_an_exchange_declared_otherwise_ends_the_agents_and_names_both_declarations(
    broker: Broker, proxy: TcpProxy, make_pipeline: MAKE_PIPELINE
) -> None:
    pipeline = await make_pipeline(f"amqp://guest:guest@{LOOPBACK}:{proxy.port}/{broker.vhost}")
    await pipeline.feed_no_more()
    await pipeline.rests()
    await declare_exchange_anew(broker, "topic")
    connections, refusals = proxy.accepted, broker.node.words.count(OTHERWISE)
    await ctl(broker, "close_all_connections", "--vhost", broker.vhost, "a test")
    failed = pipeline.flow.failed
    assert failed is not None
    with pytest.raises(SettingsError, match=BOTH_DECLARATIONS):
        async with asyncio.timeout(60):
            await asyncio.shield(failed)
    await pipeline.flow.stop()
    await until_logged(broker, "the agents have ended")
    # Each group's reader, and what looks after the log meanwhile, with growing pauses: so many only after a minute.
    # Without pauses there would be hundreds in a second.
    assert 1 <= proxy.accepted - connections <= 30
    assert 1 <= broker.node.words.count(OTHERWISE) - refusals <= 30
    await declare_exchange_anew(broker, "fanout")
    await pipeline.restart_agents()
    pipeline.feed()
    await pipeline.goes_on()
    await pipeline.comes_out_exact()


#: In the error of a process of ours. Ours first, then the broker's words.
BOTH_DECLARATIONS = (
    r"Ours: exchange 'clowder.metrics' \(type 'fanout', durable 'true', .*"
    r"received 'fanout' but current is 'topic'"
)
#: How the broker's own log says that it refused a declaration of the exchange.
OTHERWISE = "inequivalent arg 'type' for exchange"


async def declare_exchange_anew(broker: Broker, kind: str) -> None:
    async with foreign(broker) as channel:
        await channel.exchange_delete(broker.exchange)
        await channel.declare_exchange(broker.exchange, kind, durable=True)


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
    with pytest.raises(SettingsError, match=r"cannot be verified .* add \?cafile=FILE"):
        await log.open()
    await log.close()
