"""A broker that cannot be used at the start: one line that says what and what to do, and exit code 1."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import aio_pika
import pytest

from tests.processes import STARTED
from tests.servers.rabbitmq import Broker
from tests.tcp_proxy import LOOPBACK, proxy_before

pytestmark = [pytest.mark.servers, pytest.mark.processes, pytest.mark.timeout(240)]

#: The program, with a patience for servers that start of 1 s instead of 30.
IMPATIENT = (
    "import datetime, cli.process, cli.main; "
    "cli.process.START_PATIENCE = datetime.timedelta(seconds=1); cli.main.main()"
)
WAITED = "waiting up to 1 s"
PASSWORD = "hidden-word"


class Refused(NamedTuple):
    """The one line of the error, and everything else that was written."""

    line: str
    rest: str


async def refused(folder: Path, url: str) -> Refused:
    """How ``worker`` ends on this broker."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        IMPATIENT,
        "worker",
        "--port",
        "0",
        env={"PATH": os.environ["PATH"], "HOME": str(folder.parent), "LANG": "C.UTF-8"}
        | {"PYTHONPATH": str(Path(__file__).parents[1])}
        | {"EVENTSINK_BROKER_URL": url, "EVENTSINK_DATA": str(folder), "EVENTSINK_LOG_FORMAT": "text"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    STARTED.append(process)
    out, err = (written.decode() for written in await process.communicate())
    assert process.returncode == 1, out + err
    assert "Traceback" not in err
    assert PASSWORD not in out + err
    *rest, line = err.splitlines()
    assert line.startswith("eventsink: ")
    return Refused(line, "\n".join([out, *rest]))


async def test_what_is_wrong_is_told_at_once(broker: Broker, tmp_path: Path) -> None:
    node = broker.node
    user, vhost, certificate = await asyncio.gather(
        refused(tmp_path / "user", node.url(broker.vhost, password=PASSWORD)),
        refused(tmp_path / "vhost", node.url("nowhere")),
        refused(tmp_path / "certificate", node.tls_url(broker.vhost)),
    )
    assert "refuses user or password: mend the broker's URL (EVENTSINK_BROKER_URL)" in user.line
    assert "refuses the virtual host 'nowhere': make it" in vhost.line
    assert "cannot be verified" in certificate.line
    assert "add ?cafile=FILE to EVENTSINK_BROKER_URL" in certificate.line
    for told in (user, vhost, certificate):
        assert WAITED not in told.rest


async def test_what_does_not_answer_is_waited_for_and_then_told(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    closed = free_port()
    port, host = await asyncio.gather(
        refused(tmp_path / "port", f"amqp://guest:{PASSWORD}@{LOOPBACK}:{closed}/"),
        refused(tmp_path / "host", f"amqp://guest:{PASSWORD}@host.invalid/"),
    )
    assert f"amqp://guest:***@{LOOPBACK}:{closed}" in port.line
    assert "is the broker running?" in port.line
    assert "host.invalid" in host.line
    for told in (port, host):
        assert WAITED in told.rest


async def test_an_exchange_declared_otherwise_is_asked_for_once_and_both_declarations_are_told(
    broker: Broker, tmp_path: Path
) -> None:
    connection = await aio_pika.connect(broker.url)
    async with connection, connection.channel() as channel:
        await channel.declare_exchange(broker.exchange, "fanout", durable=False)
    async with proxy_before(broker.node.port) as proxy:
        told = await refused(
            tmp_path / "otherwise", f"amqp://guest:guest@{LOOPBACK}:{proxy.port}/{broker.vhost}"
        )
        assert proxy.accepted == 1
    assert "Ours: exchange 'clowder.metrics' (type 'fanout', durable 'true'" in told.line
    assert "received 'true' but current is 'false'" in told.line
    assert WAITED not in told.rest
