"""What a vendor's answer means for the events of the request. One type for each thing that there is to do.

Verdict
├── Delivered      the vendor has all of them
├── Rejected       some will never be taken: put those aside, send the others again
├── Halve          something in it will never be taken: halve until it is found, put that aside
├── Held           some have to wait for a while: send the others again now
├── Later          nothing was taken: all of them again, after a pause
├── Doubtful       they may have been taken: never again, and counted as doubtful
└── Stopped        nothing will be taken until a person has mended something: the agent stops
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Delivered:
    """The vendor has all of them."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """``reasons`` by index in the request: those become dead letters; nothing was taken of the others."""

    reasons: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Halve:
    """Nothing was taken, and which event is to blame is not known. A single one becomes a dead letter."""

    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing was taken. Those with these indexes or ids wait ``for_s`` seconds, and so do new events with the ids."""

    reason: str
    indexes: frozenset[int] = frozenset()
    ids: frozenset[str] = frozenset()
    for_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Later:
    """Nothing was taken, or taking it again does no harm. ``retry_after_s``: the vendor's own wish."""

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Doubtful:
    """They may have been taken, and would count twice if they were sent again. Others wait a moment before they go."""

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """``reason`` says what to mend. The events are kept, but for those that must not be sent twice."""

    reason: str


Verdict: TypeAlias = Delivered | Rejected | Halve | Held | Later | Doubtful | Stopped


@dataclass(slots=True)
class Counts:
    """What became of the events of one batch."""

    folded: int = 0
    dead: int = 0
    ignored: int = 0
