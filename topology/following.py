"""Following a log: its messages from a start on, without end, for whoever keeps no rows and no epochs.

start           reading begins at
first           the first message that is left
last            the last message (on RabbitMQ the last chunk: what the broker wrote in one go)
next            what is published from now on
a number        that offset
RFC 3339        what arrived then or later (on RabbitMQ to the chunk: earlier messages may come before)
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta

from schemas.times import from_rfc3339
from topology.errors import SettingsError
from topology.log import Log, LogReader, LogReplaced, LogStart, Message, message_before
from topology.outages import Outages

log = logging.getLogger(__name__)

MOST_MESSAGES = 2000
MOST_BYTES = 1 << 20
FETCH_TIMEOUT = timedelta(seconds=1)


def read_start(text: str) -> LogStart | int:
    """The start that ``text`` names. Raises ``SettingsError``."""
    match text:
        case "first":
            return "first"
        case "last":
            return "last"
        case "next":
            return "next"
    if text.isascii() and text.isdigit():
        return int(text)
    ms = from_rfc3339(text)
    if ms is None:
        raise SettingsError(
            f"start={text!r} in the broker's URL is no start: write first, last, next, an offset, "
            "or a time such as 2026-01-31T00:00:00Z"
        )
    return datetime.fromtimestamp(ms / 1000, UTC)


class Following:
    """``async for messages in following.batches()``: what came since the last batch, at least one message, each once
    and in order, from ``start`` on.

    An outage is waited for, and reading goes on after the last message that was handed out. Where that is not
    possible an ERROR says so: messages that were cut off before they were read are left out, and a log that was
    deleted and made again is read from its first message. So is one that ends before the number at which reading is
    to start: that number is of another log. Raises ``SettingsError`` where somebody declared the log otherwise.
    """

    def __init__(self, source: Log, start: LogStart | int, outages: Outages | None = None) -> None:
        self._log = source
        self._start = start
        self._outages = outages or Outages()
        #: Where reading goes on; None before the log was asked where ``start`` is.
        self._next: int | None = None
        #: The message before it, by which the log is known again; None where there is none.
        self._last: Message | None = None

    async def batches(self) -> AsyncGenerator[Sequence[Message], None]:
        """Once for each ``Following``."""
        while True:
            try:
                reader = await self._outages.ridden_out("log", self._opened)
            except LogReplaced:
                continue
            try:
                while True:
                    messages = await self._outages.ridden_out("log", lambda: _fetched(reader))  # noqa: B023 - called at once
                    if messages:
                        self._last = messages[-1]
                        self._next = self._last.offset + 1
                        yield messages
            except LogReplaced:
                continue
            finally:
                await reader.close()

    async def _opened(self) -> LogReader:
        offset = await self._where()
        reader = await self._log.reader(offset)
        try:
            # The log may have been made again in between.
            if await self._where() != offset:
                raise LogReplaced
        except BaseException:
            await reader.close()
            raise
        return reader

    async def _where(self) -> int:
        if self._next is None:
            self._next, self._last = await self._beginning()
        if self._next > 0 and (why := await self._replaced(self._next)) is not None:
            log.error(
                "the log is a new one (%s): reading it from its first message; what the old log held and nobody had "
                "read is lost",
                why,
            )
            self._next, self._last = 0, None
        return self._next

    async def _beginning(self) -> tuple[int, Message | None]:
        offset = self._start if isinstance(self._start, int) else await self._log.offset_since(self._start)
        return offset, await message_before(self._log, offset) if offset else None

    async def _replaced(self, wanted: int) -> str | None:
        """How it shows that this is not the log in which ``wanted`` is next; None where it is, as far as can be
        told. Where messages from ``wanted`` on were cut off, that is said, and reading goes on behind them."""
        last = self._last
        if last is not None:
            found = await self._log.message_at(last.offset)
            if found is not None:
                same = found.digest() == last.digest()
                return None if same else f"message {last.offset} is not what was read there"
        elif (end := await self._log.end_offset()) < wanted:
            return f"it ends before message {wanted}, at {end}"
        first = await self._log.first_offset()
        if last is not None and (first is None or first <= last.offset):
            return f"message {last.offset} is not there"
        if first is not None and first > wanted + 1:  # a broker may keep one offset for itself
            log.error(
                "data at risk: messages %d to %d of the log were cut off before they were read; keep the log longer",
                wanted,
                first - 1,
            )
            # Told once: from here on the log is known by what is left of it.
            self._next, self._last = first, None
        return None


async def _fetched(reader: LogReader) -> Sequence[Message]:
    return await reader.fetch(limit=MOST_MESSAGES, max_bytes=MOST_BYTES, timeout=FETCH_TIMEOUT)
