"""All settings, read once and checked when they are made. Nothing else reads the environment.

A setting is an environment variable or the same name in a TOML file; the environment wins, and an
empty value counts as not set. What is wrong is a ``SettingsError`` that names every wrong variable and says
what it should be, and never repeats a secret.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from cli import kinds
from cli.secret import Secret, SecretUrl
from topology.errors import SettingsError
from topology.forwarding.addresses import tokens
from topology.forwarding.selection import EVERYTHING, Rule
from topology.log import LogStart

T = TypeVar("T")

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

#: The embedded log and stores share this file of the data folder.
DATABASE_FILE = "eventsink.db"
#: What the web application accepted while the broker was away; a file of its own.
SPOOL_FILE = "spool.db"
#: Requests with an Idempotency-Key, and what they were answered.
REQUESTS_FILE = "requests.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """The log. ``max_age`` in RabbitMQ's own words (``14D``). ``start`` is where a group begins that has no saved
    position."""

    url: SecretUrl
    exchange: str
    queue: str
    max_age: str
    max_bytes: int
    start: LogStart

    @property
    def max_age_span(self) -> timedelta:
        """``max_age`` as RabbitMQ counts it: a year has 365 days, a month 30."""
        return int(self.max_age[:-1]) * kinds.AGES[self.max_age[-1]]

    @property
    def embedded(self) -> bool:
        return self.url.scheme == "sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxSettings:
    """The server of the rollups."""

    url: SecretUrl
    token: Secret
    org: str
    bucket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MongoSettings:
    """A MongoDB server and the database in it."""

    url: SecretUrl
    database: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AmplitudeSettings:
    """The Amplitude forwarder. ``url`` None: its own endpoint."""

    api_key: Secret
    url: SecretUrl | None
    events: tuple[Rule, ...] = EVERYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleSettings:
    """The Google Analytics 4 forwarder."""

    measurement_id: str
    api_secret: Secret
    url: SecretUrl | None
    events: tuple[Rule, ...] = EVERYTHING
    validate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """The forwarder to a server of one's own."""

    url: SecretUrl
    secret: Secret
    events: tuple[Rule, ...] = EVERYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Files in PEM; whether they fit is seen when they are read."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """The web application. ``key_rate`` in requests a second; ``tls`` None: plain HTTP."""

    key_rate: int
    key_burst: int
    max_connections: int
    trusted_proxies: kinds.Networks
    cors_origins: tuple[str, ...]
    tls: TlsSettings | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything. None stands for "embedded" (``influx``, ``mongo``, ``state``) or "off" (the
    forwarders); ``state`` is already MongoDB where only ``EVENTSINK_MONGO_URL`` is set. ``log_format``
    None: text on a terminal, else JSON."""

    data: Path
    log: LogSettings
    influx: InfluxSettings | None
    mongo: MongoSettings | None
    state: MongoSettings | None
    state_file: Path
    keep: timedelta
    key_budget: int
    doubled_downloads_once: bool
    amplitude: AmplitudeSettings | None
    google: GoogleSettings | None
    webhook: WebhookSettings | None
    keys_file: Path
    spool_max_bytes: int
    web: WebSettings
    checkpoint_every: timedelta
    log_format: str | None

    @property
    def database_file(self) -> Path:
        """The file of the embedded stores."""
        return self.data / DATABASE_FILE

    @property
    def spool_file(self) -> Path:
        """Where accepted events wait for the broker."""
        return self.data / SPOOL_FILE

    @property
    def requests_file(self) -> Path:
        """Requests of a day that may come again."""
        return self.data / REQUESTS_FILE

    @property
    def secrets(self) -> frozenset[str]:
        """Every value that must never be seen, for whoever filters what goes out."""
        urls = [self.log.url]
        found: set[str] = set()
        if self.influx is not None:
            urls.append(self.influx.url)
            found.add(self.influx.token.reveal())
        urls.extend(mongo.url for mongo in (self.mongo, self.state) if mongo is not None)
        if self.amplitude is not None:
            found.add(self.amplitude.api_key.reveal())
        if self.google is not None:
            found.add(self.google.api_secret.reveal())
        if self.webhook is not None:
            found.add(self.webhook.secret.reveal())
            found.update(tokens(self.webhook.url.reveal()))
        for url in urls:
            found |= url.passwords
        return frozenset(found - {""})


def load(environ: Mapping[str, str], file: Path | None = None, *, data: Path | None = None) -> Settings:
    """Read and check everything. ``file`` (``--settings``) goes before ``EVENTSINK_SETTINGS``, ``data``
    (``--data``) before ``EVENTSINK_DATA``. Raises ``SettingsError``, a line for each
    mistake; touches nothing but the file."""
    mistakes: list[str] = []
    known = _known(environ, mistakes)
    if file is None and FILE_VARIABLE in known:
        file = Path(known[FILE_VARIABLE])
    values = {**(_from_file(file, mistakes) if file is not None else {}), **known}
    if data is not None:
        values["EVENTSINK_DATA"] = str(data)
    settings = _checked(values, mistakes)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return settings


def _known(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, str]:
    mistakes += [
        _unknown(name, "the environment")
        for name in sorted(environ)
        if name.startswith(PREFIX) and not name.startswith(IGNORED_PREFIX) and name not in NAMES
    ]
    return {name: environ[name].strip() for name in NAMES if environ.get(name, "").strip()}


def _from_file(file: Path, mistakes: list[str]) -> dict[str, str]:
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


def _checked(values: Mapping[str, str], mistakes: list[str]) -> Settings:
    """What is wrong is added to ``mistakes``, and its default stands in for it."""
    wrong: set[str] = set()

    def read(name: str, default: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(values.get(name, default))
        except kinds.Wrong as error:
            wrong.add(name)
            mistakes.append(f"{name} {error}")
            return parse(default)

    def optional(name: str, parse: Callable[[str], T]) -> T | None:
        try:
            return parse(values[name]) if name in values else None
        except kinds.Wrong as error:
            wrong.add(name)
            mistakes.append(f"{name} {error}")
            return None

    def together(build: Callable[..., T | None], *names: str) -> T | None:
        """What settings make that need one another; of one that is wrong nothing more is said."""
        try:
            return None if wrong.intersection(names) else build()
        except SettingsError as error:
            mistakes.append(str(error))
            return None

    data = read("EVENTSINK_DATA", "./data", kinds.path)
    database = data / DATABASE_FILE

    database_name = read("EVENTSINK_MONGO_DATABASE", "eventsink", kinds.mongo_database)
    mongo_url = optional("EVENTSINK_MONGO_URL", kinds.url("mongodb", "mongodb+srv"))
    mongo = None if mongo_url is None else MongoSettings(url=mongo_url, database=database_name)

    state, state_file = mongo, database
    state_url = optional("EVENTSINK_STATE_URL", kinds.url("mongodb", "mongodb+srv", "sqlite"))
    if state_url is not None and state_url.scheme == "sqlite":
        state, state_file = None, state_url.path
    elif state_url is not None:
        state = MongoSettings(url=state_url, database=database_name)

    influx_url = optional("EVENTSINK_INFLUX_URL", kinds.url("http", "https"))
    influx_token = read("EVENTSINK_INFLUX_TOKEN", "", kinds.secret)
    influx_org = read("EVENTSINK_INFLUX_ORG", "eventsink", kinds.name)
    influx_bucket = read("EVENTSINK_INFLUX_BUCKET", "eventsink", kinds.name)

    amplitude_key = optional("EVENTSINK_AMPLITUDE_API_KEY", kinds.secret)
    amplitude_url = optional("EVENTSINK_AMPLITUDE_URL", kinds.endpoint)

    google_url = optional("EVENTSINK_GA_URL", kinds.endpoint)
    google_events = read("EVENTSINK_GA_EVENTS", "", kinds.rules)
    google_validate = read("EVENTSINK_GA_VALIDATE", "0", kinds.switch)

    webhook_url = optional("EVENTSINK_WEBHOOK_URL", kinds.url("http", "https"))
    webhook_secret = optional("EVENTSINK_WEBHOOK_SECRET", kinds.secret)
    webhook_events = read("EVENTSINK_WEBHOOK_EVENTS", "", kinds.rules)

    tls_cert = optional("EVENTSINK_TLS_CERT", kinds.path)
    tls_key = optional("EVENTSINK_TLS_KEY", kinds.path)

    return Settings(
        data=data,
        log=LogSettings(
            url=read(
                "EVENTSINK_BROKER_URL",
                f"sqlite://{kinds.quoted(database)}",
                kinds.url("amqp", "amqps", "sqlite"),
            ),
            exchange=read("EVENTSINK_EXCHANGE", "clowder.metrics", kinds.amqp_name),
            queue=read("EVENTSINK_LOG_QUEUE", "eventsink.log", kinds.amqp_name),
            max_age=read("EVENTSINK_LOG_MAX_AGE", "14D", kinds.age),
            max_bytes=read("EVENTSINK_LOG_MAX_BYTES", "20GB", kinds.size),
            start=read("EVENTSINK_LOG_START", "first", kinds.log_start),
        ),
        influx=None
        if influx_url is None
        else InfluxSettings(url=influx_url, token=influx_token, org=influx_org, bucket=influx_bucket),
        mongo=mongo,
        state=state,
        state_file=state_file,
        keep=read("EVENTSINK_KEEP", "35d", kinds.duration),
        key_budget=read("EVENTSINK_KEY_BUDGET", "10000", kinds.count),
        doubled_downloads_once=read("EVENTSINK_DOUBLED_DOWNLOADS_ONCE", "false", kinds.truth),
        amplitude=None
        if amplitude_key is None
        else AmplitudeSettings(
            api_key=amplitude_key,
            url=amplitude_url,
            events=read("EVENTSINK_AMPLITUDE_EVENTS", "", kinds.rules),
        ),
        google=together(
            lambda: _google(values, google_url, google_events, validate=google_validate),
        ),
        webhook=together(
            lambda: _webhook(webhook_url, webhook_secret, webhook_events),
            "EVENTSINK_WEBHOOK_URL",
            "EVENTSINK_WEBHOOK_SECRET",
        ),
        keys_file=read("EVENTSINK_KEYS_FILE", str(data / "keys.json"), kinds.path),
        spool_max_bytes=read("EVENTSINK_SPOOL_MAX_BYTES", "1GB", kinds.size),
        web=WebSettings(
            key_rate=read("EVENTSINK_KEY_RATE", "100", kinds.count),
            key_burst=read("EVENTSINK_KEY_BURST", "200", kinds.count),
            max_connections=read("EVENTSINK_WEB_MAX_CONNECTIONS", "10000", kinds.count),
            trusted_proxies=read("EVENTSINK_TRUSTED_PROXIES", "", kinds.networks),
            cors_origins=read("EVENTSINK_CORS_ORIGINS", "", kinds.origins),
            tls=together(lambda: _tls(tls_cert, tls_key), "EVENTSINK_TLS_CERT", "EVENTSINK_TLS_KEY"),
        ),
        checkpoint_every=read("EVENTSINK_CHECKPOINT_EVERY", "1s", kinds.duration),
        log_format=optional("EVENTSINK_LOG_FORMAT", kinds.log_format),
    )


def _tls(cert: Path | None, key: Path | None) -> TlsSettings | None:
    if cert is None and key is None:
        return None
    if cert is None:
        raise SettingsError("EVENTSINK_TLS_CERT is missing: set it, or take EVENTSINK_TLS_KEY out")
    if key is None:
        raise SettingsError("EVENTSINK_TLS_KEY is missing: set it, or take EVENTSINK_TLS_CERT out")
    return TlsSettings(cert=cert, key=key)


def _webhook(
    url: SecretUrl | None, secret: Secret | None, events: tuple[Rule, ...]
) -> WebhookSettings | None:
    if url is None and secret is None:
        return None
    if url is None:
        raise SettingsError("EVENTSINK_WEBHOOK_URL is missing: set it, or take EVENTSINK_WEBHOOK_SECRET out")
    if secret is None:
        raise SettingsError(
            "EVENTSINK_WEBHOOK_SECRET is missing: set it to a long random text that the receiver knows too"
        )
    return WebhookSettings(url=url, secret=secret, events=events)


def _google(
    values: Mapping[str, str], url: SecretUrl | None, events: tuple[Rule, ...], *, validate: bool
) -> GoogleSettings | None:
    measurement_id = values.get("EVENTSINK_GA_MEASUREMENT_ID")
    secret = values.get("EVENTSINK_GA_API_SECRET")
    if measurement_id is None and secret is None:
        return None
    if measurement_id is None:
        raise SettingsError(
            "EVENTSINK_GA_MEASUREMENT_ID is missing: set it (G-…), or take EVENTSINK_GA_API_SECRET out"
        )
    if secret is None:
        raise SettingsError(
            "EVENTSINK_GA_API_SECRET is missing: set it, or take EVENTSINK_GA_MEASUREMENT_ID out"
        )
    return GoogleSettings(
        measurement_id=measurement_id, api_secret=Secret(secret), url=url, events=events, validate=validate
    )
