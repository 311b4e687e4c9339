"""The log: the ordered, durable, replayable record of all events. One interface, two implementations
(``sqlite/log.py``, ``rabbitmq/log.py``) that pass one conformance suite (``tests/topology/test_log.py``).

A log is a sequence of messages with ascending offsets from 0; a broker may keep an offset for itself. Most
messages hold one event, in the bytes in which it came; a message of content type ``application/x-ndjson``
holds one a line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Protocol

NDJSON = "application/x-ndjson"
JSON = "application/json"

#: AMQP headers of our own producers (the embedded log has columns for them). ``RECEIVED_HEADER``
#: is the arrival in integer epoch milliseconds. By both together a message that is sent again is recognised, with
#: all its events that have no id of their own.
ID_HEADER = "x-eventsink-id"
RECEIVED_HEADER = "x-eventsink-received"


#: Where reading begins that has read nothing yet: at the first message, near the last one, at the next one to come,
#: or at what arrived from a time on.
LogStart = Literal["first", "last", "next"] | datetime


class Outgoing(NamedTuple):
    """A message on its way into the log, stamped before its first publish so that resending is harmless.

    ``event_id`` and ``received_ms`` are None only in a message that is passed on as a foreign producer sent it.
    """

    body: bytes
    content_type: str
    event_id: str | None
    received_ms: int | None


class Message(NamedTuple):
    """A message read from the log. Everything a foreign producer leaves out is None."""

    offset: int
    body: bytes
    content_type: str | None = None
    event_id: str | None = None
    received_ms: int | None = None

    def digest(self) -> bytes:
        """16 bytes that tell this message from another one at the same offset of another log."""
        hashing = hashlib.blake2b(self.body, digest_size=16)
        hashing.update(repr((self.content_type, self.event_id, self.received_ms)).encode())
        return hashing.digest()


class LogReader(Protocol):
    """One consumer of the log. Not for concurrent use."""

    @property
    def cut(self) -> int:
        """Messages, at most, that retention cut off under this reader before they could be fetched."""

    async def fetch(self, *, limit: int, max_bytes: int, timeout: timedelta) -> Sequence[Message]:
        """Everything that is there, at least one message unless ``timeout`` passes first.

        Ascending, each offset once. At most ``limit`` messages; stops before the one that
        would exceed ``max_bytes`` (a single larger message is still returned). A lost connection is
        mended inside; raises ``LogReplaced`` when reading on could skip or repeat in silence.
        """

    async def at_end(self) -> bool:
        """Whether the log is confirmed to hold nothing that was not fetched. May do I/O."""

    async def close(self) -> None:
        """Stop consuming; idempotent."""


class LogReplaced(Exception):  # a signal between log and group, never shown
    """The log was deleted and made again, or reading had to be reopened: check the digest, then read anew."""


class Log(Protocol):
    """The record itself. ``open`` declares what is missing and proves the connection."""

    async def open(self) -> None:
        """Connect and declare. Raises ``Unavailable`` or ``SettingsError``."""

    async def close(self) -> None:
        """Release connections; idempotent."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Append durably: when this returns, the messages survive the kill of any process.

        Raises ``Unavailable`` if that is not certain; the caller may send the very same messages again. Raises
        ``Refused`` for a message larger than a broker takes and ``ValueError`` for one that this log cannot carry;
        others of the same call may be in it all the same.
        """

    async def reader(self, offset: int) -> LogReader:
        """A reader whose first message has the lowest available offset that is >= ``offset``."""

    async def message_at(self, offset: int) -> Message | None:
        """The message at exactly this offset, None if the log has none there."""

    async def first_offset(self) -> int | None:
        """The lowest available offset, None if the log is empty."""

    async def end_offset(self) -> int:
        """The offset that the next message will get, as far as is known (may lag behind on a broker)."""

    async def offset_since(self, start: LogStart) -> int:
        """The offset from which a reading that begins at ``start`` reads; the end where nothing is left to read.

        Never too late: what arrived at or after a time is in it, and messages from before that time may be. A broker
        knows the arrival of what it wrote in one go (a chunk), not of each message, and ``last`` is its last chunk.
        """


async def message_before(log: Log, offset: int) -> Message | None:
    """The message that comes before ``offset``, None if none is left: by it a reading that begins there knows its log
    again. Raises ``Unavailable``."""
    for before in range(offset - 1, max(-1, offset - 3), -1):  # a broker may keep one offset for itself
        if (found := await log.message_at(before)) is not None:
            return found
    return None
