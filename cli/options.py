"""Options that commands share, and how a command gets its settings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from cli.settings import Settings, load
from schemas.times import parse_when, rfc3339

P = ParamSpec("P")
R = TypeVar("R")

FORMATS = ("table", "csv", "json")

#: The group's ``--settings`` on its way to the command.
FILE_KEY = "cli.settings_file"
#: What ``now`` in a time means.
NOW_KEY = "cli.now"


def examples(*lines: str) -> str:
    """The end of a help text; click keeps its lines as they are."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


class TimeType(click.ParamType):
    """A time as a person types it: a date, RFC 3339, ``now``, ``now-1h``."""

    name = "T"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return parse_when(str(value), _now(ctx))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _now(ctx: click.Context | None) -> datetime:
    """The same for all options of a command: `--until now` lies not before `--since now`."""
    now = datetime.now(UTC)
    return now if ctx is None else ctx.meta.setdefault(NOW_KEY, now)


TIME = TimeType()

#: How to write one, for help texts.
TIMES = "2026-11-24 (its midnight in UTC), 2026-11-24T08:00:00Z, now, or now-1h (ms, s, m, h, d, w)"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_s(at: datetime | None) -> int | None:
    """Epoch seconds, rounded up: windows start at whole seconds, so [since, until) stays the same."""
    return None if at is None else -((EPOCH - at) // timedelta(seconds=1))


def epoch_ms(at: datetime | None) -> int | None:
    """Epoch milliseconds, rounded up, for the same reason."""
    return None if at is None else -((EPOCH - at) // timedelta(milliseconds=1))


def settings_file_option(command: Callable[P, R]) -> Callable[P, R]:
    """``--settings FILE``."""
    return click.option(
        "--settings",
        "settings_file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="TOML file with settings (else EVENTSINK_SETTINGS).",
    )(command)


def takes_settings(command: Callable[Concatenate[Settings, P], R]) -> Callable[P, R]:
    """Give a command ``--data`` and ``--settings``, and its settings, checked, as the first argument."""

    @click.option(
        "--data",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Data folder (else EVENTSINK_DATA, else ./data).",
    )
    @settings_file_option
    @functools.wraps(command)
    def with_settings(*args: P.args, **kwargs: P.kwargs) -> R:
        data = kwargs.pop("data")
        file = kwargs.pop("settings_file")
        ctx = click.get_current_context(silent=True)
        if file is None and ctx is not None:
            file = ctx.meta.get(FILE_KEY)
        assert data is None or isinstance(data, Path)  # noqa: S101 - click made them
        assert file is None or isinstance(file, Path)  # noqa: S101
        return command(load(os.environ, file, data=data), *args, **kwargs)

    return with_settings


def in_order(since: datetime | None, until: datetime | None) -> None:
    """Raise ``click.BadParameter`` for a range that ends before it begins: nothing can be in it."""
    if since is not None and until is not None and until < since:
        raise click.BadParameter(
            f"{_utc(until)} lies before --since {_utc(since)}: exchange the two", param_hint="--until"
        )


def _utc(at: datetime) -> str:
    return rfc3339((at - EPOCH) // timedelta(milliseconds=1))


def range_options(command: Callable[P, R]) -> Callable[P, R]:
    """``--since`` and ``--until``, in this order."""

    @functools.wraps(command)
    def with_range(*args: P.args, **kwargs: P.kwargs) -> R:
        since_, until_ = kwargs["since"], kwargs["until"]
        assert since_ is None or isinstance(since_, datetime)  # noqa: S101 - click made them
        assert until_ is None or isinstance(until_, datetime)  # noqa: S101
        in_order(since_, until_)
        return command(*args, **kwargs)

    since = click.option(
        "--since",
        type=TIME,
        help=f"From this time on: {TIMES}.  [default: all that is kept]",
    )
    until = click.option("--until", type=TIME, help="Before this time.")
    return since(until(with_range))


def format_option(command: Callable[P, R]) -> Callable[P, R]:
    """``--format``."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to print: table is for people and fits the screen, also through a pager; csv and json are for "
        "programs.",
    )(command)
