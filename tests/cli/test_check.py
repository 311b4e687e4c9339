from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import eventsink
from cli.settings_sources import NAMES
from tests.servers.influxdb import Influx
from tests.servers.mongo import Mongo
from tests.servers.rabbitmq import Broker

SECRET = "secret-password"


def check(folder: Path, **settings: str) -> Result:
    return CliRunner().invoke(eventsink, ["check", "--data", str(folder)], env=settings)


def test_all_well_says_what_would_be_done_and_makes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    result = check(folder)
    assert result.exit_code == 0, result.stderr
    assert "would be made" in result.stdout
    assert "`eventsink up` would read the embedded log" in result.stdout
    assert not folder.exists()


def test_what_is_there_is_looked_at(tmp_path: Path) -> None:
    runner = CliRunner()
    runner.invoke(eventsink, ["send", "--data", str(tmp_path)], input=b'{"type":"activity.logged_in"}')
    runner.invoke(eventsink, ["keys", "create", "--name", "a", "--scopes", "read", "--data", str(tmp_path)])
    result = check(tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "embedded, ok" in result.stdout
    assert "1 key" in result.stdout


def test_every_server_that_is_not_there_is_named_without_its_password(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    result = check(
        tmp_path,
        EVENTSINK_BROKER_URL=f"amqp://user:{SECRET}@{nobody}/",
        EVENTSINK_INFLUX_URL=f"http://{nobody}",
        EVENTSINK_INFLUX_TOKEN=SECRET,
        EVENTSINK_MONGO_URL=f"mongodb://user:{SECRET}@{nobody}/",
    )
    assert result.exit_code == 1
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "log",
        "rollups",
        "raw events",
        "state",
    ]
    assert result.stdout.count("FAILED") == 4
    assert "would read" not in result.stdout
    assert SECRET not in result.output


def test_a_broker_that_says_nothing_may_be_no_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.check.ANSWER_WITHIN_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = check(tmp_path, EVENTSINK_BROKER_URL=f"amqp://127.0.0.1:{silent.getsockname()[1]}/")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "does not answer" in line
    assert line.endswith("or is that no AMQP port, or one with TLS (amqps)?")


def test_files_of_others_are_named(tmp_path: Path) -> None:
    (tmp_path / "eventsink.db").write_bytes(b"not a database " * 100)
    (tmp_path / "keys.json").write_text("{")
    result = check(tmp_path)
    assert result.exit_code == 1
    assert "eventsink.db" in result.stderr
    assert "keys.json" in result.stderr


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = check(tmp_path / "file" / "data")
    assert result.exit_code == 1
    assert f"data folder: {tmp_path / 'file'}" in result.stderr


def test_what_would_be_forwarded_where_is_told_without_a_secret(tmp_path: Path) -> None:
    result = check(
        tmp_path,
        EVENTSINK_AMPLITUDE_API_KEY=SECRET,
        EVENTSINK_AMPLITUDE_EVENTS="activity.*,traffic.*=0.25",
        EVENTSINK_GA_MEASUREMENT_ID="G-1",
        EVENTSINK_GA_API_SECRET=SECRET,
        EVENTSINK_WEBHOOK_URL=f"https://user:{SECRET}@hook.test/in?token={SECRET}",
        EVENTSINK_WEBHOOK_SECRET=SECRET,
    )
    assert result.exit_code == 0, result.stderr
    assert (
        "Agent amplitude would send to https://api2.amplitude.com/batch:\n"
        "  traffic.    page_viewed, resource_viewed, resource_downloaded (of 25% of the users)\n"
        "  activity.   signed_up, logged_in, resource_created\n"
    ) in result.stdout
    assert "Agent google would send to https://www.google-analytics.com/mp/collect:\n" in result.stdout
    assert "Agent webhook would send to https://hook.test/in:\n" in result.stdout
    told = result.stdout[result.stdout.index("Agent amplitude") :].splitlines()
    assert max(map(len, told)) <= 100
    assert "health." not in result.stdout
    assert SECRET not in result.output


def test_everything_that_is_wrong_is_told_at_once_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('EVENTSINK_KEEEP = "35d"\nEVENTSINK_KEY_RATE = 1.5\n')
    result = check(
        tmp_path,
        EVENTSINK_SETTINGS=str(tmp_path / "settings.toml"),
        EVENTSINK_BROKER_URL="rabbit.example",
        EVENTSINK_KEY_BURST="many",
        EVENTSINK_WEBHOOK_URL="nowhere",
        EVENTSINK_WEBHOOK_SECRET=SECRET,
        EVENTSINK_TLS_CERT="cert.pem",
    )
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert all(line.startswith("eventsink: EVENTSINK_") for line in lines)
    # Of the webhook's secret, which is right, nothing is said.
    assert [line.split()[1] for line in lines] == [
        "EVENTSINK_KEEEP",
        "EVENTSINK_KEY_RATE",
        "EVENTSINK_WEBHOOK_URL",
        "EVENTSINK_BROKER_URL",
        "EVENTSINK_KEY_BURST",
        "EVENTSINK_TLS_KEY",
    ]
    assert SECRET not in result.output


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_help_lists_the_settings(name: str) -> None:
    assert name in CliRunner().invoke(eventsink, ["check", "--help"]).stdout


@pytest.mark.servers
@pytest.mark.timeout(360)
def test_every_server_that_is_there_is_reached(
    broker: Broker, influx: Influx, mongo: Mongo, tmp_path: Path
) -> None:
    servers = {
        "EVENTSINK_BROKER_URL": broker.url,
        "EVENTSINK_INFLUX_URL": influx.url,
        "EVENTSINK_INFLUX_TOKEN": influx.token,
        "EVENTSINK_INFLUX_ORG": influx.org,
        "EVENTSINK_INFLUX_BUCKET": influx.bucket,
        "EVENTSINK_MONGO_URL": mongo.url,
        "EVENTSINK_MONGO_DATABASE": mongo.database,
    }
    result = check(tmp_path, **servers)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("reached") == 4
    assert "write rollups to InfluxDB and raw events to MongoDB" in result.stdout
    assert influx.token not in result.output

    wrong = check(tmp_path, **servers | {"EVENTSINK_INFLUX_TOKEN": "wrong:wrong-token"})
    assert wrong.exit_code == 1
    assert wrong.stderr.startswith("eventsink: rollups: ")
    assert "wrong-token" not in wrong.output


@pytest.mark.servers
def test_a_broker_says_what_it_is_and_can(broker: Broker, tmp_path: Path) -> None:
    result = check(tmp_path, EVENTSINK_BROKER_URL=broker.url)
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert re.search(r"RabbitMQ \d+\.\d+", said)
    for capability in ("streams", "publisher_confirms"):
        assert capability in said
