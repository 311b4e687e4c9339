"""Consignments: the events of one batch on their way, and what became of them. They are over in the order in which
they came: so the position never passes an event that is not settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from topology.batch import LogEvent
from topology.forwarding.outcomes import Counts
from topology.forwarding.vendor import Parcel


class Consignment:
    """``then`` is called when everything in it and before it is settled, once."""

    def __init__(self, reading: int) -> None:
        self.reading = reading
        self.counts = Counts()
        #: Events that were handed over and are not settled.
        self.open = 0
        #: Whether all events of the batch were looked at.
        self.complete = False
        self._then: Callable[[], None] | None = None
        self.on_change: Callable[[], None] = _nothing

    def then(self, call: Callable[[], None]) -> None:
        self._then = call
        self.on_change()

    @property
    def over(self) -> bool:
        return self.complete and self.open == 0 and self._then is not None

    def finish(self) -> None:
        assert self._then is not None  # noqa: S101 - it is over
        self._then()


@dataclass(slots=True, eq=False)
class Item:
    """An event to be sent."""

    event: LogEvent
    parcel: Parcel
    consignment: Consignment

    @property
    def bytes(self) -> int:
        """About what it holds in memory."""
        return len(self.event.original) + len(self.parcel.body)


class Consignments:
    """Those of one forwarder, the first first. ``finished`` is called when some were."""

    def __init__(self, finished: Callable[[], None]) -> None:
        self._all: deque[Consignment] = deque()
        self._finished = finished

    def __len__(self) -> int:
        return len(self._all)

    def begin(self, reading: int) -> Consignment:
        made = Consignment(reading)
        made.on_change = self.advance
        self._all.append(made)
        return made

    def advance(self) -> None:
        """Finish what is over, from the first on."""
        while self._all and self._all[0].over:
            self._all.popleft().finish()
        self._finished()

    def forget(self) -> None:
        """Those of a reading that was given up: nobody is told any more."""
        self._all.clear()
        self._finished()


def _nothing() -> None:
    """Until it belongs to a forwarder."""
