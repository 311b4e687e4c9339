from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from cli.secret import SecretUrl
from cli.settings import Settings, TlsSettings, WebSettings, load
from cli.settings_sources import NAMES
from topology.errors import SettingsError
from topology.forwarding.selection import Rule

SECRET = "hunter2-hunter2"


def loaded(values: Mapping[str, str], file: Path | None = None) -> Settings:
    return load({"EVENTSINK_DATA": "/srv/eventsink", **values}, file)


def refusal(values: Mapping[str, str], file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(values, file)
    return str(caught.value)


# -- defaults --


def test_nothing_set_is_everything_embedded_in_the_folder_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load({})
    assert settings.data == tmp_path / "data"
    assert settings.log.embedded
    assert settings.log.url == SecretUrl(f"sqlite://{tmp_path}/data/eventsink.db")
    assert settings.log.url.path == settings.database_file == settings.state_file
    assert (settings.log.exchange, settings.log.queue) == ("clowder.metrics", "eventsink.log")
    assert (settings.log.max_age, settings.log.max_bytes) == ("14D", 20 * 10**9)
    assert (settings.influx, settings.mongo, settings.state) == (None, None, None)
    assert (settings.amplitude, settings.google, settings.webhook) == (None, None, None)
    assert (settings.keep, settings.key_budget) == (timedelta(days=35), 10_000)
    assert settings.spool_max_bytes == 10**9
    assert settings.keys_file == tmp_path / "data" / "keys.json"
    assert settings.web == WebSettings(
        key_rate=100, key_burst=200, max_connections=10_000, trusted_proxies=(), cors_origins=(), tls=None
    )
    assert settings.checkpoint_every == timedelta(seconds=1)
    assert settings.log_format is None


def test_every_variable_is_read() -> None:
    settings = loaded(
        {
            "EVENTSINK_BROKER_URL": "amqp://user:pw@mq/v",
            "EVENTSINK_EXCHANGE": "x",
            "EVENTSINK_LOG_QUEUE": "q",
            "EVENTSINK_LOG_MAX_AGE": "3h",
            "EVENTSINK_LOG_MAX_BYTES": "1GB",
            "EVENTSINK_INFLUX_URL": "http://influx:8086",
            "EVENTSINK_INFLUX_TOKEN": SECRET,
            "EVENTSINK_INFLUX_ORG": "o",
            "EVENTSINK_INFLUX_BUCKET": "b",
            "EVENTSINK_MONGO_URL": "mongodb://a:27017,b:27017/?replicaSet=rs",
            "EVENTSINK_MONGO_DATABASE": "d",
            "EVENTSINK_STATE_URL": "sqlite:///var/state.db",
            "EVENTSINK_KEEP": "36500d",
            "EVENTSINK_KEY_BUDGET": "7",
            "EVENTSINK_AMPLITUDE_API_KEY": SECRET,
            "EVENTSINK_AMPLITUDE_URL": "https://amplitude.test",
            "EVENTSINK_GA_MEASUREMENT_ID": "G-1",
            "EVENTSINK_GA_API_SECRET": SECRET,
            "EVENTSINK_GA_URL": "https://ga.test",
            "EVENTSINK_AMPLITUDE_EVENTS": "traffic.*=0.25, activity.logged_in",
            "EVENTSINK_GA_EVENTS": "traffic.page_viewed",
            "EVENTSINK_GA_VALIDATE": "1",
            "EVENTSINK_WEBHOOK_URL": "https://hook.test/?token=t",
            "EVENTSINK_WEBHOOK_SECRET": SECRET,
            "EVENTSINK_WEBHOOK_EVENTS": "storage.*=.5",
            "EVENTSINK_KEYS_FILE": "/etc/keys.json",
            "EVENTSINK_SPOOL_MAX_BYTES": "5MB",
            "EVENTSINK_KEY_RATE": "7",
            "EVENTSINK_KEY_BURST": "9",
            "EVENTSINK_WEB_MAX_CONNECTIONS": "50",
            "EVENTSINK_TRUSTED_PROXIES": "127.0.0.1, 10.1.2.3/8,fd00::/8",
            "EVENTSINK_CORS_ORIGINS": "https://a.example, http://[::1]:3000",
            "EVENTSINK_TLS_CERT": "/etc/cert.pem",
            "EVENTSINK_TLS_KEY": "/etc/key.pem",
            "EVENTSINK_CHECKPOINT_EVERY": "250ms",
            "EVENTSINK_LOG_FORMAT": "json",
        }
    )
    assert settings.log.url.reveal() == "amqp://user:pw@mq/v"
    assert not settings.log.embedded
    assert (settings.log.exchange, settings.log.queue) == ("x", "q")
    assert (settings.log.max_age, settings.log.max_bytes) == ("3h", 10**9)
    assert settings.influx is not None
    assert settings.influx.url.reveal() == "http://influx:8086"
    assert (settings.influx.token.reveal(), settings.influx.org, settings.influx.bucket) == (SECRET, "o", "b")
    assert settings.mongo is not None
    assert settings.mongo.database == "d"
    assert (settings.state, settings.state_file) == (None, Path("/var/state.db"))
    assert (settings.keep, settings.key_budget) == (timedelta(days=36500), 7)
    assert settings.spool_max_bytes == 5 * 10**6
    assert settings.amplitude is not None
    assert settings.amplitude.api_key.reveal() == SECRET
    assert settings.amplitude.events == (Rule("traffic.*", 0.25), Rule("activity.logged_in"))
    assert settings.google is not None
    assert (settings.google.events, settings.google.validate) == ((Rule("traffic.page_viewed"),), True)
    assert settings.webhook is not None
    assert settings.webhook.secret.reveal() == SECRET
    assert settings.webhook.events == (Rule("storage.*", 0.5),)
    assert str(settings.webhook.url) == "https://hook.test/"
    assert (settings.google.measurement_id, settings.google.api_secret.reveal()) == ("G-1", SECRET)
    assert settings.keys_file == Path("/etc/keys.json")
    assert settings.web == WebSettings(
        key_rate=7,
        key_burst=9,
        max_connections=50,
        trusted_proxies=tuple(map(ip_network, ("127.0.0.1/32", "10.0.0.0/8", "fd00::/8"))),
        cors_origins=("https://a.example", "http://[::1]:3000"),
        tls=TlsSettings(cert=Path("/etc/cert.pem"), key=Path("/etc/key.pem")),
    )
    assert settings.checkpoint_every == timedelta(milliseconds=250)
    assert settings.log_format == "json"


def test_state_follows_mongodb_unless_it_is_told_otherwise() -> None:
    mongo = {"EVENTSINK_MONGO_URL": "mongodb://m"}
    assert loaded(mongo).state == loaded(mongo).mongo
    other = loaded({**mongo, "EVENTSINK_STATE_URL": "mongodb://other"}).state
    assert other is not None
    assert other.url.reveal() == "mongodb://other"
    assert loaded({"EVENTSINK_STATE_URL": "mongodb://other"}).mongo is None


def test_a_data_folder_with_odd_characters_is_the_file_that_is_opened() -> None:
    settings = load({"EVENTSINK_DATA": "/srv/50% #1?/ü"})
    assert settings.log.url.path == Path("/srv/50% #1?/ü/eventsink.db") == settings.database_file


def test_an_option_goes_before_the_environment() -> None:
    assert load({"EVENTSINK_DATA": "/a"}, data=Path("/b")).data == Path("/b")


# -- values --


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", timedelta(seconds=1)),
        ("500ms", timedelta(milliseconds=500)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("35d", timedelta(days=35)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert loaded({"EVENTSINK_KEEP": text}).keep == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("14D", timedelta(days=14)),
        ("1Y", timedelta(days=365)),
        ("2M", timedelta(days=60)),
        ("36h", timedelta(hours=36)),
        ("90m", timedelta(minutes=90)),
        ("30s", timedelta(seconds=30)),
        ("999999Y", timedelta(days=365 * 999_999)),
    ],
)
def test_ages_as_rabbitmq_writes_them(text: str, expected: timedelta) -> None:
    log = loaded({"EVENTSINK_LOG_MAX_AGE": text}).log
    assert (log.max_age, log.max_age_span) == (text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20GB", 20 * 10**9),
        ("1GB", 10**9),
        ("512MB", 512 * 10**6),
        ("1GiB", 2**30),
        ("500 kb", 500_000),
        ("1000", 1000),
        ("1TB", 10**12),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert loaded({"EVENTSINK_LOG_MAX_BYTES": text}).log.max_bytes == expected


@pytest.mark.parametrize(
    ("name", "value", "should"),
    [
        ("EVENTSINK_KEEP", "35", "35d"),
        ("EVENTSINK_KEEP", "0d", "35d"),
        ("EVENTSINK_KEEP", "-1d", "35d"),
        ("EVENTSINK_KEEP", "1.5d", "35d"),
        ("EVENTSINK_KEEP", "999999999999d", "35d"),
        ("EVENTSINK_KEEP", "35D", "35d"),
        ("EVENTSINK_CHECKPOINT_EVERY", "soon", "1s"),
        ("EVENTSINK_LOG_MAX_AGE", "14d", "14D"),
        ("EVENTSINK_LOG_MAX_AGE", "0D", "14D"),
        ("EVENTSINK_LOG_MAX_BYTES", "20XB", "20GB"),
        ("EVENTSINK_LOG_MAX_BYTES", "0", "20GB"),
        ("EVENTSINK_LOG_MAX_BYTES", "99999999999TB", "20GB"),
        ("EVENTSINK_KEY_BUDGET", "0", "from 1 up"),
        ("EVENTSINK_KEY_BUDGET", "many", "whole number"),
        ("EVENTSINK_KEY_BUDGET", "\u0661\u0662", "whole number"),
        ("EVENTSINK_LOG_FORMAT", "xml", "text or json"),
        ("EVENTSINK_EXCHANGE", "x" * 256, "255 bytes"),
        ("EVENTSINK_MONGO_DATABASE", "a.b", "63 bytes"),
        ("EVENTSINK_BROKER_URL", "kafka://broker", "amqp://"),
        ("EVENTSINK_BROKER_URL", "localhost", "amqp://"),
        ("EVENTSINK_BROKER_URL", "amqp://", "host"),
        ("EVENTSINK_BROKER_URL", "amqp://host:port/", "port"),
        ("EVENTSINK_BROKER_URL", "amqp://host:99999/", "port"),
        ("EVENTSINK_BROKER_URL", "sqlite:relative.db", "sqlite://"),
        ("EVENTSINK_BROKER_URL", "sqlite://relative.db", "absolute"),
        ("EVENTSINK_BROKER_URL", "sqlite:///", "absolute"),
        ("EVENTSINK_INFLUX_URL", "influx:8086", "http://"),
        ("EVENTSINK_INFLUX_URL", "http://[::1", "valid"),
        ("EVENTSINK_MONGO_URL", "http://mongo", "mongodb://"),
        ("EVENTSINK_STATE_URL", "postgres://x", "sqlite://"),
        ("EVENTSINK_GA_URL", "ftp://x", "https://"),
        ("EVENTSINK_AMPLITUDE_URL", "x", "https://"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(name: str, value: str, should: str) -> None:
    message = refusal({name: value})
    assert message.startswith(name)
    assert should in message
    assert "\n" not in message
    assert len(message) < 250


def test_an_empty_value_counts_as_not_set() -> None:
    assert loaded({"EVENTSINK_INFLUX_URL": "", "EVENTSINK_KEEP": "  "}) == loaded({})


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("EVENTSINK_GA_MEASUREMENT_ID", "EVENTSINK_GA_API_SECRET"),
        ("EVENTSINK_GA_API_SECRET", "EVENTSINK_GA_MEASUREMENT_ID"),
    ],
)
def test_half_of_google_analytics_is_an_error(given: str, missing: str) -> None:
    message = refusal({given: SECRET})
    assert message.startswith(f"{missing} is missing")
    assert SECRET not in message


# -- names --


def test_an_unknown_name_is_an_error_that_names_it_and_what_may_be_meant() -> None:
    message = refusal({"EVENTSINK_BROKER_URI": f"amqp://u:{SECRET}@h"})
    assert "EVENTSINK_BROKER_URI" in message
    assert "EVENTSINK_BROKER_URL?" in message
    assert SECRET not in message


def test_names_of_the_tests_and_of_others_are_ignored() -> None:
    loaded({"EVENTSINK_TEST_MONGO_URL": "x", "PATH": "/bin", "EVENTSINKS": "no"})


def test_names_are_those_of_the_contract() -> None:
    assert len(NAMES) == 40
    assert all(name.startswith("EVENTSINK_") for name in NAMES)


@pytest.mark.parametrize(
    "value", ["health.*", "nothing.such", "traffic.*=2", "traffic.*=", "traffic.*=-1", "=0.5"]
)
def test_what_can_never_be_forwarded_is_refused(value: str) -> None:
    said = refusal({"EVENTSINK_GA_EVENTS": value})
    assert said.startswith("EVENTSINK_GA_EVENTS ")
    assert "traffic.*=0.1" in said


@pytest.mark.parametrize("given", ["EVENTSINK_WEBHOOK_URL", "EVENTSINK_WEBHOOK_SECRET"])
def test_a_webhook_needs_both(given: str) -> None:
    value = {"EVENTSINK_WEBHOOK_URL": "https://hook.test/", "EVENTSINK_WEBHOOK_SECRET": SECRET}[given]
    assert "is missing" in refusal({given: value})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PORT", "--host and --port"),
        ("WEB_HOST", "--host and --port"),
        ("INFLUX_TOKN", "did you mean EVENTSINK_INFLUX_TOKEN?"),
        ("MONGO", "did you mean EVENTSINK_MONGO_URL?"),
        ("RABBITMQ_URL", "did you mean EVENTSINK_BROKER_URL?"),
        ("DATA_DIR", "did you mean EVENTSINK_DATA?"),
        ("LOG_LEVEL", "lists the names"),
        ("DEBUG", "lists the names"),
    ],
)
def test_a_name_that_is_none_is_put_right_where_it_can_be(name: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=f"EVENTSINK_{name} in the environment is no setting: ") as caught:
        loaded({f"EVENTSINK_{name}": "8080"})
    assert str(caught.value).count("EVENTSINK_") == (2 if "EVENTSINK_" in hint else 1)
    assert hint in str(caught.value)


def test_settings_are_frozen() -> None:
    settings = loaded({})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.keep = timedelta(0)  # type: ignore[misc]


@pytest.mark.parametrize("text", ["first", "last"])
def test_where_the_log_begins_may_be_a_word(text: str) -> None:
    assert loaded({"EVENTSINK_LOG_START": text}).log.start == text


def test_where_the_log_begins_may_be_a_time() -> None:
    at = loaded({"EVENTSINK_LOG_START": "2026-01-31T12:00:00+01:00"}).log.start
    assert at == datetime(2026, 1, 31, 11, tzinfo=UTC)
    at = loaded({"EVENTSINK_LOG_START": "2026-01-31"}).log.start
    assert at == datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize("text", ["next", "yesterday", "2026-01-31T12:00:00", "5"])
def test_where_the_log_begins_is_nothing_else(text: str) -> None:
    with pytest.raises(SettingsError, match=r"EVENTSINK_LOG_START .*first, last or a time"):
        loaded({"EVENTSINK_LOG_START": text})


def test_a_start_that_is_yet_to_come_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"EVENTSINK_LOG_START .*yet to come"):
        loaded({"EVENTSINK_LOG_START": "2999-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("EVENTSINK_KEY_RATE", "0"),
        ("EVENTSINK_KEY_BURST", "many"),
        ("EVENTSINK_WEB_MAX_CONNECTIONS", "-1"),
        ("EVENTSINK_TRUSTED_PROXIES", "proxy.example"),
        ("EVENTSINK_TRUSTED_PROXIES", "127.0.0.1/33"),
        ("EVENTSINK_CORS_ORIGINS", "*"),
        ("EVENTSINK_CORS_ORIGINS", "null"),
        ("EVENTSINK_CORS_ORIGINS", "status.example"),
        ("EVENTSINK_CORS_ORIGINS", "https://status.example/"),
        ("EVENTSINK_CORS_ORIGINS", "https://Status.example"),
        ("EVENTSINK_CORS_ORIGINS", "https://a.example,https://b.example/x"),
    ],
)
def test_what_the_web_application_cannot_take_is_refused(name: str, text: str) -> None:
    assert refusal({name: text}).startswith(f"{name} is {text!r}: write ")


@pytest.mark.parametrize(
    ("set_", "missing"),
    [("EVENTSINK_TLS_CERT", "EVENTSINK_TLS_KEY"), ("EVENTSINK_TLS_KEY", "EVENTSINK_TLS_CERT")],
)
def test_a_certificate_and_its_key_go_together(set_: str, missing: str) -> None:
    assert refusal({set_: "/etc/file.pem"}).startswith(f"{missing} is missing")
