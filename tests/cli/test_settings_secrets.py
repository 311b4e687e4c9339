"""The file of settings, and what is never shown of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cli.secret import Secret, SecretUrl, shown
from cli.settings import load
from tests.cli.test_settings import SECRET, loaded, refusal
from topology.errors import SettingsError


def written(folder: Path, toml: str) -> Path:
    file = folder / "eventsink.toml"
    file.write_text(toml, encoding="utf-8")
    return file


def test_a_file_holds_the_same_names_and_the_environment_wins(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'EVENTSINK_KEEP = "7d"\nEVENTSINK_KEY_BUDGET = 5\nEVENTSINK_EXCHANGE = "of-file"\n'
        'EVENTSINK_TEST_X = true\nEVENTSINK_INFLUX_URL = ""\n',
    )
    settings = loaded({"EVENTSINK_EXCHANGE": "of-environment"}, file)
    assert (settings.keep, settings.key_budget) == (timedelta(days=7), 5)
    assert settings.log.exchange == "of-environment"
    assert settings.influx is None
    assert loaded({"EVENTSINK_SETTINGS": str(file)}).keep == timedelta(days=7)


def test_the_option_goes_before_the_variable_that_names_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'EVENTSINK_KEEP = "7d"')
    assert loaded({"EVENTSINK_SETTINGS": "/nowhere"}, file).keep == timedelta(days=7)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('EVENTSINK_KEEP = "7d', ["not TOML", "Unterminated"]),
        (f'EVENTSINK_INFLUX_TOKN = "{SECRET}"', ["EVENTSINK_INFLUX_TOKN", "EVENTSINK_INFLUX_TOKEN?"]),
        ('keep = "7d"', ["keep", "no setting"]),
        ("EVENTSINK_KEEP = 7.5", ["EVENTSINK_KEEP", "float", "string"]),
        ("EVENTSINK_KEEP = true", ["EVENTSINK_KEEP", "string"]),
        (f'[EVENTSINK_INFLUX_TOKEN]\nx = "{SECRET}"', ["EVENTSINK_INFLUX_TOKEN", "string"]),
        (f'EVENTSINK_INFLUX_TOKEN = "{SECRET}" x', ["not TOML", "nothing behind it"]),
        (
            f"#\nEVENTSINK_INFLUX_TOKEN={SECRET}",
            ["line 2", 'write EVENTSINK_INFLUX_TOKEN = "VALUE", a text in quotes'],
        ),
        (f"export EVENTSINK_INFLUX_TOKEN={SECRET}", ['write NAME = "VALUE", one a line']),
        ('EVENTSINK_KEEP = "7d"\nEVENTSINK_KEEP = "8d"', ["EVENTSINK_KEEP is there twice"]),
        ('EVENTSINK_SETTINGS = "other.toml"', ["EVENTSINK_SETTINGS", "no meaning"]),
        ('EVENTSINK_KEEP = "soon"', ["EVENTSINK_KEEP", "35d"]),
    ],
)
def test_a_wrong_file_is_one_line_without_its_secrets(tmp_path: Path, toml: str, words: list[str]) -> None:
    message = refusal({}, written(tmp_path, toml))
    assert all(word in message for word in words), message
    assert SECRET not in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.toml") in refusal({}, tmp_path / "none.toml")
    assert str(tmp_path) in refusal({}, tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'EVENTSINK_EXCHANGE = "\xfc"')
    assert "UTF-8" in refusal({}, tmp_path / "latin.toml")


# -- secrets --


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://user:pw@mq:5672/v", "amqp://user:***@mq:5672/v"),
        ("amqp://mq/v", "amqp://mq/v"),
        ("amqp://token@mq", "amqp://***@mq"),
        ("amqp://user:p/w#x?y@z@mq/v", "amqp://user:***@mq/v"),
        ("mongodb://u:p@a,b/d?authMechanismProperties=AWS_SESSION_TOKEN:x", "mongodb://u:***@a,b/d"),
        ("https://ga.test/mp/collect?api_secret=x", "https://ga.test/mp/collect"),
        ("sqlite:///srv/data/eventsink.db", "sqlite:///srv/data/eventsink.db"),
        ("pw", "***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, expected: str) -> None:
    assert shown(url) == expected
    assert str(SecretUrl(url)) == expected


def test_no_secret_in_any_form_of_the_settings() -> None:
    settings = loaded(
        {
            "EVENTSINK_BROKER_URL": f"amqp://user:{SECRET}@mq/v",
            "EVENTSINK_INFLUX_URL": f"http://user:{SECRET}@influx",
            "EVENTSINK_INFLUX_TOKEN": SECRET,
            "EVENTSINK_MONGO_URL": f"mongodb://user:{SECRET}@mongo",
            "EVENTSINK_STATE_URL": f"mongodb://user:{SECRET}@mongo",
            "EVENTSINK_AMPLITUDE_API_KEY": SECRET,
            "EVENTSINK_GA_MEASUREMENT_ID": "G-1",
            "EVENTSINK_GA_API_SECRET": SECRET,
        }
    )
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert SECRET not in f"{settings.influx}"
    assert settings.secrets == {SECRET}
    assert SECRET not in f"{Secret(SECRET)} {Secret(SECRET)!r}"


@pytest.mark.parametrize(
    "name",
    ["EVENTSINK_BROKER_URL", "EVENTSINK_INFLUX_URL", "EVENTSINK_MONGO_URL", "EVENTSINK_STATE_URL"],
)
@pytest.mark.parametrize("value", [f"ftp://user:{SECRET}@host", f"//{SECRET}", SECRET])
def test_a_wrong_url_is_refused_without_being_repeated(name: str, value: str) -> None:
    assert SECRET not in refusal({name: value})


@pytest.mark.parametrize(
    "address", ["https://u:secret@a.example", "https://a.example/?t=secret", "https://a/#secret"]
)
@pytest.mark.parametrize("name", ["EVENTSINK_AMPLITUDE_URL", "EVENTSINK_GA_URL"])
def test_the_address_of_a_vendor_holds_nothing_that_may_not_be_seen(name: str, address: str) -> None:
    with pytest.raises(SettingsError, match=name) as refused:
        load({name: address, "EVENTSINK_GA_MEASUREMENT_ID": "G-1", "EVENTSINK_GA_API_SECRET": "x"})
    assert "secret@" not in str(refused.value)
    assert "=secret" not in str(refused.value)


def test_a_password_that_breaks_the_url_is_not_repeated() -> None:
    assert SECRET not in refusal({"EVENTSINK_BROKER_URL": f"amqp://user:{SECRET}:x/"})
