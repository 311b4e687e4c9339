"""Cursors: where a page of rows ended. They hold no secret, and who changes one gets other rows or an error."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from topology.sinks import Value
from web.documents import Row

_INT64 = range(-(2**63), 2**63)


class ForeignCursor(ValueError):
    """The cursor is none of ours, or of another question."""


class Cursor(NamedTuple):
    """After the row of this time, these tags and this value. ``of``: a digest of the question that the page answered,
    ``since`` and ``until`` its range, the same for every page."""

    of: str
    since: int | None
    until: int | None
    time: int
    tags: tuple[str, ...]
    value: Value | None

    @classmethod
    def at(cls, row: Row, by: str, since: int | None, until: int | None, *, of: str) -> Cursor:
        """The cursor after ``row``."""
        value = None if by == "time" else row.fields.get(by)
        return cls(_digest(of), since, until, row.time, tuple(value for _, value in row.tags), value)

    def written(self) -> str:
        """As it goes into a URL."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def read(cls, text: str, *, of: str) -> Cursor:
        """Inverse of ``written``. Raises ``ForeignCursor``."""
        try:
            padded = text + "=" * (-len(text) % 4)
            cursor = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=cls)
        except (binascii.Error, ValueError):  # those of msgspec are of the latter
            raise ForeignCursor(
                "the cursor is none of ours: use the one of the page before, as it is"
            ) from None
        if cursor.of != _digest(of) or not all(
            each in _INT64 for each in (cursor.time, cursor.since or 0, cursor.until or 0)
        ):
            raise ForeignCursor(
                "the cursor is of another question: ask with the parameters of the page before, and this one"
            )
        return cursor

    def after(self, rows: Sequence[Row], by: str, *, descending: bool) -> list[Row]:
        """The rows that come after it. ``rows`` are in the order in which they were when it was made."""
        sign = -1 if descending else 1

        def place(time: int, tags: tuple[str, ...], value: Value | None) -> tuple[object, ...]:
            if by == "time":
                return (sign * time, tags)
            return (value is None, 0 if value is None else sign * value, time, tags)

        last = place(self.time, self.tags, self.value)
        return [
            row
            for row in rows
            if place(row.time, tuple(value for _, value in row.tags), row.fields.get(by)) > last
        ]


def _digest(of: str) -> str:
    return hashlib.blake2b(of.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()
