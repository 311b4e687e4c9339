"""The items of a request, each read by itself: the line that is kept of it in the log, or why it is no event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from schemas.events import Event
from schemas.reading import Refusal, read, read_lines

#: The largest item. A single event that is larger is a mistake, and would make every reader of the log slow.
MAX_ITEM_BYTES = 64 << 10


class Taken(NamedTuple):
    """An item that is an event: ``line`` is what is kept of it, in the bytes in which it came unless it had to be
    put into another form."""

    line: bytes
    event: Event


Item: TypeAlias = Taken | Refusal


def read_items(items: Sequence[bytes]) -> list[Item]:
    """Events and foreign shapes, as the readers of the log will read them. Raises nothing."""
    if len(items) == 1:
        return [read_item(items[0])]
    fitting = [item for item in items if len(item) <= MAX_ITEM_BYTES]
    # All at once: a decoder that is called once for all lines costs a quarter of one that is called for each.
    lines = read_lines(b"\n".join(fitting))
    if [line for line, _ in lines] != fitting:  # an item that is blank, or more than a line
        return [read_item(item) for item in items]
    found = iter(lines)
    return [_item(*next(found)) if len(item) <= MAX_ITEM_BYTES else read_item(item) for item in items]


def read_item(item: bytes) -> Item:
    """As ``read_items``, of one."""
    fitting = fitted(item)
    return fitting if isinstance(fitting, Refusal) else _item(fitting, read(fitting))


def fitted(item: bytes) -> bytes | Refusal:
    """The item if it is not too large; blanks around it do not count, and are cut off where they are many."""
    if len(item) <= MAX_ITEM_BYTES:
        return item
    item = item.strip()
    if len(item) <= MAX_ITEM_BYTES:
        return item
    return Refusal("", f"the item has {len(item)} bytes, at most 64 KiB are taken")


def _item(line: bytes, event: Event | Refusal) -> Item:
    return event if isinstance(event, Refusal) else Taken(line, event)
