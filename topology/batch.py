"""A batch: a run of events at consecutive positions, decoded once, handed to agents as one Faust event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas.events import Event
from topology.position import Position


class LogEvent(NamedTuple):
    """An event with its place in the log and in time.

    ``time_ms`` is where it counts: its own time, or its arrival where it has none or lies in the
    future. ``original`` is the event as it came.
    """

    position: Position
    time_ms: int
    received_ms: int
    event: Event
    original: bytes


class Batch(NamedTuple):
    """``first`` and ``last`` bound every position of the messages read, those of refused events included.

    ``events`` are to be processed. ``duplicates`` and ``dead`` are the positions of the others: told apart
    once, before the agents. ``digest`` is of the last message. ``reading`` counts how often the group
    began to read: batches of an earlier reading are void.
    """

    reading: int
    first: Position
    last: Position
    digest: bytes
    events: Sequence[LogEvent]
    duplicates: Sequence[Position]
    dead: Sequence[Position]
    #: ``events``, each type by itself: an agent touches only what it looks at.
    by_type: Mapping[type[Event], Sequence[LogEvent]]
    #: The latest ``time_ms``, None without events.
    latest_ms: int | None

    @property
    def received(self) -> int:
        """Number of events in the messages, whatever became of them."""
        return len(self.events) + len(self.duplicates) + len(self.dead)


def by_type(events: Iterable[LogEvent]) -> Mapping[type[Event], Sequence[LogEvent]]:
    """The events of each type, in order."""
    found: defaultdict[type[Event], list[LogEvent]] = defaultdict(list)
    for event in events:
        found[type(event.event)].append(event)
    return found
