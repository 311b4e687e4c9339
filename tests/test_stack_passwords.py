"""`make stack-env`: random passwords, hashed for RabbitMQ, and users who may do what they need and nothing else."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aiormq.exceptions import AMQPConnectionError, ChannelAccessRefused

from tests.servers.rabbitmq import RabbitNode
from topology.errors import EventsinkError, SettingsError
from topology.log import JSON, Outgoing
from topology.rabbitmq.log import RabbitLog
from topology.uuid7 import uuid7

ROOT = Path(__file__).parent.parent
FILES = ("scripts/stack-env", ".env.example", "deploy/rabbitmq/definitions.template.json")
DEFINITIONS = "deploy/rabbitmq/definitions.json"
NOBODY = "^$"
EVENT = b'{"type":"activity.logged_in"}'


class Stack:
    """A tree with what stack-env reads, and what it wrote there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in FILES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", self.folder / "scripts/stack-env"],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )

    @property
    def written(self) -> str:
        return (self.folder / ".env").read_text()

    @property
    def passwords(self) -> dict[str, str]:
        return dict(re.findall(r"^(\w+)=([0-9a-f]{48})$", self.written, re.MULTILINE))

    @property
    def definitions(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / DEFINITIONS).read_text())
        return found

    def password_of(self, user: str) -> str:
        name = "RABBITMQ_PASSWORD" if user == "operator" else f"RABBITMQ_{user.upper()}_PASSWORD"
        return self.passwords[name]


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    made = Stack(tmp_path)
    ran = made.run()
    assert ran.returncode == 0, ran.stderr
    return made


def test_passwords_are_random_and_only_the_owner_reads_them(stack: Stack) -> None:
    asked = re.findall(r"^(\w+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert set(stack.passwords) == set(asked)
    assert len(set(stack.passwords.values())) == len(asked)
    assert stat.S_IMODE((stack.folder / ".env").stat().st_mode) == 0o600
    files = {str(path.relative_to(stack.folder)) for path in stack.folder.rglob("*") if path.is_file()}
    assert files == {*FILES, ".env", DEFINITIONS}


def test_a_second_run_changes_no_password_and_hashes_anew(stack: Stack) -> None:
    before, hashes = stack.written, stack.definitions
    ran = stack.run()
    assert ran.returncode == 0
    assert "stays" in ran.stderr
    assert stack.written == before
    assert stack.definitions != hashes  # another salt


def test_a_password_that_is_missing_is_named(stack: Stack) -> None:
    environment = stack.folder / ".env"
    environment.write_text(re.sub(r"RABBITMQ_WEB_PASSWORD=.*\n", "", stack.written))
    ran = stack.run()
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        "stack-env: .env has no RABBITMQ_WEB_PASSWORD: add it, as .env.example has it"
    )


def test_the_definitions_are_ignored_by_git_and_hold_no_password(stack: Stack) -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", DEFINITIONS], cwd=ROOT, check=False)
    assert ignored.returncode == 0
    text = (stack.folder / DEFINITIONS).read_text()
    assert not any(password in text for password in stack.passwords.values())
    # The user of RabbitMQ's container is not the one who ran stack-env.
    assert stat.S_IMODE((stack.folder / DEFINITIONS).stat().st_mode) == 0o644


# -- on a real node --


class Users:
    """The users of the definitions, on a node that has them."""

    def __init__(self, node: RabbitNode, stack: Stack, management: str) -> None:
        self.node = node
        self.stack = stack
        self.management = management

    def url(self, user: str) -> str:
        return self.node.url("%2F", user=user, password=self.stack.password_of(user))

    @asynccontextmanager
    async def log(self, user: str) -> AsyncIterator[RabbitLog]:
        log = RabbitLog(self.url(user), max_bytes=10_000_000)
        await log.open()
        try:
            yield log
        finally:
            await log.close()


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Users]:
    """A node with the configuration of the stack, which loads the definitions as it starts."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    assert stack.run().returncode == 0
    there = "/etc/rabbitmq/eventsink/definitions.json"
    configuration = (ROOT / "deploy/rabbitmq/rabbitmq.conf").read_text()
    assert configuration.count(there) == 1
    port = free_port()
    node = RabbitNode(
        tmp_path_factory.mktemp("node"),
        *configuration.replace(there, str(stack.folder / DEFINITIONS)).splitlines(),
        "management.tcp.ip = 127.0.0.1",
        f"management.tcp.port = {port}",
        plugins=["rabbitmq_management"],
    )
    try:
        node.start()
        yield Users(node, stack, f"http://127.0.0.1:{port}")
    finally:
        node.end()


async def _never(message: AbstractIncomingMessage) -> None:
    raise AssertionError("it was let in")


def outgoing() -> Outgoing:
    return Outgoing(EVENT, JSON, uuid7(0), 0)


@pytest.mark.servers
@pytest.mark.timeout(240)
@pytest.mark.parametrize("user", ["worker", "web"])
async def test_worker_and_web_open_the_log_publish_to_it_and_read_it(users: Users, user: str) -> None:
    async with users.log(user) as log:
        end = await log.end_offset()
        await log.publish([outgoing()])
        reader = await log.reader(end)
        (message,) = await reader.fetch(limit=1, max_bytes=1000, timeout=timedelta(seconds=20))
        assert message.body == EVENT
        await reader.close()


@pytest.mark.servers
@pytest.mark.timeout(240)
@pytest.mark.parametrize("right", ["configure", "write", "read"])
async def test_they_need_each_of_their_rights(users: Users, right: str) -> None:
    async with users.log("worker"):
        pass  # everything is declared; a later start declares it again, and needs the right to
    given = next(each for each in users.stack.definitions["permissions"] if each["user"] == "worker")
    rights = {**given, right: NOBODY}
    users.node.ctl(
        "set_permissions", "-p", "/", "worker", rights["configure"], rights["write"], rights["read"]
    )
    try:
        with pytest.raises(EventsinkError) as raised:
            async with users.log("worker") as log:
                await log.reader(0)
        assert isinstance(raised.value, SettingsError)
        assert "permission" in str(raised.value)
    finally:
        users.node.ctl(
            "set_permissions", "-p", "/", "worker", given["configure"], given["write"], given["read"]
        )


@pytest.mark.servers
@pytest.mark.timeout(240)
@pytest.mark.parametrize("user", ["worker", "web"])
async def test_neither_makes_or_reads_anything_else(users: Users, user: str) -> None:
    connection = await aio_pika.connect(users.url(user))
    async with connection:
        with pytest.raises(ChannelAccessRefused):
            await (await connection.channel()).declare_queue("another")
        with pytest.raises(ChannelAccessRefused):
            await (await connection.channel()).declare_exchange("another")


@pytest.mark.servers
@pytest.mark.timeout(240)
async def test_clowder_connects_as_clowder_does_and_its_event_arrives(users: Users) -> None:
    """The steps of Clowder 1's ``RabbitMQMessageService.connect`` and ``submit``: where one of them is refused, Clowder
    closes the connection and its events are lost."""
    async with users.log("worker") as log:
        end = await log.end_offset()
        connection = await aio_pika.connect(users.url("clowder"))
        async with connection:
            channel = await connection.channel()
            await channel.declare_exchange("clowder", aio_pika.ExchangeType.TOPIC, durable=True)
            replies = await channel.declare_queue("clowder.6568f0a1e4b0c0ffee000001", durable=True)
            bindings = f"{users.management}/api/exchanges/%2F/clowder/bindings/source"
            login = aiohttp.encode_basic_auth("clowder", users.stack.password_of("clowder"))
            asking = aiohttp.ClientSession(headers={"Authorization": login})
            async with asking as session, session.get(bindings) as answer:
                assert (answer.status, await answer.json()) == (200, [])
            await replies.consume(_never)
            extractors = await channel.declare_exchange(
                "extractors", aio_pika.ExchangeType.FANOUT, durable=True
            )
            heartbeats = await channel.declare_queue(exclusive=True, auto_delete=True)
            await heartbeats.bind(extractors, "*")
            await heartbeats.consume(_never)
            await channel.declare_queue("clowder.jobs.temp", durable=True)
            await channel.default_exchange.publish(aio_pika.Message(b"{}"), routing_key="ncsa.image.preview")
            exchange = await channel.declare_exchange(
                "clowder.metrics", aio_pika.ExchangeType.FANOUT, durable=True
            )
            await exchange.publish(aio_pika.Message(EVENT), routing_key="")
        reader = await log.reader(end)
        (message,) = await reader.fetch(limit=1, max_bytes=1000, timeout=timedelta(seconds=20))
        assert message.body == EVENT
        await reader.close()


@pytest.mark.servers
@pytest.mark.timeout(240)
async def test_clowder_does_not_touch_the_log(users: Users) -> None:
    async with users.log("worker"):
        pass  # it is there
    connection = await aio_pika.connect(users.url("clowder"))

    async def refused(ask: Callable[[AbstractChannel], Awaitable[object]]) -> None:
        channel = await connection.channel()
        with pytest.raises(ChannelAccessRefused):
            await ask(channel)

    async def purged(channel: AbstractChannel) -> None:
        await (await channel.get_queue("eventsink.log", ensure=False)).purge()

    async def consumed(channel: AbstractChannel) -> None:
        await channel.set_qos(prefetch_count=1)
        await (await channel.get_queue("eventsink.log", ensure=False)).consume(_never)

    async def bound(channel: AbstractChannel) -> None:
        await (await channel.get_queue("eventsink.log", ensure=False)).bind("amq.topic", "#")

    async with connection:
        await refused(lambda channel: channel.queue_delete("eventsink.log"))
        await refused(purged)
        await refused(lambda channel: channel.declare_queue("eventsink.another"))

        await refused(consumed)
        await refused(bound)


@pytest.mark.servers
@pytest.mark.timeout(240)
async def test_nobody_comes_in_as_guest(users: Users) -> None:
    with pytest.raises(AMQPConnectionError):
        await aio_pika.connect(users.node.url("%2F"))


@pytest.mark.servers
@pytest.mark.timeout(240)
async def test_a_wrong_password_lets_nobody_in(users: Users) -> None:
    with pytest.raises(AMQPConnectionError):
        await aio_pika.connect(users.node.url("%2F", user="web", password="wrong"))
