"""What NGINX writes into an access log: a ``log_format``, compiled to a reader of its lines, and the count of them.

Of a line only two things are wanted: whether it is one, and whose request it was. Whose it was is personal data: it is
counted as a fingerprint in memory and goes no further.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from topology.errors import SettingsError
from topology.rollups.measures import Cell, Distinct, fingerprint

Escape: TypeAlias = Literal["default", "json", "none"]

#: https://nginx.org/en/docs/http/ngx_http_log_module.html#log_format
COMBINED = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    '"$http_referer" "$http_user_agent"'
)

_ADDRESS = rb"(?:[0-9A-Fa-f.:]{2,45}|unix:)"
_NUMBER = rb"[0-9]{1,20}"
_SECONDS = rb"[0-9]{1,15}\.[0-9]{3}"
#: Variables whose values cannot be mistaken for what stands behind them. Lengths are bounded, so that no line costs
#: more than its length.
_SHAPES = {
    **dict.fromkeys(("remote_addr", "realip_remote_addr", "server_addr"), _ADDRESS),
    **dict.fromkeys(
        (
            *("body_bytes_sent", "bytes_sent", "connection", "connection_requests", "pid"),
            *("remote_port", "request_length", "server_port"),
        ),
        _NUMBER,
    ),
    "status": rb"[0-9]{3}",
    "msec": _SECONDS,
    "request_time": _SECONDS,
    "time_local": rb"[0-9]{2}/[A-Za-z]{3}/[0-9]{4}:[0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4}",
    "time_iso8601": rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{2}:[0-9]{2}",
    "pipe": rb"[p.]",
}
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)
#: Of NGINX's configuration.
_WORD = re.compile(
    r"""\s*(?:'(?P<single>(?:[^'\\]|\\.)*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<end>;)|(?P<plain>[^\s;'"]+))""",
    re.DOTALL,
)
_ESCAPED = re.compile(r"""\\(["'\\trn])""")
_CONTROLS = {"t": "\t", "r": "\r", "n": "\n"}


#: Literal text, or (second) the name of a variable with a shape.
_Piece: TypeAlias = tuple[str, str | None]


class _Stretch(NamedTuple):
    """A value of any text, which ends where ``until`` matches; None is the end of the line."""

    is_client: bool
    until: re.Pattern[bytes] | None


class LogFormat:
    """A compiled ``log_format``. Reading a line takes time in proportion to its length, whatever it holds."""

    def __init__(self, text: str, *, client: str = "remote_addr", escape: Escape = "default") -> None:
        """``client``: the variable that tells clients apart. Raises ``SettingsError``."""
        begin, stretches = _split(text)
        if client not in {name for _, name in _elements(text)}:
            raise SettingsError(f"format: has no ${client}, which is to tell clients apart")
        self._escape = escape
        self._begin = re.compile(_pattern(begin, client) + (rb"" if stretches else rb"\Z"))
        self._stretches: list[_Stretch] = []
        for number, (names, pieces) in enumerate(stretches, start=1):
            if client in names and len(names) > 1:
                raise SettingsError(f"format: nothing separates ${client} from the variable beside it")
            pattern = _pattern(pieces, client) + (rb"\Z" if number == len(stretches) else rb"")
            self._stretches.append(_Stretch(client in names, re.compile(pattern) if pieces else None))

    @classmethod
    def of(cls, text: str, *, client: str = "remote_addr") -> LogFormat:
        """``combined``, the text of a format, or the whole directive as it stands in NGINX's configuration."""
        text = text.strip()
        if text == "combined":
            return cls(COMBINED, client=client)
        if text.startswith("log_format"):
            body, escape = _directive(text)
            return cls(body, client=client, escape=escape)
        return cls(text, client=client)

    def client(self, line: bytes) -> bytes | None:
        """Whose request the line (without its end) is; ``b""`` where it does not say, None where it is no such line."""
        found = self._begin.match(line)
        if found is None:
            return None
        whose = found.groupdict().get("client")
        position = found.end()
        for is_client, until in self._stretches:
            start = end = len(line)
            if until is not None:
                found = self._end_of_value(until, line, position)
                if found is None:
                    return None
                start, end = found.span()
                whose = found.groupdict().get("client", whose)
            if self._escape == "default" and line.find(b'"', position, start) >= 0:
                return None  # NGINX writes \x22 in a value
            if is_client:
                # Of X-Forwarded-For, the client comes first.
                whose = line[position:start].partition(b",")[0].strip()
            position = end
        return b"" if whose is None or whose == b"-" else whose

    def _end_of_value(self, until: re.Pattern[bytes], line: bytes, position: int) -> re.Match[bytes] | None:
        found = until.search(line, position)
        if self._escape == "json":
            while found is not None and _is_escaped(line, found.start(), position):
                found = until.search(line, found.start() + 1)
        return found


def _is_escaped(line: bytes, at: int, begin: int) -> bool:
    """Whether the byte there is behind an odd number of backslashes."""
    first = at
    while first > begin and line[first - 1] == 0x5C:
        first -= 1
    return (at - first) % 2 == 1


def _elements(text: str) -> Iterator[tuple[str, str | None]]:
    """Each literal with the variable behind it; None at the end."""
    position = 0
    for found in _VARIABLE.finditer(text):
        yield text[position : found.start()], found[1] or found[2]
        position = found.end()
    yield text[position:], None


def _split(text: str) -> tuple[list[_Piece], list[tuple[list[str], list[_Piece]]]]:
    """What the line begins with, up to the first value of any text; then each such value, as the variables that it is
    of (several where nothing separates them), with what stands between it and the next."""
    begin: list[_Piece] = []
    stretches: list[tuple[list[str], list[_Piece]]] = []
    pieces = begin
    for literal, name in _elements(text):
        if literal:
            pieces.append((literal, None))
        if name is None:
            break
        if name in _SHAPES:
            pieces.append(("", name))
        elif stretches and not pieces:
            stretches[-1][0].append(name)
        else:
            pieces = []
            stretches.append(([name], pieces))
    return begin, stretches


def _pattern(pieces: Iterable[_Piece], client: str) -> bytes:
    pattern = b""
    named = False
    for literal, name in pieces:
        if name is None:
            pattern += re.escape(literal.encode("utf-8", "surrogateescape"))
        elif name == client and not named:
            pattern += b"(?P<client>" + _SHAPES[name] + b")"
            named = True
        else:
            pattern += _SHAPES[name]
    return pattern


def _directive(text: str) -> tuple[str, Escape]:
    """The text and the escaping of ``log_format name [escape=…] 'text' 'more text';``. Raises ``SettingsError``."""
    words: list[str] = []
    position = 0
    while found := _WORD.match(text, position):
        position = found.end()
        if found["end"]:
            break
        words.append(_unquoted(found["single"] or found["double"] or found["plain"] or ""))
    if text[position:].strip() or len(words) < 3:
        raise SettingsError("format: not of the form log_format NAME '…' '…';")
    strings = words[2:]
    escape: Escape = "default"
    if strings[0].startswith("escape="):
        match strings.pop(0).removeprefix("escape="):
            case "default" | "json" | "none" as known:
                escape = known
            case other:
                raise SettingsError(f"format: there is no escape={other}")
    return "".join(strings), escape


def _unquoted(word: str) -> str:
    return _ESCAPED.sub(lambda found: _CONTROLS.get(found[1], found[1]), word)


@dataclass(slots=True)
class Counted:
    """What lines came to. ``clients`` is how many there are: exact up to 1000, then within 3 %."""

    requests: int = 0
    unreadable: int = 0
    cell: Cell = frozenset()

    @property
    def clients(self) -> int:
        return _DISTINCT.value(self.cell)

    def add(self, log_format: LogFormat, lines: Sequence[bytes]) -> None:
        """Count some more lines; an empty one counts as unreadable, NGINX writes none."""
        seen: set[bytes] = set()
        for line in lines:
            client = log_format.client(line)
            if client is None:
                self.unreadable += 1
            else:
                self.requests += 1
                seen.add(client)
        seen.discard(b"")
        fingerprints = frozenset(fingerprint(client.decode("latin-1")) for client in seen)
        self.cell = _DISTINCT.merge(self.cell, fingerprints)

    def merge(self, other: Counted) -> None:
        """Count what the other has counted, too."""
        self.requests += other.requests
        self.unreadable += other.unreadable
        self.cell = _DISTINCT.merge(self.cell, other.cell)


#: Its cells and its bounds are those of ``unique_users``; it is not asked about events.
_DISTINCT = Distinct((), "client")
