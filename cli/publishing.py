"""Lines into the log: checked, packed into messages, stamped, published, and published again if need be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import BinaryIO, NamedTuple, TypeVar

import click

from cli.lines import Line, blocks
from cli.settings import LogSettings
from cli.shifting import shifted
from schemas.reading import MAX_BODY_BYTES, Refusal, read
from topology.errors import Unavailable
from topology.log import NDJSON, Log, Outgoing
from topology.uuid7 import uuid7

T = TypeVar("T")

#: A message of a hundred events costs the log hardly more than one of a single event.
MESSAGE_EVENTS = 100
PATIENCE = timedelta(seconds=30)
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 4.0

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


class Packed(NamedTuple):
    """The body of one message, and which lines are in it."""

    body: bytes
    events: int
    first_line: int


class Checked(NamedTuple):
    """A block of lines, checked: what is to be published, and what is not, and why."""

    packed: Sequence[Packed]
    refused: Sequence[tuple[int, Refusal]]
    end: int


def checked(stream: BinaryIO, *, message_events: int, later_s: int) -> Iterator[Checked]:
    """Read the stream to its end. Blank lines are passed over. ``later_s`` moves the times of the events."""
    for block in blocks(stream, longest_bytes=MAX_BODY_BYTES):
        good: list[tuple[int, bytes]] = []
        refused: list[tuple[int, Refusal]] = []
        for line in block.lines:
            body = _accepted(line, later_s)
            if isinstance(body, Refusal):
                refused.append((line.number, body))
            elif body is not None:
                good.append((line.number, body))
        yield Checked(list(_packed(good, message_events)), refused, block.end)


def last_time_ms(stream: BinaryIO) -> int | None:
    """The latest time of any event of the stream, None if no event has one."""
    latest: int | None = None
    for block in blocks(stream, longest_bytes=MAX_BODY_BYTES):
        for line in block.lines:
            if line.body is not None and not line.body.isspace():
                event = read(line.body)
                if not isinstance(event, Refusal) and event.time is not None:
                    latest = event.time if latest is None else max(latest, event.time)
    return latest


def _accepted(line: Line, later_s: int) -> bytes | Refusal | None:
    if line.body is None:
        return Refusal("", "too_large: the line is over 1 MiB")
    if not line.body or line.body.isspace():
        return None
    event = read(line.body)
    if isinstance(event, Refusal):
        return event
    if not later_s or event.time is None:
        return line.body
    return shifted(line.body, later_s, event.time)


def _packed(lines: Sequence[tuple[int, bytes]], message_events: int) -> Iterator[Packed]:
    bodies: list[bytes] = []
    size = first = 0
    for number, body in lines:
        # A message over 1 MiB would be a dead letter as a whole.
        if bodies and (len(bodies) == message_events or size + len(body) > MAX_BODY_BYTES):
            yield Packed(b"\n".join(bodies), len(bodies), first)
            bodies, size = [], 0
        if not bodies:
            first = number
        bodies.append(body)
        size += len(body) + 1
    if bodies:
        yield Packed(b"\n".join(bodies), len(bodies), first)


def stamped(packed: Sequence[Packed], now_ms: int) -> list[Outgoing]:
    """The messages, with an id and an arrival each, once and before their first publish."""
    return [Outgoing(each.body, NDJSON, uuid7(now_ms), now_ms) for each in packed]


async def publish(
    log: Log,
    messages: Sequence[Outgoing],
    *,
    waiting: Callable[[Unavailable], None],
    patience: timedelta = PATIENCE,
    sleep: Sleep = asyncio.sleep,
    clock: Clock | None = None,
) -> None:
    """Publish; while the log is away, the very same messages again. ``waiting`` is told of the first
    failure. Raises ``Unavailable`` when ``patience`` is at its end."""
    await patiently(
        lambda: log.publish(messages), waiting=waiting, patience=patience, sleep=sleep, clock=clock
    )


async def opened(log: Log, settings: LogSettings, *, waiting: Callable[[Unavailable], None]) -> None:
    """Open the log to publish to. That an embedded one is made for it is said on stderr: the wrong folder may be why
    it is not there. Raises what opening raises."""
    if not settings.embedded:
        await patiently(log.open, waiting=waiting)
        return
    file = settings.url.path
    new = not file.exists()
    await log.open()  # what is wrong with a file stays wrong
    if new:
        click.echo(
            f"{file.parent.absolute()} is new: `eventsink up` with the same --data reads what is sent to it",
            err=True,
        )


async def patiently(
    act: Callable[[], Awaitable[None]],
    *,
    waiting: Callable[[Unavailable], None],
    patience: timedelta = PATIENCE,
    sleep: Sleep = asyncio.sleep,
    clock: Clock | None = None,
) -> None:
    """Call ``act`` until it succeeds, with growing pauses. Raises its last ``Unavailable`` when
    ``patience`` is at its end."""
    now = clock or asyncio.get_running_loop().time
    wait_s = FIRST_WAIT_S
    gives_up: float | None = None
    while True:
        try:
            await act()
            return
        except Unavailable as error:
            if gives_up is None:
                gives_up = now() + patience.total_seconds()
                waiting(error)
            left_s = gives_up - now()
            if left_s <= 0:
                raise
            asked_s = error.retry_after.total_seconds() if error.retry_after is not None else 0.0
            await sleep(min(max(wait_s, asked_s), left_s))
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)


class Pace:
    """At most ``rate`` events a second, measured from the first one, so that pauses do not add up."""

    def __init__(self, rate: float, *, sleep: Sleep = asyncio.sleep, clock: Clock | None = None) -> None:
        self._rate = rate
        self._sleep = sleep
        self._clock = clock or asyncio.get_running_loop().time
        self._began: float | None = None
        self._events = 0

    async def before(self, events: int) -> None:
        """Wait until the next ``events`` are due."""
        now = self._clock()
        if self._began is None:
            self._began = now
        due = self._began + self._events / self._rate
        self._events += events
        if due > now:
            await self._sleep(due - now)


class _End:
    """No more items."""


async def from_thread(items: Iterator[T]) -> AsyncIterator[T]:
    """The items, made in a thread of their own, one ahead. The thread is not waited for: it may sit in
    a read of a terminal for ever."""
    loop = asyncio.get_running_loop()
    made: asyncio.Queue[T | _End | BaseException] = asyncio.Queue()
    wanted = threading.Semaphore(2)
    gone = threading.Event()

    def hand(item: T | _End | BaseException) -> bool:
        if gone.is_set():
            return False
        try:
            loop.call_soon_threadsafe(made.put_nowait, item)
        except RuntimeError:
            return False  # the loop ended meanwhile
        return True

    def make() -> None:
        try:
            for item in items:
                wanted.acquire()
                if not hand(item):
                    return
            hand(_End())
        except BaseException as error:  # noqa: BLE001 - raised where the items are awaited
            hand(error)

    threading.Thread(target=make, name="lines", daemon=True).start()
    try:
        while True:
            item = await made.get()
            if isinstance(item, _End):
                return
            if isinstance(item, BaseException):
                raise item
            yield item
            wanted.release()
    finally:
        gone.set()
        wanted.release()
