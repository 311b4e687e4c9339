"""The configuration of a monitor: one TOML file, checked whole before anything starts."""

from __future__ import annotations

import re
import socket
import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from monitors.probe import Name
from monitors.probes import AnyProbeSettings
from topology.errors import SettingsError

DEFAULT_OUTBOX_BYTES = 64 << 20
LEAST_OUTBOX_BYTES = 1 << 20


class Maintenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[maintenance]]``: a window that is known before. Times are TOML's, with an offset. ``every``: it comes again
    each day or week, 24 hours or seven times that later, whatever clocks are put forward or back. Windows of one
    service do not overlap: the first end would end them all."""

    service: Name
    since: datetime
    until: datetime
    every: Literal["day", "week"] | None = None
    reason: str | None = None

    @property
    def period(self) -> timedelta | None:
        """From one beginning to the next."""
        return None if self.every is None else timedelta(days=1 if self.every == "day" else 7)


class MonitorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. The key of the ingest is named by ``key_env`` or ``key_file``; ``region`` is the host's name
    where it is not given, ``source`` is ``monitor-REGION``. ``folder`` is where the outbox and the probes' positions
    are, relative to that of the file. ``reference`` are ``host:port`` that answer as long as the own network works.
    """

    endpoint: str
    key_env: str | None = None
    key_file: str | None = None
    ca_file: str | None = None
    region: Name = msgspec.field(default_factory=socket.gethostname)
    source: Name | None = None
    folder: str = "monitor-data"
    outbox_max_bytes: Annotated[int, Meta(ge=LEAST_OUTBOX_BYTES)] = DEFAULT_OUTBOX_BYTES
    reference: tuple[str, ...] = ()
    probe: tuple[AnyProbeSettings, ...] = ()
    maintenance: tuple[Maintenance, ...] = ()

    @property
    def installation(self) -> str:
        """The ``source`` of every event of this monitor."""
        return self.source if self.source is not None else f"monitor-{self.region}"


def read(path: Path) -> MonitorConfig:
    """The configuration in a file. Raises ``SettingsError``: one line, with the place in the file."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    try:
        config = msgspec.convert(document, MonitorConfig)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: {_placed(str(error))}") from error
    wrong = _wrong(config)
    if wrong is not None:
        raise SettingsError(f"{path}: {wrong}")
    # Beside the file, wherever the command is run: cron's working folder is not that of a shell.
    return msgspec.structs.replace(config, folder=str(path.absolute().parent / config.folder))


_PLACE = re.compile(r"^(?P<what>.*) - at `(?:key in )?`?\$\.?(?P<where>[^`]*)`$", re.DOTALL)


def _placed(message: str) -> str:
    """``probe[0].url: what is wrong``, of what msgspec says."""
    found = _PLACE.match(message)
    return f"{found['where']}: {found['what']}" if found is not None else message


def _wrong(config: MonitorConfig) -> str | None:
    """What a type does not say."""
    scheme, host = _place_of(config.endpoint)
    if scheme not in {"http", "https"} or not host:
        return "endpoint: must be http://HOST or https://HOST of an eventsink"
    if "@" in config.endpoint:
        return "endpoint: holds credentials: give the key by key_env or key_file"
    if config.key_env is not None and config.key_file is not None:
        return "key_env and key_file are both given: leave one out"
    if not config.probe:
        return "probe: there is none, add [[probe]]"
    subjects: dict[tuple[str, ...], int] = {}
    for index, settings in enumerate(config.probe):
        first = subjects.setdefault(settings.subject, index)
        if first != index:
            return f"probe[{index}]: measures what probe[{first}] does: give one another service"
    for index, window in enumerate(config.maintenance):
        if window.since.tzinfo is None or window.until.tzinfo is None:
            return f"maintenance[{index}]: times need an offset, as in 2026-01-31T22:00:00Z"
        if window.until <= window.since:
            return f"maintenance[{index}].until: is not after since"
        if window.period is not None and window.until - window.since >= window.period:
            return f"maintenance[{index}].until: is not before the next since, a {window.every} later"
    for index, address in enumerate(config.reference):
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            return f"reference[{index}]: must be HOST:PORT"
    return None


def _place_of(url: str) -> tuple[str, str | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname
    except ValueError:
        return "", None
