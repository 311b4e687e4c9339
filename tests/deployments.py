"""The two ways to run: embedded, and on RabbitMQ, InfluxDB and MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.processes import Instance
from tests.servers.influxdb import Influx


def embedded(folder: Path) -> Instance:
    """Nothing is set."""
    return Instance(folder)


def on_servers(folder: Path, request: pytest.FixtureRequest) -> Instance:
    """Every server is set, each with names of this test's own."""
    return Instance(folder, {**log_and_state(request), **rollups_in(request.getfixturevalue("influx"))})


def rollups_in(influx: Influx) -> Mapping[str, str]:
    """The settings of InfluxDB."""
    return {
        "EVENTSINK_INFLUX_URL": influx.url,
        "EVENTSINK_INFLUX_TOKEN": influx.token,
        "EVENTSINK_INFLUX_ORG": influx.org,
        "EVENTSINK_INFLUX_BUCKET": influx.bucket,
    }


def log_and_state(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The settings of RabbitMQ and MongoDB, for whoever needs no rollups."""
    broker = request.getfixturevalue("broker")
    mongo = request.getfixturevalue("mongo")
    return {
        "EVENTSINK_BROKER_URL": broker.url,
        "EVENTSINK_EXCHANGE": broker.exchange,
        "EVENTSINK_LOG_QUEUE": broker.queue,
        "EVENTSINK_MONGO_URL": mongo.url,
        "EVENTSINK_MONGO_DATABASE": mongo.database,
    }


BOTH = [
    pytest.param(lambda folder, request: embedded(folder), id="embedded"),
    pytest.param(on_servers, id="servers", marks=pytest.mark.servers),
]

Deployment = Callable[[Path, pytest.FixtureRequest], Instance]
