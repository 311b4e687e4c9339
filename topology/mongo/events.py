"""The archive and the dead letters on MongoDB: two collections. The interfaces and their promises: ``sinks.py``.

``time`` and ``received`` are 64-bit epoch milliseconds, as everywhere in eventsink (docs/decisions/0020).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from topology.mongo.connection import Document, Mongo, int64
from topology.position import Position
from topology.sinks import DeadLetter, RawEvent


class MongoRawEvents:
    """``mongo`` may be shared with other stores; closing it closes all."""

    name = "events"

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._events = mongo.collection("events")

    async def open(self) -> None:
        await self._mongo.open()
        await self._events.index("time", [("time", 1), ("position", 1)])
        await self._events.index("type", [("type", 1), ("time", 1), ("position", 1)])
        await self._events.index("space", [("space_id", 1), ("time", 1)])

    async def close(self) -> None:
        await self._mongo.close()

    async def insert(self, events: Sequence[RawEvent]) -> None:
        await self._events.insert_missing([_event_document(event) for event in events])

    async def query(
        self,
        *,
        since: int | None,
        until: int | None,
        type: str | Sequence[str] | None,
        limit: int,
        before: tuple[int, Position] | None = None,
    ) -> Sequence[RawEvent]:
        where: Document = {}
        if type is not None:
            where["type"] = type if isinstance(type, str) else {"$in": list(type)}
        if before is not None:
            time, position = before
            # The bound for the index, then what it lets through of the last millisecond.
            until = time + 1 if until is None else min(until, time + 1)
            where["$or"] = [{"time": {"$lt": int64(time)}}, {"position": {"$lt": int64(position)}}]
        bounds = {"$gte": since, "$lt": until}
        if between := {bound: int64(value) for bound, value in bounds.items() if value is not None}:
            where["time"] = between
        found = await self._events.find(where, sort=[("time", -1), ("position", -1)], limit=limit)
        return [_event(document) for document in found]


class MongoDeadLetters:
    """``mongo`` may be shared with other stores; closing it closes all."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._letters = mongo.collection("dead_letters")

    async def open(self) -> None:
        await self._mongo.open()
        await self._letters.index("position", [("position", 1), ("agent", 1)])

    async def close(self) -> None:
        await self._mongo.close()

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        await self._letters.insert_missing([_letter_document(letter) for letter in letters])

    async def list(
        self, *, limit: int, before: tuple[Position, str, str] | None = None
    ) -> Sequence[DeadLetter]:
        where: Document = {}
        if before is not None:
            position, agent, id_ = int64(before[0]), before[1], before[2]
            where["$or"] = [
                {"position": {"$lt": position}},
                {"position": position, "agent": {"$lt": agent}},
                {"position": position, "agent": agent, "_id": {"$lt": id_}},
            ]
        newest_first = [("position", -1), ("agent", -1), ("_id", -1)]
        found = await self._letters.find(where, sort=newest_first, limit=limit)
        return [_letter(document) for document in found]

    async def get(self, id: str) -> DeadLetter | None:
        found = await self._letters.find_one(id)
        return None if found is None else _letter(found)

    async def count(self) -> int:
        return await self._letters.count()

    async def remove(self, ids: Sequence[str]) -> int:
        return await self._letters.delete({"_id": {"$in": list(ids)}}) if ids else 0


def _event_document(event: RawEvent) -> Document:
    document: Document = event._asdict()
    document["_id"] = document.pop("id")
    for number in ("position", "time", "received"):
        document[number] = int64(document[number])
    document["event"] = msgspec.json.decode(event.event)
    try:
        document["original"] = event.original.decode()
    except UnicodeDecodeError:
        # Not UTF-8: it is kept as binary, which is what the bytes are already.
        pass
    return document


def _event(document: Document) -> RawEvent:
    original = document["original"]
    return RawEvent(
        id=document["_id"],
        position=document["position"],
        time=document["time"],
        received=document["received"],
        type=document["type"],
        space_id=document["space_id"],
        event=msgspec.json.encode(document["event"]),
        original=original.encode() if isinstance(original, str) else original,
    )


def _letter_document(letter: DeadLetter) -> Document:
    document: Document = letter._asdict()
    document["_id"] = document.pop("id")
    for number in ("position", "received", "length"):
        document[number] = int64(document[number])
    return document


def _letter(document: Document) -> DeadLetter:
    document["id"] = document.pop("_id")
    return DeadLetter(**document)
