"""``send`` and ``check`` on a real broker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import eventsink
from tests.cli.gate import gate_before
from tests.servers.rabbitmq import Broker
from topology.log import NDJSON, Message
from topology.rabbitmq.log import RabbitLog

pytestmark = [pytest.mark.servers, pytest.mark.timeout(360)]

SAMPLE = Path(__file__).parents[1] / "data" / "clowder-6h.jsonl"


def environment(broker: Broker) -> dict[str, str]:
    return {
        "EVENTSINK_BROKER_URL": broker.url,
        "EVENTSINK_EXCHANGE": broker.exchange,
        "EVENTSINK_LOG_QUEUE": broker.queue,
    }


def lines_in(broker: Broker, count: int) -> list[bytes]:
    """All lines of the log, once there are ``count``."""

    async def read_all() -> Sequence[Message]:
        log = RabbitLog(broker.url, broker.exchange, broker.queue)
        await log.open()
        messages: list[Message] = []
        try:
            reader = await log.reader(0)
            async with asyncio.timeout(60):
                while sum(message.body.count(b"\n") + 1 for message in messages) < count:
                    messages += await reader.fetch(limit=1000, max_bytes=10**8, timeout=timedelta(seconds=1))
            await reader.close()
        finally:
            await log.close()
        return messages

    messages = asyncio.run(read_all())
    assert {message.content_type for message in messages} == {NDJSON}
    return [line for message in messages for line in message.body.split(b"\n")]


def test_the_sample_is_in_the_stream_byte_for_byte(broker: Broker, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    result = CliRunner().invoke(
        eventsink, ["send", "--data", str(folder), str(SAMPLE)], env=environment(broker)
    )
    assert (result.exit_code, result.stdout) == (0, "sent 3059, refused 0\n"), result.stderr
    assert lines_in(broker, 3059) == SAMPLE.read_bytes().splitlines()
    assert not folder.exists()


def test_a_broker_that_is_away_for_a_while_is_waited_for_and_nothing_is_missing(
    broker: Broker, tmp_path: Path
) -> None:
    lines = SAMPLE.read_bytes().splitlines(keepends=True)
    with gate_before(broker.node.port) as gate:
        url = f"amqp://guest:guest@127.0.0.1:{gate.port}/{broker.vhost}"
        with subprocess.Popen(
            [sys.executable, "-m", "cli.main", "send", "--data", str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment(broker), "EVENTSINK_BROKER_URL": url},
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(b"".join(lines[:10]))
            process.stdin.flush()
            assert len(lines_in(broker, 10)) == 10
            gate.shut()
            process.stdin.write(b"".join(lines[10:200]))  # less than a pipe holds: nobody reads on meanwhile
            process.stdin.flush()
            said = next(line for line in process.stderr if line.startswith(b"trying again"))
            gate.open()
            process.stdin.write(b"".join(lines[200:]))
            process.stdin.close()
            assert process.stdout.read() == b"sent 3059, refused 0\n", process.stderr.read()
    assert said.startswith(b"trying again for 30 s: amqp://guest:***@")
    # A message that was on its way may be there twice, with one id.
    assert set(lines_in(broker, 3059)) == {line.rstrip(b"\n") for line in lines}


def test_check_reaches_the_broker_and_declares_nothing(broker: Broker, tmp_path: Path) -> None:
    def check() -> str:
        result = CliRunner().invoke(eventsink, ["check", "--data", str(tmp_path)], env=environment(broker))
        assert result.exit_code == 0, result.stderr
        assert "guest:***@" in result.stdout
        return result.stdout

    assert "would be declared" in check()
    assert broker.node.ctl("list_queues", "-p", broker.vhost, "name").split() in ([], ["name"])
    CliRunner().invoke(
        eventsink,
        ["send", "--data", str(tmp_path)],
        input=b'{"type":"activity.logged_in"}',
        env=environment(broker),
    )
    assert "stream eventsink.log is there" in check()


def test_a_wrong_password_is_one_line_at_once(broker: Broker, tmp_path: Path) -> None:
    wrong = broker.node.url(broker.vhost, password="wrong-password")
    for command in (["check"], ["send", str(SAMPLE)]):
        result = CliRunner().invoke(
            eventsink, [*command, "--data", str(tmp_path)], env={"EVENTSINK_BROKER_URL": wrong}
        )
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "EVENTSINK_BROKER_URL" in result.stderr
        assert "wrong-password" not in result.output
