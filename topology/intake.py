"""Intake: the messages of the log into a batch, once per group, before its agents.

In this order: each message into events or refusals; arrivals, which are facts; the place of each event in
time; repeated events. A refusal is a dead letter before the batch is handed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from schemas.events import Event
from schemas.identity import identity
from schemas.reading import MAX_BODY_BYTES, Refusal, read, split
from topology.batch import Batch, LogEvent
from topology.ids import Ids, Sighting
from topology.log import NDJSON, Message
from topology.metrics import Metrics
from topology.outages import Outages
from topology.position import MAX_INDEX, Position, end_of_message, position, written
from topology.sinks import DeadLetter, DeadLetters
from topology.state import StateStore

#: Of a body that is too large to be read, this much is kept.
KEPT_OF_TOO_LARGE_BYTES = 64 << 10

#: An event this far ahead of its arrival is placed at the arrival.
FUTURE_MS = 5 * 60_000
#: From here on the arrival is recorded: a minute before it is needed, so that two groups which
#: read the event at nearly the same moment cannot come to different answers.
RECORDED_AHEAD_MS = 4 * 60_000


class _Item(NamedTuple):
    position: Position
    message: Message
    body: bytes
    result: Event | Refusal


class Intake:
    """Makes the batches of one reading of the log. ``clock_ms`` is the reader's clock."""

    def __init__(
        self,
        group: str,
        ids: Ids,
        store: StateStore,
        dead_letters: DeadLetters,
        *,
        outages: Outages,
        metrics: Metrics,
        clock_ms: Callable[[], int],
    ) -> None:
        self._group = group
        self._ids = ids
        self._store = store
        self._dead_letters = dead_letters
        self._outages = outages
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._last_arrival_ms = 0

    async def admit(self, messages: Sequence[Message], *, epoch: int, reading: int) -> Batch:
        """One batch of all events of these messages. Waits while the store is away."""
        items = [item for message in messages for item in self._items(message, epoch)]
        refused = [item for item in items if isinstance(item.result, Refusal)]
        if refused:
            await self._bury(refused)
        events, sightings = await self._placed(items)
        repeated = await self._ids.repeated(sightings) if sightings else frozenset()
        self._metrics.received(self._group, len(items))
        return Batch(
            reading,
            first=position(epoch, messages[0].offset),
            last=end_of_message(position(epoch, messages[-1].offset)),
            digest=messages[-1].digest(),
            events=[event for event in events if event.position not in repeated] if repeated else events,
            duplicates=sorted(repeated),
            dead=[item.position for item in refused],
        )

    def _items(self, message: Message, epoch: int) -> list[_Item]:
        at = position(epoch, message.offset)
        body = message.body
        if message.content_type != NDJSON:
            return [_Item(at, message, body, read(body))]
        lines = split(body)
        if len(lines) > MAX_INDEX:
            too_many = Refusal(
                "", f"too_large: the message has {len(lines)} lines, at most {MAX_INDEX} are read"
            )
            return [_Item(at, message, body, too_many)]
        return [_Item(Position(at + i), message, line, read(line)) for i, line in enumerate(lines)]

    async def _placed(self, items: Sequence[_Item]) -> tuple[list[LogEvent], list[Sighting]]:
        now = self._clock_ms()
        recorded = await self._arrivals(items, now)
        events: list[LogEvent] = []
        sightings: list[Sighting] = []
        skewed = 0
        for at, message, body, event in items:
            if isinstance(event, Refusal):
                continue
            arrival = recorded.get(at)
            if arrival is None:
                arrival = now if message.received_ms is None else message.received_ms
            time = event.time
            if time is None:
                time = arrival
            elif time > arrival + FUTURE_MS:
                time = arrival
                skewed += 1
            sighting = _sighting(event, message, at)
            if sighting is not None:
                sightings.append(sighting)
            known = None if sighting is None else sighting.identity
            events.append(LogEvent(at, time, arrival, event, known, body))
        if skewed:
            self._metrics.skewed(self._group, skewed)
        return events, sightings

    async def _arrivals(self, items: Sequence[_Item], now: int) -> Mapping[Position, int]:
        """Arrivals that are facts: recorded by whoever read the event first, the same in every replay."""
        open_items = [
            item
            for item in items
            if item.message.received_ms is None and not isinstance(item.result, Refusal)
        ]
        if not open_items:
            return {}
        recorded = dict(
            await self._outages.ridden_out(
                "state",
                lambda: self._store.arrivals(open_items[0].position, open_items[-1].position),
            )
        )
        self._last_arrival_ms = arrival = max(now, self._last_arrival_ms)
        news = {
            item.position: arrival
            for item in open_items
            if item.position not in recorded
            and (
                (time := item.result.time) is None  # type: ignore[union-attr]  # no refusals here
                or time > now + RECORDED_AHEAD_MS
            )
        }
        if news:
            recorded |= await self._outages.ridden_out("state", lambda: self._store.record_arrivals(news))
        return recorded

    async def _bury(self, refused: Sequence[_Item]) -> None:
        letters = [self._letter(item, item.result) for item in refused if isinstance(item.result, Refusal)]
        await self._outages.ridden_out("dead letters", lambda: self._dead_letters.put(letters))

    def _letter(self, item: _Item, refusal: Refusal) -> DeadLetter:
        received = item.message.received_ms
        return dead_letter(
            item.position,
            item.body,
            received_ms=self._clock_ms() if received is None else received,
            agent="",
            refusal=refusal,
        )


def _sighting(event: Event, message: Message, at: Position) -> Sighting | None:
    """How to recognise the event where id and time are its producer's; ours stamp what lacks them."""
    own_id = event.id
    if own_id is None:
        if message.event_id is None:
            return None
        own_id = f"{message.event_id}.{at & MAX_INDEX}"
    time = message.received_ms if event.time is None else event.time
    if time is None:
        return None
    return Sighting(time // 1000, identity(event.source, own_id, time), at)


def dead_letter(at: Position, body: bytes, *, received_ms: int, agent: str, refusal: Refusal) -> DeadLetter:
    """The letter of an event that the intake (``agent`` empty) or an agent cannot process."""
    place = written(at).replace("/", "-")
    return DeadLetter(
        id=f"{place}-{agent}" if agent else place,
        position=at,
        received=received_ms,
        agent=agent,
        reason=refusal.reason,
        pointer=refusal.pointer,
        body=body if len(body) <= MAX_BODY_BYTES else body[:KEPT_OF_TOO_LARGE_BYTES],
        length=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )
