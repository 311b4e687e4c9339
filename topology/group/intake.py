"""Intake: the messages of the log into a batch, once per group, before its agents.

In this order: each message into events or refusals; arrivals, which are facts; the place of each event in
time; repeated events. A refusal is a dead letter before the batch is handed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple, TypeAlias, cast

from schemas.events import Event
from schemas.identity import identity
from schemas.reading import MAX_BODY_BYTES, Refusal, read, read_lines
from topology.batch import Batch, LogEvent, by_type
from topology.group.doubles import Doubles
from topology.group.ids import Ids, Sighting
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


#: An event on its way to its place in time: position, message, body, event. No class: there is one for each event.
_Item: TypeAlias = tuple[Position, Message, bytes, Event]


class _Refused(NamedTuple):
    """What is no event."""

    position: Position
    message: Message
    body: bytes
    refusal: Refusal


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
        doubles: Doubles | None = None,
    ) -> None:
        """``doubles``: the rule for downloads that are logged twice, None where it is off."""
        self._group = group
        self._doubles = doubles
        self._ids = ids
        self._store = store
        self._dead_letters = dead_letters
        self._outages = outages
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._last_arrival_ms = 0

    async def admit(self, messages: Sequence[Message], *, epoch: int, reading: int) -> Batch:
        """One batch of all events of these messages. Waits while the store is away."""
        items, refused = _taken_apart(messages, epoch)
        if refused:
            await self._bury(refused)
        now = self._clock_ms()
        events = self._placed(items, now, await self._arrivals(items, now))
        sightings = _sightings(items)
        repeated = await self._ids.repeated(sightings) if sightings else frozenset()
        duplicates: list[Position] = []
        if repeated:
            duplicates = [event.position for event in events if _sighted(event) in repeated]
            events = _without(events, duplicates)
        if self._doubles is not None:
            doubled = await self._doubles.among(events)
            if doubled:
                self._metrics.downloads_doubled(group=self._group).inc(len(doubled))
                duplicates = sorted([*duplicates, *doubled])
                events = _without(events, doubled)
        self._metrics.events_received(group=self._group).inc(len(items) + len(refused))
        return Batch(
            reading,
            first=position(epoch, messages[0].offset),
            last=end_of_message(position(epoch, messages[-1].offset)),
            digest=messages[-1].digest(),
            events=events,
            duplicates=duplicates,
            dead=[each.position for each in refused],
            by_type=by_type(events),
            latest_ms=max([event.time_ms for event in events], default=None),
        )

    def _placed(self, items: Sequence[_Item], now: int, recorded: Mapping[Position, int]) -> list[LogEvent]:
        events: list[LogEvent] = []
        skewed = 0
        for at, message, body, event in items:
            arrival = message.received_ms
            if arrival is None:
                arrival = recorded.get(at, now)
            time = event.time
            if time is None:
                time = arrival
            elif time > arrival + FUTURE_MS:
                time = arrival
                skewed += 1
            events.append(LogEvent(at, time, arrival, event, body))
        if skewed:
            self._metrics.events_skewed(group=self._group).inc(skewed)
        return events

    async def _arrivals(self, items: Sequence[_Item], now: int) -> Mapping[Position, int]:
        """Arrivals that are facts: recorded by whoever read the event first, the same in every replay."""
        open_items = [item for item in items if item[1].received_ms is None]
        if not open_items:
            return {}
        recorded = dict(
            await self._outages.ridden_out(
                "state",
                lambda: self._store.arrivals(open_items[0][0], open_items[-1][0]),
            )
        )
        self._last_arrival_ms = arrival = max(now, self._last_arrival_ms)
        ahead = now + RECORDED_AHEAD_MS
        news = {
            at: arrival
            for at, _, _, event in open_items
            if (event.time is None or event.time > ahead) and at not in recorded
        }
        if news:
            recorded |= await self._outages.ridden_out("state", lambda: self._store.record_arrivals(news))
        return recorded

    async def _bury(self, refused: Sequence[_Refused]) -> None:
        letters = [self._letter(*each) for each in refused]
        await self._outages.ridden_out("dead letters", lambda: self._dead_letters.put(letters))

    def _letter(self, at: Position, message: Message, body: bytes, refusal: Refusal) -> DeadLetter:
        received = message.received_ms
        return dead_letter(
            at,
            body,
            received_ms=self._clock_ms() if received is None else received,
            agent="",
            refusal=refusal,
        )


def _without(events: Sequence[LogEvent], positions: Iterable[Position]) -> list[LogEvent]:
    gone = set(positions)
    return [event for event in events if event.position not in gone]


def _taken_apart(messages: Sequence[Message], epoch: int) -> tuple[list[_Item], list[_Refused]]:
    items: list[_Item] = []
    refused: list[_Refused] = []
    for message in messages:
        at = position(epoch, message.offset)
        body = message.body
        if message.content_type != NDJSON:
            result = read(body)
            if isinstance(result, Refusal):
                refused.append(_Refused(at, message, body, result))
            else:
                items.append((at, message, body, result))
            continue
        lines = read_lines(body)
        if len(lines) > MAX_INDEX:
            too_many = f"too_large: the message has {len(lines)} lines, at most {MAX_INDEX} are read"
            refused.append(_Refused(at, message, body, Refusal("", too_many)))
            continue
        places = cast(Iterable[Position], count(at))
        for place, (line, result) in zip(places, lines, strict=False):
            if isinstance(result, Refusal):
                refused.append(_Refused(place, message, line, result))
            else:
                items.append((place, message, line, result))
    return items, refused


def _sightings(items: Sequence[_Item]) -> list[Sighting]:
    """How to recognise what producers repeat.

    An event with an id and a time of its producer's is recognised by itself. Our own producers stamp what lacks them,
    a whole message at a time, and send it again whole: so its events share one sighting (docs/decisions/0021).
    """
    sightings: list[Sighting] = []
    sighted: Message | None = None
    for at, message, _, event in items:
        if event.id is not None:
            time = message.received_ms if event.time is None else event.time
            if time is not None:
                sightings.append(Sighting(time // 1000, identity(event.source, event.id, time), at))
        elif message is not sighted:
            sighted = message
            received = message.received_ms
            if message.event_id is not None and received is not None:
                known = identity(None, message.event_id, received)
                sightings.append(Sighting(received // 1000, known, end_of_message(at)))
    return sightings


def _sighted(event: LogEvent) -> Position:
    """Where an event is sighted that is recognised at all. No event has the index at which its message is: so none
    that is recognised by itself is there."""
    return event.position if event.event.id is not None else end_of_message(event.position)


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
