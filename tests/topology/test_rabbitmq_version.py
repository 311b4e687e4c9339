"""Brokers that are too old, or no RabbitMQ, are refused in one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pamqp import base, commands, frame

from topology.errors import SettingsError
from topology.rabbitmq.connection import Broker, end
from topology.rabbitmq.version import CAPABILITIES, features


@asynccontextmanager
async def broker_that_says(product: str, version: str) -> AsyncIterator[Broker]:
    """A server that does the first steps of AMQP, as far as an open connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        said = {"product": product, "version": version, "capabilities": {}}
        step: frame.FrameTypes = commands.Connection.Start(server_properties=said)  # type: ignore[arg-type]
        buffer = b""
        while step is not None:
            writer.write(frame.marshal(step, 0))
            asked: object = None
            while not isinstance(asked, base.Frame) or isinstance(asked, commands.Connection.TuneOk):
                buffer += await reader.read(4096)
                if not buffer:
                    break
                while buffer:
                    size, _, asked = frame.unmarshal(buffer)
                    buffer = buffer[size:]
            match asked:
                case commands.Connection.StartOk():
                    step = commands.Connection.Tune(channel_max=10, frame_max=131072, heartbeat=0)
                case commands.Connection.Open():
                    step = commands.Connection.OpenOk()
                case commands.Connection.Close():
                    step = commands.Connection.CloseOk()
                case _:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Broker(f"amqp://guest:guest@127.0.0.1:{port}/")
    finally:
        server.close()


@pytest.mark.parametrize(
    ("product", "version", "words"),
    [
        ("RabbitMQ", "3.8.9", r"RabbitMQ 3\.8\.9 has no streams: 3\.9 or later is needed"),
        ("Qpid", "9.1", "Qpid 9.1 is not RabbitMQ"),
    ],
)
async def test_a_broker_without_streams_is_refused_in_one_line(
    product: str, version: str, words: str
) -> None:
    async with broker_that_says(product, version) as broker:
        with pytest.raises(SettingsError, match=words) as refusal:
            await broker.connect("test")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("version", ["3.9.0", "3.10.8", "3.13.7", "4.0.0+2", "4.1.4", "10.0", "unreadable"])
async def test_newer_brokers_are_taken(version: str) -> None:
    async with broker_that_says("RabbitMQ", version) as broker:
        connection = await broker.connect("test")
        assert connection.features.version == version
        await end(connection)


def test_what_is_missing_is_named() -> None:
    said = features({"product": "RabbitMQ", "version": "4.1.4", "capabilities": {"publisher_confirms": True}})
    assert said.missing == (CAPABILITIES[0], CAPABILITIES[2])
    assert "without consumer_cancel_notify, connection.blocked" in str(said)


def test_properties_of_any_kind_are_read() -> None:
    assert features({"product": 5, "version": b"3.10.8", "capabilities": []}).version == "3.10.8"
