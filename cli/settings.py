"""All settings, read once and checked when they are made. Nothing else reads the environment.

A setting is an environment variable or the same name in a TOML file; the environment wins, and an
empty value counts as not set. What is wrong is a ``SettingsError`` that names every wrong variable and says
what it should be, and never repeats a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from cli import kinds
from cli.secret import Secret, SecretUrl
from cli.settings_sources import FILE_VARIABLE, from_environment, from_file
from topology.errors import SettingsError
from topology.forwarding.addresses import tokens
from topology.forwarding.selection import EVERYTHING, Rule
from topology.log import LogStart

T = TypeVar("T")

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
    known = from_environment(environ, mistakes)
    if file is None and FILE_VARIABLE in known:
        file = Path(known[FILE_VARIABLE])
    values = {**(from_file(file, mistakes) if file is not None else {}), **known}
    if data is not None:
        values["EVENTSINK_DATA"] = str(data)
    settings = _checked(values, mistakes)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return settings


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
