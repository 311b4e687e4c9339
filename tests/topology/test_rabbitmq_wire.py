"""What comes over the wire of a real node: recorded and cut everywhere, larger than agreed, or garbage in between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from pamqp.commands import Basic
from pamqp.common import FieldValue
from pamqp.header import ContentHeader

from tests.broker_logs import foreign, until_replaced
from tests.servers.rabbitmq import LOOPBACK, Broker, RabbitNode
from tests.topology.test_log import as_read, event, read
from topology.errors import Unavailable
from topology.log import Message
from topology.rabbitmq.frames import BODY, PREFIX, Delivery, FrameScanner
from topology.rabbitmq.log import RabbitLog
from topology.rabbitmq.messages import message

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


class Wire:
    """Passes connections on to the node, keeps what each of them answered, and can put bytes of its own between."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: list[asyncio.StreamWriter] = []
        self.answers: list[bytearray] = []
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def put_between(self, garbage: bytes) -> None:
        """To every client that is connected."""
        clients, self._clients = self._clients, []
        for client in clients:
            client.write(garbage)
            await client.drain()

    async def end(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, self._behind)
        self._clients.append(writer)
        answers = bytearray()
        self.answers.append(answers)
        for source, target, record in ((reader, inner_writer, None), (inner_reader, writer, answers)):
            task = asyncio.create_task(_pass_on(source, target, record))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pass_on(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, record: bytearray | None
) -> None:
    try:
        while piece := await source.read(1 << 16):
            if record is not None:
                record += piece
            target.write(piece)
            await target.drain()
    except ConnectionError:
        pass  # either side has gone: that is what some tests are about
    finally:
        target.close()


@pytest.fixture
async def wire(broker: Broker) -> AsyncIterator[Wire]:
    wire = Wire(broker.node.port)
    await wire.start()
    yield wire
    await wire.end()


@pytest.fixture
async def log(broker: Broker, wire: Wire) -> AsyncIterator[RabbitLog]:
    log = RabbitLog(
        f"amqp://guest:guest@{LOOPBACK}:{wire.port}/{broker.vhost}", broker.exchange, broker.queue
    )
    await log.open()
    yield log
    await log.close()


async def test_what_a_node_sent_is_the_same_messages_wherever_it_is_cut(wire: Wire, log: RabbitLog) -> None:
    await log.publish([event(number, size=10 * number) for number in range(8)])
    reader = await log.reader(0)
    came = await read(reader, 8)
    await reader.close()
    recorded = next(bytes(answers) for answers in wire.answers if _messages(bytes(answers), 0) == came)
    assert len(recorded) > 1000
    for cut in range(len(recorded)):
        assert _messages(recorded, cut) == came


def _messages(stream: bytes, cut: int) -> list[Message]:
    """The messages that came on channel 1, the stream fed in two pieces."""
    deliveries: list[Delivery] = []
    scanner = FrameScanner(lambda others: None)
    scanner.take(1, deliveries.extend)
    scanner.feed(stream[:cut])
    scanner.feed(stream[cut:])
    return [found for delivery in deliveries if (found := message(delivery)) is not None]


GARBAGE = [
    pytest.param(random.Random(64).randbytes(64) + b"\xff" * 8, id="random bytes"),
    pytest.param(PREFIX.pack(BODY, 1, 1 << 30), id="a frame of a gigabyte"),
    pytest.param(PREFIX.pack(BODY, 1, 2) + b"{}\x00", id="a frame without its end"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_between_frames_ends_the_connection_and_nothing_else(
    wire: Wire, log: RabbitLog, garbage: bytes
) -> None:
    await log.publish([event(number) for number in range(20)])
    reader = await log.reader(0)
    came = await read(reader, 5)
    await wire.put_between(garbage)
    came += await until_replaced(reader)
    await reader.close()
    again = await log.reader(came[-1].offset + 1)
    while len(came) < 20:
        came += await read(again, 1)
    assert came == [as_read(number, event(number)) for number in range(20)]
    await again.close()
    async with asyncio.timeout(60):
        while True:  # its connections, too, were given garbage
            try:
                await log.publish([event(20)])
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                break
    assert await log.end_offset() >= 21


@pytest.mark.parametrize("answer", [b"\x00" * 5_000_000, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_a_server_that_speaks_something_else_is_unavailable_in_one_line(answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(speak, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    log = RabbitLog(f"amqp://guest:guest@{LOOPBACK}:{port}/")
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable) as raised:
            await log.open()
    assert "\n" not in str(raised.value)
    await log.close()
    server.close()


async def _publish_raw(channel: AbstractChannel, exchange: str, headers: dict[str, FieldValue]) -> None:
    theirs = await channel.get_exchange(exchange, ensure=False)
    await theirs.publish(aio_pika.Message(b"{}", headers=headers), routing_key="")


async def test_headers_that_fill_a_frame_to_the_brim_do_not_end_every_reading(
    broker: Broker, log: RabbitLog
) -> None:
    agreed = 131_072 - 8
    short = len(ContentHeader(0, 2, Basic.Properties(headers={"x": ""}, message_id="0" * 32)).marshal())
    async with foreign(broker) as channel:
        for missing in (0, 60):  # aio-pika adds a property or two of its own: one of these fills it
            await _publish_raw(channel, broker.exchange, {"x": "y" * (agreed - short - missing)})
    reader = await log.reader(0)
    await log.publish([event(1)])
    came: list[Message] = []
    async with asyncio.timeout(60):
        while not came or came[-1].event_id != "id-1":
            came += await reader.fetch(limit=10, max_bytes=1 << 20, timeout=timedelta(seconds=1))
    await reader.close()


async def test_a_broker_that_sets_no_limit_to_frames_is_read_and_written_all_the_same(tmp_path: Path) -> None:
    node = RabbitNode(tmp_path, "frame_max = 0")
    try:
        await asyncio.to_thread(node.start)
        log = RabbitLog(node.url())
        await log.open()
        large = event(1, size=300_000)
        await log.publish([large])
        reader = await log.reader(0)
        assert await read(reader, 1) == [as_read(0, large)]
        await reader.close()
        await log.close()
    finally:
        await asyncio.to_thread(node.end)
