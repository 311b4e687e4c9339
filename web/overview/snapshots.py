"""The document, made once for everybody who looks at the same range, and not too often.

A store may take long over a range with many keys, and it has events to write: it is asked again only after it has had
ten times as long for other things.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from topology.errors import EventsinkError
from web.overview import spans
from web.overview.shapes import Span
from web.problems import encoded

#: By member of the document, its JSON.
Snapshot: TypeAlias = Mapping[str, bytes]
#: How a member is made. Those that do not depend on the range look away from it.
Part: TypeAlias = Callable[[Span], Awaitable[object]]

#: Nothing is looked at more often.
LEAST_AGE_S = 0.5
#: Of the time of a store that the page may take: one part in so many.
SHARE = 10
#: A store that takes longer is shown as away: what others have said must come.
ANSWER_WITHIN_S = 5.0


@dataclass(slots=True)
class _Kept:
    """The last snapshot of a range; ``until`` when it is fresh."""

    snapshot: Snapshot = field(default_factory=dict)
    until: float = 0.0
    making: asyncio.Task[Snapshot] | None = None


class Snapshots:
    """``parts`` by member of the document. ``clock``: epoch milliseconds."""

    def __init__(self, parts: Mapping[str, Part], clock: Callable[[], int]) -> None:
        self._parts = parts
        self._clock = clock
        self._kept = {name: _Kept() for name in spans.RANGES}

    async def fresh(self, name: str) -> Snapshot:
        """The document of a range, as of a moment ago. A part that is away is null, and ``away`` says why."""
        kept = self._kept[name]
        loop = asyncio.get_running_loop()
        if kept.making is None and loop.time() >= kept.until:
            kept.making = loop.create_task(self._make(name, kept))
        if kept.making is None:
            return kept.snapshot
        # One that leaves must not take the answer from the others.
        return await asyncio.shield(kept.making)

    async def _make(self, name: str, kept: _Kept) -> Snapshot:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            span = spans.span_of(name, self._clock())
            answers = await asyncio.gather(*(_attempt(part(span)) for part in self._parts.values()))
            away: dict[str, str] = {}
            found: dict[str, object] = {"span": span}
            for member, (answer, said) in zip(self._parts, answers, strict=True):
                found[member] = answer
                if said is not None:
                    away[member] = said
            found["away"] = away
            kept.snapshot = await asyncio.to_thread(_encoded, found)
        finally:
            ended = loop.time()
            kept.until = ended + max(LEAST_AGE_S, SHARE * (ended - began))
            kept.making = None
        return kept.snapshot


def document(snapshot: Snapshot) -> bytes:
    """The whole document."""
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in snapshot.items()) + b"}"


def changes(snapshot: Snapshot, known: Snapshot) -> Snapshot:
    """What of it is not known yet. That time has passed is no change by itself."""
    changed = {name: value for name, value in snapshot.items() if known.get(name) != value}
    return changed if changed.keys() - {"span"} else {}


def _encoded(found: Mapping[str, object]) -> Snapshot:
    return {name: encoded(value) for name, value in found.items()}


async def _attempt(call: Awaitable[Any]) -> tuple[object, str | None]:
    """What came, or None and why not."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await call, None
    except TimeoutError:
        return None, f"no answer within {ANSWER_WITHIN_S:g} s"
    except EventsinkError as error:
        return None, str(error)
