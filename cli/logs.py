"""Logging of the long-running commands: one line a record, as text or JSON, without secrets."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import click

from web.keys import without_keys

#: Shorter values are ordinary words as often as secrets; what is in a URL is hidden by its shape anyway.
SHORTEST_HIDDEN_CHARACTERS = 6

#: Faust and mode tell of each of their many services; aiormq writes a traceback for every try to connect. What
#: matters of it, the engine says itself.
CHATTY = {"faust": logging.WARNING, "mode": logging.WARNING, "aiormq": logging.CRITICAL}

#: A person at a terminal looks for the key and the address that were printed there, and opens the page: a line for
#: each answer would push them away. What is refused or fails is told there, too; files and pipes get all.
QUIET_ON_A_TERMINAL = {"web.access.answered": logging.WARNING}

_PASSWORD_IN_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<user>[^\s/:@\"']*):[^\s\"']*@")
_CREDENTIAL = re.compile(
    r"""(?P<name>
        \bAuthorization["']?\s*[=:]\s*["']?(?:(?:Bearer|Token|Basic)\s+)?
      | \b(?:Bearer|Token)\s+(?=\S{16})
      | \b(?:api[_-]?secret|(?:x-)?api[_-]?key|secret_?key|access_?token|token|password|secret)
        ["']?\s*[=:]\s*["']?
    )
    (?P<value>[^\s"'&,;}]{6,})""",
    re.IGNORECASE | re.VERBOSE,
)

_OURS = frozenset({"schemas", "topology", "agents", "web", "monitors", "cli"})

#: What every LogRecord has; anything beyond it was given as ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Redactor:
    """Hides known secrets, passwords in URLs and what is written like a credential."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        # The longest first, so that one secret that begins with another is hidden whole.
        known = sorted((s for s in secrets if len(s) >= SHORTEST_HIDDEN_CHARACTERS), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """The text as it may be seen."""
        if self._known is not None:
            text = self._known.sub("***", text)
        text = _PASSWORD_IN_URL.sub(r"\g<scheme>\g<user>:***@", text)
        return without_keys(_CREDENTIAL.sub(r"\g<name>***", text))


class _Lines(logging.Formatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def _time(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _message(self, record: logging.LogRecord) -> str:
        return self._redactor(record.getMessage())

    def _error(self, record: logging.LogRecord) -> str | None:
        if not record.exc_info or record.exc_info[1] is None:
            return None
        return self._redactor(written_error(record.exc_info[1]))

    def _extras(self, record: logging.LogRecord) -> Mapping[str, Any]:
        return {
            name: value if _is_plain(value) else self._redactor(str(value))
            for name, value in vars(record).items()
            if name not in _STANDARD
        }


def _is_plain(value: object) -> bool:
    """Whether JSON has it as it is; it has no infinity, and no number that is none."""
    return value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def written_error(error: BaseException) -> str:
    """An exception with its causes in one line, each with the frames that it passed, the innermost last."""
    frames = " > ".join(
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    )
    text = f"{type(error).__name__}: {error}" + (f" [{frames}]" if frames else "")
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text if cause is None else f"{text} <- {written_error(cause)}"


class TextLines(_Lines):
    """``time LEVEL logger: message name=value``, for a person."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [f"{self._time(record)} {record.levelname:<7} {record.name}: {self._message(record)}"]
        parts.extend(f"{name}={value}" for name, value in self._extras(record).items())
        error = self._error(record)
        if error is not None:
            parts.append(f"| {error}")
        return _one_line(" ".join(parts))


class JsonLines(_Lines):
    """One JSON object with ``time``, ``level``, ``logger``, ``message``, ``error`` and the extras."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": self._time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self._message(record),
        }
        error = self._error(record)
        if error is not None:
            document["error"] = error
        document.update((name, value) for name, value in self._extras(record).items() if name not in document)
        return json.dumps(document, ensure_ascii=False)


def _one_line(text: str) -> str:
    return (
        text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
        if "\n" in text or "\r" in text
        else text
    )


class LogHandler(logging.StreamHandler[TextIO]):
    """Ours, so that ``configure`` can be called again and ``is_configured`` can tell."""

    def format(self, record: logging.LogRecord) -> str:
        """A line that any stream takes: names of files may hold bytes that are no text."""
        return super().format(record).encode("utf-8", "backslashreplace").decode("utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """logging's own would write the arguments as they are, secrets among them, over many lines."""
        error = sys.exc_info()[1]
        fault = logging.makeLogRecord(
            {
                "name": record.name,
                "levelno": logging.ERROR,
                "levelname": "ERROR",
                "msg": "a line of the log could not be written (%s), it comes from %s:%d: please report it",
                "args": (type(error).__name__, record.pathname, record.lineno),
            }
        )
        try:
            self.stream.write(self.format(fault) + self.terminator)
            self.flush()
        except (OSError, ValueError):
            pass  # the stream itself is gone, and there is no other place to say so


def configure(
    format: str | None,
    stream: TextIO,
    *,
    secrets: Collection[str] = (),
    level: int = logging.INFO,
) -> None:
    """Send all logging to ``stream``; ``format`` None is text on a terminal, else JSON. A terminal gets no line for an
    answer that is as it should be. Replaces what was configured before, whoever did it."""
    if format is None:
        format = "text" if stream.isatty() else "json"  # noqa: A001
    redactor = Redactor(secrets)
    handler = LogHandler(stream)
    handler.setFormatter(TextLines(redactor) if format == "text" else JsonLines(redactor))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for chatty, quiet in CHATTY.items():
        logging.getLogger(chatty).setLevel(max(level, quiet))
    for name, quiet in QUIET_ON_A_TERMINAL.items():
        logging.getLogger(name).setLevel(quiet if stream.isatty() else logging.NOTSET)
    logging.captureWarnings(True)


class _Aside(logging.Handler):
    """What a person at a command should know beside its output. Libraries are not heard: what they say
    comes as an error of ours, or is of no account."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._redactor = Redactor()

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in _OURS:
            click.echo(f"eventsink: {_one_line(self._redactor(record.getMessage()))}", err=True)


@contextlib.contextmanager
def for_a_person() -> Iterator[None]:
    """Inside, until ``configure`` is called: warnings of ours on stderr, a line each."""
    aside = _Aside()
    logging.getLogger().addHandler(aside)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(aside)


def is_configured() -> bool:
    """Whether this process logs through ``configure``."""
    return any(isinstance(handler, LogHandler) for handler in logging.getLogger().handlers)
