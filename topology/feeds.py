"""What comes of one topic: values pulled from its source, one ahead of Faust."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import faust

from topology.log import ID_HEADER, RECEIVED_HEADER, Message

#: A source yields the values of one topic without end; it is asked for the next only when there is room.
Source = Callable[[], AsyncIterator[object]]

CONTENT_TYPE_HEADER = "content-type"
#: Of one topic at a time, so that topics take turns.
MOST_AT_ONCE = 500


class Batches(faust.Schema[Any, tuple[Message, ...]]):
    """``app.topic(name, schema=Batches())``: the topic's values are tuples of ``topology.log.Message``, all that came
    since the last one, at least one message and at most 2000 or a MiB of bodies. Faust's cost is then paid once a
    batch. The offset of the Faust message is that of the last message in it."""

    def loads_key(self, app: Any, message: Any, **options: Any) -> Any:
        """Messages of a log have no key."""
        return None

    def loads_value(self, app: Any, message: Any, **options: Any) -> Any:
        """The batch as it is."""
        return message.value


class Record(NamedTuple):
    """A message as Faust gets it. ``timestamp`` in epoch seconds."""

    offset: int
    value: object
    timestamp: float
    headers: Mapping[str, bytes] | None


class Feed:
    """Pulls one topic's source ahead of Faust, by one value, in a task of its own: topics do not wait for
    each other."""

    def __init__(self, source: Source, arrived: asyncio.Event) -> None:
        self._source = source
        self._arrived = arrived
        self._queue: asyncio.Queue[object] = asyncio.Queue(1)
        self._number = 0
        #: Of each record that was taken and not dealt with: its offset, and the first that is in it. Ascending.
        self._outstanding: dict[int, int] = {}
        self._newest = -1

    async def run(self) -> None:
        """Pull without end. Raises what the source raises."""
        async for value in self._source():
            await self._queue.put(value)
            self._arrived.set()

    def take(self) -> Sequence[Record]:
        """What is there: of a source of its own one value, numbered from 1."""
        value = self._taken()
        if value is None:
            return ()
        self._number += 1
        return (Record(self._number, value, time.time(), None),)

    @property
    def unfinished(self) -> int | None:
        """The first offset that was taken and not dealt with; None if there is none, and for a source of its own."""
        return next(iter(self._outstanding.values()), None)

    def dealt_with(self, offset: int) -> None:
        """The record at this offset was acknowledged."""
        self._outstanding.pop(offset, None)

    def _note(self, first: int, offset: int) -> None:
        if offset <= self._newest:
            self._outstanding.clear()  # the log was made again: what came of the old one is not there any more
        self._newest = offset
        self._outstanding[offset] = first

    def _taken(self) -> object:
        return None if self._queue.empty() else self._queue.get_nowait()


class BatchFeed(Feed):
    """The log, a batch at a time."""

    def take(self) -> Sequence[Record]:
        """One batch."""
        messages = cast("Sequence[Message] | None", self._taken())
        if messages is None:
            return ()
        last = messages[-1]
        self._note(messages[0].offset, last.offset)
        return (Record(last.offset, tuple(messages), _timestamp(last), None),)


class MessageFeed(Feed):
    """The log, a message at a time."""

    def __init__(self, source: Source, arrived: asyncio.Event) -> None:
        super().__init__(source, arrived)
        self._messages: deque[Message] = deque()

    def take(self) -> Sequence[Record]:
        """Messages, at most ``MOST_AT_ONCE``."""
        if not self._messages:
            self._messages.extend(cast("Sequence[Message] | None", self._taken()) or ())
        count = min(MOST_AT_ONCE, len(self._messages))
        taken = [self._messages.popleft() for _ in range(count)]
        if self._messages:
            self._arrived.set()
        for message in taken:
            self._note(message.offset, message.offset)
        return [
            Record(message.offset, message.body, _timestamp(message), _headers(message)) for message in taken
        ]


def _timestamp(message: Message) -> float:
    return time.time() if message.received_ms is None else message.received_ms / 1000


def _headers(message: Message) -> Mapping[str, bytes]:
    headers = {}
    if message.content_type is not None:
        headers[CONTENT_TYPE_HEADER] = message.content_type.encode()
    if message.event_id is not None:
        headers[ID_HEADER] = message.event_id.encode()
    if message.received_ms is not None:
        headers[RECEIVED_HEADER] = b"%d" % message.received_ms
    return headers
