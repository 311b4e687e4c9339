"""The length of a queue of a real RabbitMQ, asked in both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aio_pika
import msgspec
import pytest

from monitors.probe import Surroundings, Unknown
from monitors.queue import QueueProbe, QueueSettings
from schemas.events import QueueMeasured
from tests.servers.rabbitmq import Managed
from topology.errors import SettingsError

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

#: The API's numbers are behind the queue.
LIMIT_S = 30.0
#: Of a name that has to be quoted in a path.
QUEUE = "clowder/extractors of #1"


class Asked(NamedTuple):
    """A virtual host with a queue, and what reaches them."""

    vhost: str
    channel: aio_pika.abc.AbstractChannel
    urls: dict[str, str]

    def probe(self, way: str, folder: Path, *, password: str = "guest", **settings: Any) -> QueueProbe:
        asked = {"queue": QUEUE, "vhost": self.vhost, "url": self.urls[way], **settings}
        return QueueProbe(
            QueueSettings(service="clowder", password_env="QUEUE_PASSWORD", **asked),
            Surroundings(environment={"QUEUE_PASSWORD": password}),
        )


@pytest.fixture
async def asked(managed_rabbitmq: Managed) -> AsyncIterator[Asked]:
    """A queue without messages."""
    node = managed_rabbitmq.node
    vhost = node.fresh_vhost()
    connection = await aio_pika.connect(node.url(vhost))
    channel = await connection.channel()
    await channel.declare_queue(QUEUE, durable=True)
    urls = {"management": managed_rabbitmq.url, "declare": f"amqp://127.0.0.1:{node.port}"}
    yield Asked(vhost, channel, urls)
    await connection.close()


@pytest.mark.parametrize("way", ["management", "declare"])
async def test_the_messages_of_a_queue_are_counted(asked: Asked, tmp_path: Path, way: str) -> None:
    for _ in range(7):
        await asked.channel.default_exchange.publish(aio_pika.Message(b"{}"), QUEUE)
    probe = asked.probe(way, tmp_path)
    async with asyncio.timeout(LIMIT_S):
        while isinstance(found := await probe.check(), Unknown) or found["messages"] != 7:
            await asyncio.sleep(0.1)
    assert found["queue"] == QUEUE
    event = msgspec.convert({**found, "service": "clowder", "time": 0}, QueueMeasured)
    assert event.messages == 7
    await probe.close()


async def test_messages_that_are_out_with_a_consumer_count_in_the_management_api(
    asked: Asked, tmp_path: Path
) -> None:
    for _ in range(3):
        await asked.channel.default_exchange.publish(aio_pika.Message(b"{}"), QUEUE)
    queue = await asked.channel.get_queue(QUEUE)
    assert await queue.get() is not None
    probe = asked.probe("management", tmp_path)
    async with asyncio.timeout(LIMIT_S):
        while isinstance(found := await probe.check(), Unknown) or found.get("unacknowledged") != 1:
            await asyncio.sleep(0.1)
    assert (found["messages"], found["ready"], found["consumers"]) == (3, 2, 0)


@pytest.mark.parametrize("way", ["management", "declare"])
async def test_a_queue_that_is_not_there_is_unknown_and_not_0(asked: Asked, tmp_path: Path, way: str) -> None:
    found = await asked.probe(way, tmp_path, queue="nothing").check()
    assert found == Unknown(f"there is no queue 'nothing' in {asked.vhost!r}")


@pytest.mark.parametrize("way", ["management", "declare"])
async def test_a_wrong_password_is_said_and_not_shown(asked: Asked, tmp_path: Path, way: str) -> None:
    found = await asked.probe(way, tmp_path, password="hunter2").check()
    assert isinstance(found, Unknown)
    assert "refuses the user" in found.reason
    assert "hunter2" not in found.reason


@pytest.mark.parametrize("scheme", ["http", "amqp"])
async def test_a_broker_that_does_not_listen_is_unknown(
    tmp_path: Path, free_port: Callable[[], int], scheme: str
) -> None:
    settings = QueueSettings(service="clowder", url=f"{scheme}://127.0.0.1:{free_port()}", queue=QUEUE)
    probe = QueueProbe(settings, Surroundings())
    found = await probe.check()
    assert isinstance(found, Unknown)
    assert "refuse" in found.reason.lower()


@pytest.mark.parametrize("scheme", ["http", "amqp"])
async def test_a_broker_that_says_nothing_is_unknown_in_time(tmp_path: Path, scheme: str) -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = QueueSettings(service="clowder", url=f"{scheme}://127.0.0.1:{port}", queue=QUEUE, timeout=0.2)
    async with asyncio.timeout(LIMIT_S):
        found = await QueueProbe(settings, Surroundings()).check()
    assert isinstance(found, Unknown)
    assert "within 0.2 s" in found.reason
    for writer in held:
        writer.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"messages": -1}', b'{"messages": 1.5}', b"{}", b"\xff"]
)
async def test_an_answer_that_is_none_of_the_api_is_unknown(tmp_path: Path, body: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = QueueSettings(service="clowder", url=f"http://127.0.0.1:{port}", queue=QUEUE)
    found = await QueueProbe(settings, Surroundings()).check()
    assert isinstance(found, Unknown)
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://user:hunter2@127.0.0.1:15672", "holds credentials"),
        ("amqp://guest@127.0.0.1", "holds credentials"),
        ("amqp://127.0.0.1/vhost", "the virtual host is vhost"),
        ("http://127.0.0.1:15672/?a=1", "ends with host and port"),
        ("mqtt://127.0.0.1", "must be"),
        ("http://127.0.0.1:port", "must be"),
        ("http://", "must be"),
    ],
)
def test_a_url_that_cannot_be_asked_is_refused(url: str, says: str) -> None:
    (wrong,) = QueueSettings(service="clowder", queue="q", url=url).contradictions()
    assert says in wrong.what
    assert wrong.fields == ("url",)
    assert "hunter2" not in wrong.what


def test_a_password_that_is_not_set_stops_the_start(tmp_path: Path) -> None:
    settings = QueueSettings(service="clowder", url="amqp://127.0.0.1", queue="q", password_env="NOT_SET")
    with pytest.raises(SettingsError, match="NOT_SET"):
        QueueProbe(settings, Surroundings())
