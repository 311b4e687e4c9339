"""What a setting may be: each function reads one kind of value, or raises ``Wrong``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from cli.secret import Secret, SecretUrl
from schemas.times import from_person
from topology.forwarding.selection import EVERYTHING, Rule, Selection
from topology.log import LogStart


class Wrong(Exception):
    """What the value is and what it should be: the second half of a ``SettingsError``, which adds the
    name. Never the value of a secret or a URL."""


def _quote(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:39] + "…")


def path(value: str) -> Path:
    # Absolute from here on: what is printed and what is opened is the same place, whoever changes folder.
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        raise Wrong(f"is {_quote(value)}, whose home folder is not known: write the whole path") from None


def quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def url(*schemes: str) -> Callable[[str], SecretUrl]:
    choices = ", ".join(f"{scheme}://…" for scheme in schemes)

    def parse(value: str) -> SecretUrl:
        scheme = value.partition("://")[0].lower()
        if "://" not in value or scheme not in schemes:
            raise Wrong(f"is not a URL that can be used here: write one of {choices}")
        try:
            parts = urlsplit(value)
            host = parts.hostname
            if not scheme.startswith("mongodb"):  # several hosts with ports are one URL there
                _ = parts.port
        except ValueError:
            raise Wrong(
                f"is not a valid {scheme} URL: check host and port, and percent-encode "
                "special characters of the password"
            ) from None
        if scheme == "sqlite":
            if parts.netloc or len(parts.path) < 2:
                raise Wrong("names no absolute path: write sqlite:///ABSOLUTE/PATH (three slashes)")
        elif not host:
            raise Wrong(f"names no host: write {scheme}://HOST…")
        return SecretUrl(value)

    return parse


def endpoint(value: str) -> SecretUrl:
    """Of a vendor: it is shown as it is, so nothing that is not to be seen may be in it."""
    found = url("http", "https")(value)
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise Wrong("holds more than an address: write https://HOST/PATH, without credentials, ? and #")
    return found


def secret(value: str) -> Secret:
    return Secret(value)


def name(value: str) -> str:
    if not value.isprintable():
        raise Wrong("holds a control character: write a plain name")
    return value


def amqp_name(value: str) -> str:
    # AMQP short strings.
    if len(value.encode()) > 255 or not value.isprintable():
        raise Wrong(f"is {_quote(value)}: write a name of at most 255 bytes without control characters")
    return value


def mongo_database(value: str) -> str:
    if len(value.encode()) > 63 or re.search(r'[/\\. "$*<>:|?\x00-\x1f]', value):
        raise Wrong(f'is {_quote(value)}: write at most 63 bytes without spaces and /\\."$*<>:|?')
    return value


AGES = {
    "Y": timedelta(days=365),
    "M": timedelta(days=30),
    "D": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}


def age(value: str) -> str:
    # Six digits of years are within what a timedelta holds.
    if not re.fullmatch(r"[1-9][0-9]{0,5}[YMDhms]", value):
        raise Wrong(f"is {_quote(value)}: write a number and one of Y, M, D, h, m, s, for example 14D")
    return value


_SIZES: Mapping[str, int] = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}


def size(value: str) -> int:
    match = re.fullmatch(r"([0-9]{1,19})\s*([A-Za-z]*)", value)
    factor = _SIZES.get(match[2].lower()) if match else None
    if match is None or factor is None or not 0 < int(match[1]) * factor < 2**63:
        raise Wrong(f"is {_quote(value)}: write a size, for example 20GB or 512MB")
    return int(match[1]) * factor


_DURATIONS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def duration(value: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,12})\s*(ms|s|m|h|d)", value)
    if match is not None and int(match[1]) > 0:
        try:
            return int(match[1]) * _DURATIONS[match[2]]
        except OverflowError:
            pass  # longer than any calendar: as wrong as no number
    raise Wrong(f"is {_quote(value)}: write a duration, for example 1s, 15m, 12h or 35d")


def count(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", value) or int(value) == 0:
        raise Wrong(f"is {_quote(value)}: write a whole number from 1 up")
    return int(value)


def truth(value: str) -> bool:
    if value not in ("true", "false"):
        raise Wrong(f"is {_quote(value)}: write true or false")
    return value == "true"


def switch(value: str) -> bool:
    if value not in ("0", "1", "true", "false"):
        raise Wrong(f"is {_quote(value)}: write 1 or 0")
    return value in ("1", "true")


def rules(value: str) -> tuple[Rule, ...]:
    found: list[Rule] = []
    for each in _listed(value):
        pattern, given, share = (part.strip() for part in each.partition("="))
        if given and not re.fullmatch(r"0(?:\.[0-9]{1,9})?|\.[0-9]{1,9}|1(?:\.0{1,9})?", share):
            raise Wrong(f"is {_quote(value)}: write shares from 0 to 1, for example traffic.*=0.1,activity.*")
        rule = Rule(pattern, float(share) if given else 1.0)
        if not Selection((rule,)).types():
            raise Wrong(
                f"names {_quote(pattern)}, of which nothing is forwarded: write types or patterns, "
                "for example traffic.*=0.1,activity.* (health.* stays here)"
            )
        found.append(rule)
    return tuple(found) or EVERYTHING


#: Between this machine and the broker's.
CLOCKS_DIFFER = timedelta(minutes=5)


def log_start(value: str) -> LogStart:
    match value:
        case "first":
            return "first"
        case "last":
            return "last"
    ms = from_person(value)
    if ms is None:
        raise Wrong(
            f"is {_quote(value)}: write first, last or a time such as 2026-01-31 or 2026-01-31T08:00:00Z"
        )
    start = datetime.fromtimestamp(ms / 1000, UTC)
    if start > datetime.now(UTC) + CLOCKS_DIFFER:
        # Everything until then would be left out, and counted as read.
        raise Wrong(f"is {_quote(value)}, which is yet to come: write a time that has passed, first or last")
    return start


Networks: TypeAlias = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def networks(value: str) -> Networks:
    try:
        return tuple(ipaddress.ip_network(each, strict=False) for each in _listed(value))
    except ValueError:
        raise Wrong(
            f"is {_quote(value)}: write addresses or networks with commas, for example 127.0.0.1,10.0.0.0/8"
        ) from None


def origins(value: str) -> tuple[str, ...]:
    found = _listed(value)
    for origin in found:
        # As a browser sends it: no path, no port that goes without saying, nothing in capitals.
        if not re.fullmatch(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", origin):
            raise Wrong(
                f"is {_quote(value)}: write origins with commas, each in small letters and without a path, "
                "for example https://status.example.org"
            )
    return found


def _listed(value: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, value.split(","))))


def log_format(value: str) -> str:
    if value not in {"text", "json"}:
        raise Wrong(f"is {_quote(value)}: write text or json")
    return value
