"""The store of rows on MongoDB: five collections. The interface and its promises: ``state.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from topology.errors import Conflict, Superseded
from topology.mongo.connection import Document, Mongo, int64
from topology.position import Position
from topology.state import GroupState, Request, RowKey, RowWrite, StoredRow

#: Ids in one question: far from the 16 MB that a question may have.
_SOUGHT_AT_A_TIME = 2000
_EPOCH = "partition 0"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(GroupState).decode


class MongoState:
    """``mongo`` may be shared with other stores; closing it closes all."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._rows = mongo.collection("rows")
        self._groups = mongo.collection("groups")
        self._epochs = mongo.collection("epochs")
        self._arrivals = mongo.collection("arrivals")
        self._requests = mongo.collection("requests")

    async def open(self) -> None:
        await self._mongo.open()
        await self._rows.index("owed", [("table", 1), ("until", 1)], where={"owed": True})
        await self._rows.index("purge", [("table", 1), ("until", 1)])
        await self._requests.index("group", [("group", 1)])

    async def close(self) -> None:
        await self._mongo.close()

    # -- who works --

    async def begin(self, group: str) -> GroupState:
        return _group(await self._groups.change(group, {"$inc": {"generation": 1}}))

    async def generation(self, group: str) -> int:
        state = await self.read_group(group)
        return 0 if state is None else state.generation

    async def save_group(self, group: str, state: GroupState) -> None:
        ours = {"_id": group, "generation": state.generation}
        if not await self._groups.set_one(ours, {"state": _encode(state)}):
            raise Superseded(f"another worker took over group {group}: this one stops, nothing is lost")

    async def read_group(self, group: str) -> GroupState | None:
        found = await self._groups.find_one(group)
        return None if found is None else _group(found)

    async def read_groups(self) -> Mapping[str, GroupState]:
        return {document["_id"]: _group(document) for document in await self._groups.find({})}

    # -- which log --

    async def epoch(self) -> int:
        found = await self._epochs.find_one(_EPOCH)
        return 0 if found is None else int(found["epoch"])

    async def raise_epoch(self, above: int) -> int:
        raised = await self._epochs.change(_EPOCH, {"$max": {"epoch": above + 1}})
        return int(raised["epoch"])

    # -- rows --

    async def load_rows(self, keys: Sequence[RowKey]) -> Mapping[RowKey, StoredRow]:
        found = {}
        for first in range(0, len(keys), _SOUGHT_AT_A_TIME):
            ids = [_id(key) for key in keys[first : first + _SOUGHT_AT_A_TIME]]
            for document in await self._rows.find({"_id": {"$in": ids}}):
                row = _row(document)
                found[row.key] = row
        return found

    async def save_rows(self, writes: Sequence[RowWrite]) -> None:
        changes = [
            ({"_id": _id(row.key), "version": int64(expected)}, _values(row)) for row, expected in writes
        ]
        taken = await self._rows.write_over(changes)
        if not taken:
            return
        # The very version that was to be written is success: an earlier answer was lost.
        there = {}
        for first in range(0, len(taken), _SOUGHT_AT_A_TIME):
            ids = taken[first : first + _SOUGHT_AT_A_TIME]
            for document in await self._rows.find({"_id": {"$in": ids}}, fields=["version"]):
                there[document["_id"]] = document["version"]
        others = set(taken)
        conflicts = [
            row.key for row, _ in writes if _id(row.key) in others and there.get(_id(row.key)) != row.version
        ]
        if conflicts:
            raise Conflict(conflicts)

    async def owed_rows(self, tables: Sequence[str], limit: int) -> Sequence[StoredRow]:
        found = await self._rows.find({"owed": True, "table": {"$in": list(tables)}}, limit=limit)
        return [_row(document) for document in found]

    async def settle_rows(self, settled: Sequence[tuple[RowKey, int]]) -> None:
        matched = await self._rows.set_each(
            [({"_id": _id(key), "version": int64(version)}, {"owed": False}) for key, version in settled]
        )
        if matched < len(settled):
            await self._rows.set_each(
                [
                    ({"_id": _id(key), "version": {"$ne": int64(version)}}, {"owed": True})
                    for key, version in settled
                ]
            )

    async def owe_rows(self, keys: Sequence[RowKey]) -> None:
        await self._rows.set_each([({"_id": _id(key)}, {"owed": True}) for key in keys])

    async def count_owed(self, table: str, *, before: int) -> int:
        return await self._rows.count({"owed": True, "table": table, "until": {"$lt": int64(before)}})

    async def keys_of(self, table: str) -> Sequence[RowKey]:
        found = await self._rows.find({"partition": 0, "table": table}, fields=RowKey._fields)
        return [_key(document) for document in found]

    async def keys_between(self, table: str, start: int, end: int) -> Sequence[RowKey]:
        # A window's ``until`` is its start, and that is what there is an index of.
        between = {"$gte": int64(start), "$lt": int64(end)}
        found = await self._rows.find(
            {"partition": 0, "table": table, "until": between, "at": between}, fields=RowKey._fields
        )
        return [_key(document) for document in found]

    async def purge_rows(self, table: str, *, before: int, upto: Position, owed: bool = False) -> int:
        old = {
            "partition": 0,
            "table": table,
            "until": {"$lt": int64(before)},
            "upto": {"$lte": int64(upto)},
        }
        return await self._rows.delete(old if owed else old | {"owed": False})

    # -- requests --

    async def put_request(self, request: Request) -> None:
        await self._requests.insert_missing([{"_id": request.id, **_request_values(request)}])

    async def requests(self, group: str) -> Sequence[Request]:
        found = await self._requests.find({"group": group}, sort=[("_id", 1)])
        return [_request(document) for document in found]

    async def request(self, id: str) -> Request | None:
        found = await self._requests.find_one(id)
        return None if found is None else _request(found)

    async def save_request(self, request: Request, *, expected: int) -> bool:
        read = {"_id": request.id, "version": int64(expected)}
        if await self._requests.set_one(read, _request_values(request)):
            return True
        there = await self.request(request.id)
        return there is not None and (there.version, there.state) == (request.version, request.state)

    async def delete_request(self, id: str) -> None:
        await self._requests.delete({"_id": id})

    # -- facts --

    async def arrivals(self, first: Position, last: Position) -> Mapping[Position, int]:
        between = {"_id": {"$gte": int64(first), "$lte": int64(last)}}
        return {document["_id"]: document["arrival_ms"] for document in await self._arrivals.find(between)}

    async def record_arrivals(self, arrivals: Mapping[Position, int]) -> Mapping[Position, int]:
        there = await self._arrivals.insert_missing(
            [
                {"_id": int64(position), "arrival_ms": int64(arrival_ms)}
                for position, arrival_ms in arrivals.items()
            ]
        )
        holding = dict(arrivals)
        for first in range(0, len(there), _SOUGHT_AT_A_TIME):
            ids = there[first : first + _SOUGHT_AT_A_TIME]
            for document in await self._arrivals.find({"_id": {"$in": ids}}):
                holding[document["_id"]] = document["arrival_ms"]
        return holding

    async def purge_arrivals(self, upto: Position, before_ms: int) -> None:
        await self._arrivals.delete({"_id": {"$lte": int64(upto)}, "arrival_ms": {"$lt": int64(before_ms)}})


def _id(key: RowKey) -> str:
    """Unambiguous whatever the names hold: where the table's ends is told by its length."""
    return f"{key.partition}:{key.at}:{len(key.table)}:{key.table}:{key.key}"


def _values(row: StoredRow) -> Document:
    return {
        "partition": row.key.partition,
        "table": row.key.table,
        "at": int64(row.key.at),
        "key": row.key.key,
        "version": int64(row.version),
        "upto": int64(row.upto),
        "owed": row.owed,
        "data": row.data,
        "until": int64(row.until),
    }


def _key(document: Document) -> RowKey:
    return RowKey(document["table"], document["at"], document["key"], document["partition"])


def _row(document: Document) -> StoredRow:
    return StoredRow(
        _key(document),
        document["version"],
        document["upto"],
        bool(document["owed"]),
        document["data"],
        document["until"],
    )


def _request_values(request: Request) -> Document:
    return {
        "group": request.group,
        "what": request.what,
        "state": request.state,
        "version": int64(request.version),
    }


def _request(document: Document) -> Request:
    return Request(
        id=document["_id"],
        group=document["group"],
        what=document["what"],
        state=document["state"],
        version=document["version"],
    )


def _group(document: Document) -> GroupState:
    generation = document["generation"]
    state = document.get("state")
    if state is None:
        return GroupState(generation=generation)
    return msgspec.structs.replace(_decode(state), generation=generation)
