"""Where settings come from: variables of the environment and of a TOML file, by their names, as text. Whether a value
is right is for ``settings``."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from topology.errors import SettingsError

PREFIX = "EVENTSINK_"
#: Read by the tests only, so that one environment serves both.
IGNORED_PREFIX = "EVENTSINK_TEST_"
#: Where the settings file is; has no meaning inside one.
FILE_VARIABLE = "EVENTSINK_SETTINGS"

#: What each is and its default, for the help.
MEANINGS: Mapping[str, str] = {
    FILE_VARIABLE: "TOML file with these names",
    "EVENTSINK_DATA": "folder of what is embedded, and of keys [./data]",
    "EVENTSINK_BROKER_URL": "amqp://USER:PASSWORD@HOST/VHOST, amqps://… [embedded]",
    "EVENTSINK_EXCHANGE": "fanout exchange of the events [clowder.metrics]",
    "EVENTSINK_LOG_QUEUE": "stream queue of the log [eventsink.log]",
    "EVENTSINK_LOG_MAX_AGE": "how long the log keeps events [14D]",
    "EVENTSINK_LOG_MAX_BYTES": "how much the log keeps [20GB]",
    "EVENTSINK_LOG_START": "where a new group begins: first, last or a time [first]",
    "EVENTSINK_INFLUX_URL": "server of the rollups [embedded]",
    "EVENTSINK_INFLUX_TOKEN": "its token",
    "EVENTSINK_INFLUX_ORG": "its organisation [eventsink]",
    "EVENTSINK_INFLUX_BUCKET": "its bucket [eventsink]",
    "EVENTSINK_MONGO_URL": "server of raw events and dead letters, mongodb://… [embedded]",
    "EVENTSINK_MONGO_DATABASE": "its database [eventsink]",
    "EVENTSINK_STATE_URL": "rows and positions, mongodb://… or sqlite:///PATH [as raw events]",
    "EVENTSINK_KEEP": "how late an event may correct its window [35d]",
    "EVENTSINK_KEY_BUDGET": "distinct values a day of one key tag [10000]",
    "EVENTSINK_DOUBLED_DOWNLOADS_ONCE": "count a download once that Clowder logs twice [false]",
    "EVENTSINK_AMPLITUDE_API_KEY": "key of Amplitude [off]",
    "EVENTSINK_AMPLITUDE_URL": "its endpoint [https://api2.amplitude.com/batch]",
    "EVENTSINK_AMPLITUDE_EVENTS": "types, share of users: traffic.*=0.1,… [all but health.*]",
    "EVENTSINK_GA_MEASUREMENT_ID": "measurement of Google Analytics 4 [off]",
    "EVENTSINK_GA_API_SECRET": "its secret",
    "EVENTSINK_GA_URL": "its endpoint [https://www.google-analytics.com/mp/collect]",
    "EVENTSINK_GA_EVENTS": "types, and the share of users [all but health.*]",
    "EVENTSINK_GA_VALIDATE": "1: let it look at each shape at the start [0]",
    "EVENTSINK_WEBHOOK_URL": "a server of your own that takes events [off]",
    "EVENTSINK_WEBHOOK_SECRET": "signs what is sent there",
    "EVENTSINK_WEBHOOK_EVENTS": "types, and the share of users [all but health.*]",
    "EVENTSINK_KEYS_FILE": "API keys [keys.json in the data folder]",
    "EVENTSINK_SPOOL_MAX_BYTES": "how much the spool holds while the broker is away [1GB]",
    "EVENTSINK_KEY_RATE": "requests a second with one API key [100]",
    "EVENTSINK_KEY_BURST": "of them at once after a rest [200]",
    "EVENTSINK_WEB_MAX_CONNECTIONS": "connections at once [10000]",
    "EVENTSINK_TRUSTED_PROXIES": "whose X-Forwarded-For is believed: 10.0.0.0/8,… [nobody's]",
    "EVENTSINK_CORS_ORIGINS": "whose pages may ask: https://status.example,… [nobody's]",
    "EVENTSINK_TLS_CERT": "certificate chain of the web application, PEM [plain HTTP]",
    "EVENTSINK_TLS_KEY": "its key, PEM",
    "EVENTSINK_CHECKPOINT_EVERY": "how often progress is saved [1s]",
    "EVENTSINK_LOG_FORMAT": "text or json [text on a terminal, else json]",
}
NAMES: frozenset[str] = frozenset(MEANINGS)

#: What others call their settings.
_ADDRESS = re.compile(r"(?:(?:WEB|HTTP|UP|WORKER|SERVER)_)?(?:PORT|HOST|BIND|LISTEN|ADDR|ADDRESS)")
_BROKER = re.compile(r"(?:RABBIT|RABBITMQ|AMQP)(?:_UR[LI])?")

#: Where ``tomllib`` ended, and a line of a settings file.
_AT_LINE = re.compile(r"\(at line ([0-9]+),")
_NAMED = re.compile(rf"\s*({PREFIX}[A-Z_]+)\s*=")


def from_environment(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, str]:
    """What is set, by name; names that are no setting are added to ``mistakes``."""
    mistakes += [
        _unknown(name, "the environment")
        for name in sorted(environ)
        if name.startswith(PREFIX) and not name.startswith(IGNORED_PREFIX) and name not in NAMES
    ]
    return {name: environ[name].strip() for name in NAMES if environ.get(name, "").strip()}


def from_file(file: Path, mistakes: list[str]) -> dict[str, str]:
    """What is set there, by name; what is wrong with single ones is added to ``mistakes``. Raises ``SettingsError`` for
    a file that cannot be read, or is no TOML."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"settings file {file} is not UTF-8 text: write it as TOML") from None
    except OSError as error:
        raise SettingsError(
            f"settings file {file} cannot be read ({error.strerror}): mend --settings or {FILE_VARIABLE}"
        ) from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Its message holds the place and at most one character of the file.
        raise SettingsError(
            f"settings file {file} is not TOML: {error}: {_as_toml(text, str(error))}"
        ) from None
    values: dict[str, str] = {}
    for name, value in content.items():
        if name.startswith(IGNORED_PREFIX):
            continue
        if name == FILE_VARIABLE:
            mistakes.append(f"{FILE_VARIABLE} in {file} has no meaning there: take it out")
        elif name not in NAMES:
            mistakes.append(_unknown(name, str(file)))
        elif isinstance(value, bool) or not isinstance(value, str | int):
            mistakes.append(f"{name} in {file} is a {type(value).__name__}: write it as a string")
        elif str(value).strip():
            values[name] = str(value).strip()
    return values


def _as_toml(text: str, said: str) -> str:
    """What to write instead of what ``tomllib`` could not read. Of the file it shows names of settings only: all else
    may be a secret."""
    at = _AT_LINE.search(said)
    lines = text.rstrip().split("\n")
    line = lines[int(at[1]) - 1 if at is not None else -1]  # else it ended at the end
    named = _NAMED.match(line)
    if named is None or named[1] not in NAMES:
        return 'write NAME = "VALUE", one a line'
    if said.startswith("Cannot overwrite"):
        return f"{named[1]} is there twice, leave one out"
    return f'write {named[1]} = "VALUE", a text in quotes and nothing behind it'


def _unknown(name: str, where: str) -> str:
    guess = name.upper().removeprefix(PREFIX)
    if _ADDRESS.fullmatch(guess):
        hint = (
            "where to listen is said by the options --host and --port of `eventsink up`, `web` and `worker`"
        )
    elif meant := _meant(guess):
        hint = f"did you mean {PREFIX}{meant}?"
    else:
        hint = "take it out (`eventsink check --help` lists the names)"
    return f"{name} in {where} is no setting: {hint}"


def _meant(guess: str) -> str | None:
    """The name, without what all begin with, that somebody is likely to have meant: a wrong hint is worse than none."""
    names = sorted(name.removeprefix(PREFIX) for name in NAMES)
    if _BROKER.fullmatch(guess):
        return "BROKER_URL"
    if close := difflib.get_close_matches(guess, names, n=1, cutoff=0.75):
        return close[0]
    if f"{guess}_URL" in names:
        return f"{guess}_URL"
    # DATA_DIR: more than is needed.
    return next((name for name in names if guess.startswith(f"{name}_")), None)
