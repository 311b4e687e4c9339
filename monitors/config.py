"""The configuration of a monitor: one TOML file, checked whole before anything starts."""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from monitors.faults import Contradiction, Examined, Fault, Place, Table, examined, unknown
from monitors.places import Lines, in_two_brackets, no_toml, statements
from monitors.probe import Name, ProbeSettings, ServiceName
from monitors.probes import KINDS, AnyProbeSettings
from monitors.reference import REFERENCE_WITHIN_S
from monitors.schedule import longest_interval_s
from topology.errors import SettingsError

DEFAULT_OUTBOX_BYTES = 64 << 20
LEAST_OUTBOX_BYTES = 1 << 20


class Maintenance(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[maintenance]]``: a window that is known before. Times are TOML's, with an offset. ``every``: it comes again
    each day or week, 24 hours or seven times that later, whatever clocks are put forward or back. Windows of one
    service do not overlap: the first end would end them all."""

    service: ServiceName
    since: Annotated[datetime, Meta(examples=["2026-12-01T22:00:00Z"])]
    until: Annotated[datetime, Meta(examples=["2026-12-01T23:00:00Z"])]
    every: Literal["day", "week"] | None = None
    reason: str | None = None

    @property
    def period(self) -> timedelta | None:
        """From one beginning to the next."""
        return None if self.every is None else timedelta(days=1 if self.every == "day" else 7)

    def contradictions(self) -> Iterator[Contradiction]:
        if self.since.tzinfo is None or self.until.tzinfo is None:
            naive = "since" if self.since.tzinfo is None else "until"
            yield Contradiction((naive,), "needs an offset, as in 2026-01-31T22:00:00Z")
        elif self.until <= self.since:
            yield Contradiction(("until", "since"), "is not after since")
        elif self.period is not None and self.until - self.since >= self.period:
            what = f"is not before the next since, a {self.every} later"
            yield Contradiction(("until", "since", "every"), what)

    def meets(self, other: Maintenance) -> bool:
        """Whether they ever overlap; where one begins as the other ends, they do not."""
        if self.period is None or other.period is None:
            once, again = (self, other) if self.period is None else (other, self)
            since = again.since
            if again.period is not None:
                # The first one that ends after the beginning of that which comes once.
                since += max(0, (once.since - again.until) // again.period + 1) * again.period
            return since < once.until and once.since < since + (again.until - again.since)
        often, rare = sorted((self, other), key=lambda window: window.until - window.since)
        period = min(self.period, other.period)
        if rare.until - rare.since >= period:
            return True  # the one of every day falls into that of every week
        behind = (rare.since - often.since) % period
        return behind < often.until - often.since or behind + (rare.until - rare.since) > period


class MonitorConfig(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. The key of the ingest is named by ``key_env`` or ``key_file``; ``region`` is the host's name
    where it is not given, ``source`` is ``monitor-REGION``. ``folder`` is where the outbox and the probes' positions
    are, relative to that of the file. ``reference`` are ``host:port`` that answer as long as the own network works.
    """

    endpoint: Annotated[str, Meta(examples=["https://eventsink.example"])]
    key_env: str | None = None
    key_file: str | None = None
    ca_file: str | None = None
    region: Name = msgspec.field(default_factory=socket.gethostname)
    source: Name | None = None
    folder: str = "monitor-data"
    outbox_max_bytes: Annotated[int, Meta(ge=LEAST_OUTBOX_BYTES)] = DEFAULT_OUTBOX_BYTES
    reference: Annotated[tuple[str, ...], Meta(examples=[["192.0.2.1:53"]])] = ()
    probe: tuple[AnyProbeSettings, ...] = ()
    maintenance: tuple[Maintenance, ...] = ()

    @property
    def installation(self) -> str:
        """The ``source`` of every event of this monitor."""
        return self.source if self.source is not None else f"monitor-{self.region}"

    def unwatched(self) -> Iterator[str]:
        """A line for each service of a ``[[maintenance]]`` that no probe here watches: one of another monitor's, or a
        slip."""
        watched = sorted({each.service for each in self.probe})
        for service in sorted({each.service for each in self.maintenance}.difference(watched)):
            near = get_close_matches(service, watched, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(watched)}"
            yield f"maintenance of {service!r}: watched by no probe here, {meant} (fine if another monitor does)"

    def contradictions(self) -> Iterator[Contradiction]:
        scheme, host = _place_of(self.endpoint)
        if scheme not in {"http", "https"} or not host:
            yield Contradiction(("endpoint",), "must be http://HOST or https://HOST of an eventsink")
        if "@" in self.endpoint:
            yield Contradiction(("endpoint",), "holds credentials: give the key by key_env or key_file")
        if self.key_env is not None and self.key_file is not None:
            yield Contradiction(("key_env", "key_file"), "key_file is given, too: leave one out")
        for address in self.reference:
            host, colon, port = address.rpartition(":")
            if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
                yield Contradiction(("reference",), f"{address!r} must be HOST:PORT")


def read(path: Path) -> MonitorConfig:
    """The configuration in a file. Raises ``SettingsError``: a line for each thing that is wrong, with file and line,
    the place and what to write."""
    try:
        # Some editors begin a file with a mark that TOML does not know.
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text: write it as TOML") from error
    text, faults = in_two_brackets(text, ("probe", "maintenance"))
    if unreadable := no_toml(text, _KEYS):
        _complain(path, [*faults, *unreadable])
    config, found = _config(tomllib.loads(text))
    lines = Lines.of(list(statements(text)))
    _complain(path, [*faults, *(each._replace(line=lines.line(each.place)) for each in found)])
    # Beside the file, wherever the command is run: cron's working folder is not that of a shell.
    return msgspec.structs.replace(config, folder=str(path.absolute().parent / config.folder))


def _complain(path: Path, faults: Iterable[Fault]) -> None:
    wrong: list[str] = []
    for place, what, line in sorted(faults, key=lambda fault: fault.line or 0):
        where = f"{path}:{line}" if line is not None else str(path)
        wrong.append(": ".join(filter(None, (where, _named(place), what))))
    if wrong:
        raise SettingsError("\n".join(wrong))


def _named(place: Place) -> str:
    """``probe[0].url``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).removeprefix(".")


def _config(document: Mapping[str, object]) -> tuple[MonitorConfig, list[Fault]]:
    """The configuration, and all that keeps it from being one."""
    whole = examined({key: document[key] for key in document if key not in _TABLES}, MonitorConfig, ())
    faults = list(whole.faults)
    probes: list[tuple[Place, Examined[ProbeSettings]]] = []
    for place, table in _tables(document, "probe", faults):
        kind = KINDS.get(str(table.get("kind")))
        if kind is not None:
            probes.append((place, examined(table, kind, place, tag="kind", elsewhere=_ABOVE)))
        elif "kind" in table:
            what = f"{str(table['kind'])!r} {unknown(table['kind'], list(KINDS))}"
            faults.append(Fault((*place, "kind"), what))
        else:
            faults.append(Fault((*place, "kind"), f"is missing: there are {', '.join(KINDS)}"))
    windows = [
        (place, examined(table, Maintenance, place, elsewhere=_ABOVE))
        for place, table in _tables(document, "maintenance", faults)
    ]
    faults += (fault for _, each in probes for fault in each.faults)
    faults += (fault for _, each in windows for fault in each.faults)
    if not document.get("probe") and not get_close_matches("probe", document):
        faults.append(Fault(("probe",), "there is none, add [[probe]]"))
    faults += _same_subjects(probes)
    faults += _not_covered(probes, reference_s=REFERENCE_WITHIN_S if whole.value.reference else 0.0)
    faults += _overlapping(windows)
    config = msgspec.structs.replace(
        whole.value,
        probe=tuple(each.value for _, each in probes),
        maintenance=tuple(each.value for _, each in windows),
    )
    return config, faults


_TABLES = ("probe", "maintenance")
#: What stands below a header belongs to it, which is not seen at once.
_ABOVE = {
    field.encode_name: "is a key of the whole file: write it above the first [[probe]] or [[maintenance]]"
    for field in msgspec.structs.fields(MonitorConfig)
    if field.encode_name not in _TABLES
}
_KINDS_OF_TABLES: tuple[type[Table], ...] = (MonitorConfig, Maintenance, *KINDS.values())
#: All that may stand left of a ``=``.
_KEYS = {field.encode_name for kind in _KINDS_OF_TABLES for field in msgspec.structs.fields(kind)} | {"kind"}


def _tables(
    document: Mapping[str, object], key: str, faults: list[Fault]
) -> Iterator[tuple[Place, Mapping[str, object]]]:
    tables = document.get(key, [])
    if not isinstance(tables, list):
        faults.append(Fault((key,), f"write [[{key}]], in two brackets, and its keys below"))
        return
    for index, table in enumerate(tables):
        if isinstance(table, Mapping):
            yield (key, index), table
        else:
            faults.append(Fault((key, index), f"must be a table: write [[{key}]], and its keys below"))


def _same_subjects(probes: Iterable[tuple[Place, Examined[ProbeSettings]]]) -> Iterator[Fault]:
    subjects: dict[tuple[str, ...], Place] = {}
    for place, each in probes:
        if each.sound("service", "queue"):
            first = subjects.setdefault(each.value.subject, place)
            if first != place:
                yield Fault(place, f"measures what {_named(first)} does: give one another service")


def _not_covered(
    probes: Iterable[tuple[Place, Examined[ProbeSettings]]], *, reference_s: float
) -> Iterator[Fault]:
    """A result that holds no longer than an hour would leave time unknown before the next one."""
    for place, each in probes:
        settings = each.value
        if not settings.holds or not each.sound("interval", "timeout", "retries", "retry_delay"):
            continue
        most = longest_interval_s(settings, reference_s=reference_s)
        if most < 1:
            what = (
                "with these retries one check may take longer than the hour that a result holds: shorten it"
            )
            yield Fault((*place, "timeout"), what)
        elif settings.interval > most:
            what = f"must be at most {most} with this timeout and these retries: a result holds for an hour at most"
            yield Fault((*place, "interval"), f"{what}, and the time up to the next one would be unknown")


def _overlapping(windows: Iterable[tuple[Place, Examined[Maintenance]]]) -> Iterator[Fault]:
    whole: list[tuple[Place, Maintenance]] = []
    for place, each in windows:
        window = each.value
        if not each.sound("service", "since", "until", "every") or any(window.contradictions()):
            continue
        for earlier, other in whole:
            if window.service == other.service and window.meets(other):
                what = f"overlaps {_named(earlier)}, the first end would end both: make them one"
                yield Fault(place, what)
        whole.append((place, window))


def _place_of(url: str) -> tuple[str, str | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname
    except ValueError:
        return "", None
