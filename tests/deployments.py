"""The two ways to run: embedded, and on RabbitMQ, InfluxDB and MongoDB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import Instance


def embedded(folder: Path) -> Instance:
    """Nothing is set."""
    return Instance(folder)


def on_servers(folder: Path, request: pytest.FixtureRequest) -> Instance:
    """Every server is set, each with names of this test's own."""
    broker = request.getfixturevalue("broker")
    influx = request.getfixturevalue("influx")
    mongo = request.getfixturevalue("mongo")
    return Instance(
        folder,
        {
            "EVENTSINK_BROKER_URL": broker.url,
            "EVENTSINK_EXCHANGE": broker.exchange,
            "EVENTSINK_LOG_QUEUE": broker.queue,
            "EVENTSINK_INFLUX_URL": influx.url,
            "EVENTSINK_INFLUX_TOKEN": influx.token,
            "EVENTSINK_INFLUX_ORG": influx.org,
            "EVENTSINK_INFLUX_BUCKET": influx.bucket,
            "EVENTSINK_MONGO_URL": mongo.url,
            "EVENTSINK_MONGO_DATABASE": mongo.database,
        },
    )


BOTH = [
    pytest.param(lambda folder, request: embedded(folder), id="embedded"),
    pytest.param(on_servers, id="servers", marks=pytest.mark.servers),
]

Deployment = Callable[[Path, pytest.FixtureRequest], Instance]
