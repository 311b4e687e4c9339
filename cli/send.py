"""``eventsink send``: JSON lines straight into the log."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from cli import parts
from cli.options import examples, takes_settings
from cli.publishing import (
    MESSAGE_EVENTS,
    PATIENCE,
    Pace,
    checked,
    from_thread,
    last_time_ms,
    opened,
    publish,
    stamped,
)
from cli.settings import Settings
from cli.tables import plain
from schemas.reading import Refusal
from topology.errors import EventsinkError, Unavailable

#: Lines that are refused with the reason: a file that is none of events has as many as it is long.
REASONS = 10
#: Stretches of others that are held before they are told of.
STRETCHES = 200


@dataclass(slots=True)
class Tally:
    """What became of the lines so far. ``unsure_from``: the first line that is on its way to the log and
    was not confirmed by it."""

    sent: int = 0
    refused: int = 0
    unsure_from: int | None = None

    def written(self) -> str:
        """For people: numbers, and from where to go on."""
        numbers = f"sent {self.sent}, refused {self.refused}"
        return (
            numbers
            if self.unsure_from is None
            else f"{numbers}, not confirmed from line {self.unsure_from} on"
        )


class Display:
    """What a person sees meanwhile: a bar on a terminal, and on any stderr the lines that were refused."""

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task("sending", total=total, events="")

    def at(self, end: int, tally: Tally) -> None:
        """Everything up to byte ``end`` of the source is done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=end, events=f"{tally.sent} events")

    def say(self, text: str) -> None:
        """One line on stderr, without breaking the bar."""
        if self._progress is not None:
            self._progress.console.print(plain(text), markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(plain(text), err=True)


class Refused:
    """The lines that were refused: the first few with the reason, of the others the numbers."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told = 0
        #: First and last line of each stretch of lines that are told of by their numbers alone.
        self._stretches: list[tuple[int, int]] = []

    def add(self, number: int, refusal: Refusal) -> None:
        """Numbers ascend."""
        if self._told < REASONS:
            self._told += 1
            self._say(_written_refusal(number, refusal))
        elif self._stretches and self._stretches[-1][1] == number - 1:
            self._stretches[-1] = self._stretches[-1][0], number
        else:
            if len(self._stretches) == STRETCHES:  # of a file of any length
                self.end()
            self._stretches.append((number, number))

    def end(self) -> None:
        """Tell of what was not told of yet."""
        if self._stretches:
            lines = sum(last - first + 1 for first, last in self._stretches)
            numbers = ", ".join(
                f"{first}" if first == last else f"{first}-{last}" for first, last in self._stretches
            )
            self._say(f"{lines} more refused: line{'' if lines == 1 else 's'} {numbers}")
            self._stretches.clear()


@click.command(
    epilog=examples(
        "eventsink send events.jsonl",
        "eventsink send --shift-to-now tests/data/clowder-6h.jsonl",
        "tail -f events.jsonl | eventsink send --rate 100 -",
    )
)
@click.argument("file", default="-", type=click.Path(allow_dash=True))
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most N events a second."
)
@click.option(
    "--shift-to-now", is_flag=True, help="Move the times of all events so that the last one is now."
)
@takes_settings
def command(settings: Settings, file: str, rate: float | None, shift_to_now: bool) -> int:
    """Publish JSON lines straight to the log.

    FILE holds one event a line, canonical or in any shape of Clowder; "-" or nothing reads standard
    input. A line that is no event is named on stderr (the first 10 with the reason) and not sent; the
    rest goes on, and the exit code is 1.

    Lines that have id and time are counted once however often they are sent. Others are new events each
    time the command is run.
    """
    tally = Tally()
    with _opened(file) as stream:
        source: BinaryIO = stream
        later_s = 0
        if shift_to_now:
            source = _seekable(stream)
            later_s = _seconds_to_now(source)
        with _display(source) as display:
            try:
                asyncio.run(_send(settings, source, tally, display, rate=rate, later_s=later_s))
            except KeyboardInterrupt:
                raise EventsinkError(f"stopped: {tally.written()}") from None
            except EventsinkError as error:
                if tally == Tally():
                    raise
                raise EventsinkError(f"{error} ({tally.written()})") from None
    click.echo(tally.written())
    return 1 if tally.refused else 0


async def _send(
    settings: Settings,
    stream: BinaryIO,
    tally: Tally,
    display: Display,
    *,
    rate: float | None,
    later_s: int,
) -> None:
    # Slow sending goes in small messages, a tenth of a second each, so that it is even.
    message_events = MESSAGE_EVENTS if rate is None else max(1, min(MESSAGE_EVENTS, int(rate / 10)))
    pace = None if rate is None else Pace(rate)

    def waiting(error: Unavailable) -> None:
        display.say(f"trying again for {PATIENCE.total_seconds():.0f} s: {error}")

    refused = Refused(display.say)
    log = parts.open_log(settings)
    try:
        await opened(log, settings.log, waiting=waiting)
        begin = 0
        async for block in from_thread(checked(stream, message_events=message_events, later_s=later_s)):
            tally.refused += len(block.refused)
            for number, refusal in block.refused:
                refused.add(number, refusal)
            # Unhurried, the messages of a block go out together; else each when it is due.
            together = len(block.packed) or 1
            step = together if pace is None else 1
            for start in range(0, len(block.packed), step):
                some = block.packed[start : start + step]
                events = sum(each.events for each in some)
                tally.unsure_from = some[0].first_line
                if pace is not None:
                    await pace.before(events)
                await publish(log, stamped(some, time.time_ns() // 1_000_000), waiting=waiting)
                tally.unsure_from = None
                tally.sent += events
                display.at(begin + (block.end - begin) * (start + step) // together, tally)
            begin = block.end
            display.at(begin, tally)
    finally:
        refused.end()
        await log.close()


def _written_refusal(number: int, refusal: Refusal) -> str:
    where = f" at {refusal.pointer}" if refusal.pointer else ""
    return f"line {number} refused{where}: {refusal.reason}"


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        stream = click.get_binary_stream("stdin")
        if sys.stdin.isatty():
            click.echo("reading events from the terminal, one a line; Ctrl-D ends", err=True)
        # Without the buffer, as files below: a buffer would not see what is read beside it, and so not rewind.
        raw = getattr(stream, "raw", None)
        yield cast(BinaryIO, raw) if isinstance(raw, io.FileIO) else stream
        return
    path = Path(file)
    try:
        if path.is_dir():
            raise EventsinkError(f"{file} is a folder: name a file with one event a line")
        opened = path.open("rb", buffering=0)
    except OSError as error:
        raise EventsinkError(
            f"{file} cannot be read ({error.strerror}): name a file with one event a line"
        ) from None
    with opened:
        yield opened


def _seekable(stream: BinaryIO) -> BinaryIO:
    """The stream itself if it can be read twice, else a copy."""
    if stream.seekable():
        return stream
    copy = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives until the command ends
    shutil.copyfileobj(stream, copy)
    copy.seek(0)
    return copy


def _seconds_to_now(stream: BinaryIO) -> int:
    start = stream.tell()
    latest = last_time_ms(stream)
    stream.seek(start)
    # Whole seconds, rounded down: every form of a time can be moved by them, and nothing lies in the future.
    return 0 if latest is None else (time.time_ns() // 1_000_000 - latest) // 1000


@contextlib.contextmanager
def _display(stream: BinaryIO) -> Iterator[Display]:
    console = Console(stderr=True)
    total = _size(stream)
    if not console.is_terminal:
        yield Display(None, total)
        return
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
    if total is not None:
        columns += [BarColumn(), TaskProgressColumn(), TimeRemainingColumn()]
    columns.append(TextColumn("{task.fields[events]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        yield Display(progress, total)


def _size(stream: BinaryIO) -> int | None:
    try:
        found = os.fstat(stream.fileno())
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
