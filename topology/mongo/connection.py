"""The connection to MongoDB. No other module imports its driver.

Motor is in maintenance upstream; its successor, PyMongo's own asynchronous API, has nearly the same calls,
and changing over is to be a change of this file alone.

Whatever is written is acknowledged by a majority and in the journal, whatever the URL says. No call
waits for ever, and every error of the driver leaves here as one of ``errors.py``, without the URL.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from bson import Int64
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.errors import BSONError
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import ReadPreference, ReturnDocument, UpdateOne, WriteConcern
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidName,
    OperationFailure,
    PyMongoError,
)

from topology.errors import EventsinkError, ForeignSchema, Refused, SettingsError, Unavailable

Document = dict[str, Any]
Keys = Sequence[tuple[str, int]]

#: Positions and times are 64 bits wide in every document, however small the number.
int64 = Int64

SCHEMA_VERSION = 2
META = "eventsink_meta"
MARKER = "schema"

#: How long a call looks for a server that takes writes: an election is over in less.
PATIENCE = timedelta(seconds=5)
#: The largest bulk takes a second or two. A process that ends waits for the call in flight, and has 10 s for all.
SOCKET_TIMEOUT_MS = 8_000
#: For members that are to acknowledge a write but do not answer; less than the socket waits.
ACKNOWLEDGE_TIMEOUT_MS = 6_000
#: Connections are many and calls are short: who waits longer for one waits for a server that hangs.
POOL_TIMEOUT_MS = 5_000

_DUPLICATE_KEY = 11000
#: Unauthorized, AuthenticationFailed, AtlasError (wrong credentials there).
_CREDENTIALS = frozenset({13, 18, 8000})
#: What is wrong is the document itself: BadValue, FailedToParse, TypeMismatch, InvalidBSON, Overflow, field
#: names with $ or dots, DocumentValidationFailure, BSONObjectTooLarge. Of all else more patience is no loss.
_OF_THE_DOCUMENT = frozenset({2, 9, 14, 15, 22, 52, 57, 121, 10334})
#: IndexOptionsConflict, IndexKeySpecsConflict: a collection of that name is indexed by somebody else.
_OTHER_INDEX = frozenset({85, 86})


class _PlainInt(TypeDecoder):
    """The driver's own class of 64-bit integers is one that msgspec does not write."""

    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


_CODEC: CodecOptions[Document] = CodecOptions(type_registry=TypeRegistry([_PlainInt()]))


class Mongo:
    """A database on a server. Stores that live in it share one: each opens it, closing it closes all."""

    def __init__(self, url: str, database: str, *, patience: timedelta = PATIENCE) -> None:
        self._url = url
        self._name = database
        self._patience_ms = int(patience / timedelta(milliseconds=1))
        self._opening = asyncio.Lock()
        self._client: AsyncIOMotorClient[Document] | None = None
        self._server = "MongoDB"

    async def open(self) -> None:
        """Connect and make the database ours; once. Raises ``Unavailable``, ``SettingsError``, ``ForeignSchema``."""
        async with self._opening:
            if self._client is not None:
                return
            client = self._made()
            try:
                with self.translating(opening=True):
                    await self._make_ours(self._database(client))
            except BaseException:
                client.close()
                raise
            self._client = client

    async def close(self) -> None:
        """Close all connections; idempotent."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def collection(self, name: str) -> Collection:
        """A collection of the database; needs no open connection until it is used."""
        return Collection(self, name)

    def driver_collection(self, name: str) -> AsyncIOMotorCollection[Document]:
        """The driver's own object. Raises ``Unavailable`` if this is not open."""
        if self._client is None:
            raise Unavailable(f"the connection to {self._server} is closed: open it first")
        return self._database(self._client)[name]

    @contextmanager
    def translating(self, *, opening: bool = False) -> Iterator[None]:
        """Errors of the driver inside leave as ours. While ``opening``, wrong credentials and settings are
        for a person to mend; later on they are an outage like any other."""
        try:
            yield
        except (PyMongoError, BSONError, OverflowError, UnicodeEncodeError) as error:
            raise self.translated(error, opening=opening) from error

    def translated(self, error: Exception, *, opening: bool = False) -> EventsinkError:
        """Our error for one of the driver's."""
        said = _said(error)
        if isinstance(error, BulkWriteError):
            codes = {each["code"] for each in error.details["writeErrors"]}
            if not error.details["writeConcernErrors"] and codes <= _OF_THE_DOCUMENT | {_DUPLICATE_KEY}:
                return Refused(f"{self._server} refused a document: {said}")
            return Unavailable(f"{self._server} did not take all documents: {said}")
        if isinstance(error, BSONError | OverflowError | UnicodeEncodeError):
            return Refused(f"not a document that MongoDB can keep: {said}")
        if isinstance(error, ConfigurationError | InvalidName) and opening:
            return self._wrong_url(error)
        if isinstance(error, OperationFailure):
            if error.code in _CREDENTIALS:
                kind = SettingsError if opening else Unavailable
                return kind(
                    f"{self._server} refuses the credentials: check user, password and authSource of the URL in "
                    f"EVENTSINK_MONGO_URL or EVENTSINK_STATE_URL, and the user's right to write to {self._name}"
                )
            if error.code in _OTHER_INDEX:
                return self._foreign(f"has other indexes than ours ({said}): drop them")
            if error.code in _OF_THE_DOCUMENT:
                return Refused(f"{self._server} refused a document: {said}")
            return Unavailable(f"{self._server} could not do it now: {said}")
        return Unavailable(f"{self._server} does not answer: start it, or check its address ({said})")

    def _made(self) -> AsyncIOMotorClient[Document]:
        try:
            with warnings.catch_warnings():
                # What the driver would ignore, a mistyped option, is an error of the settings.
                warnings.simplefilter("error", UserWarning)
                client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
                    self._url,
                    appname="eventsink",
                    serverSelectionTimeoutMS=self._patience_ms,
                    connectTimeoutMS=self._patience_ms,
                    socketTimeoutMS=SOCKET_TIMEOUT_MS,
                    waitQueueTimeoutMS=POOL_TIMEOUT_MS,
                    # Whoever calls repeats; the driver's own repetition would double every limit above.
                    retryWrites=False,
                    retryReads=False,
                )
        except (PyMongoError, ValueError, TypeError, OSError, UserWarning) as error:
            # Without its cause: the driver's message may quote a part of the password.
            raise self._wrong_url(error) from None
        if "@" in self._url.partition("://")[2].partition("/")[2].partition("?")[0]:
            # A password with a slash: the driver takes what comes before it for the address.
            client.close()
            raise self._wrong_url(ValueError("@ in the name of a database"))
        self._server = f"MongoDB at {_hosts(self._url)}"
        return client

    def _wrong_url(self, error: Exception) -> SettingsError:
        reason = "" if "@" in self._url else f" ({_said(error)})"
        return SettingsError(
            "the URL in EVENTSINK_MONGO_URL or EVENTSINK_STATE_URL does not lead to a MongoDB: check its host, port "
            f"and options, and percent-encode special characters of user and password{reason}"
        )

    def _database(self, client: AsyncIOMotorClient[Document]) -> AsyncIOMotorDatabase[Document]:
        return client.get_database(
            self._name,
            codec_options=_CODEC,
            write_concern=WriteConcern(w="majority", j=True, wtimeout=ACKNOWLEDGE_TIMEOUT_MS),
            # A secondary may not have yet what was written a moment ago.
            read_preference=ReadPreference.PRIMARY,
        )

    async def _make_ours(self, database: AsyncIOMotorDatabase[Document]) -> None:
        """The marker is the first document ever: collections, seen before its absence, are not ours."""
        names = [name for name in await database.list_collection_names() if not name.startswith("system.")]
        meta = database[META]
        marker = await meta.find_one({"_id": MARKER})
        if marker is None:
            if names:
                raise self._foreign("holds somebody else's collections: move them away")
            marker = {"_id": MARKER, "application": "eventsink", "version": SCHEMA_VERSION}
            try:
                await meta.insert_one(marker)
            except DuplicateKeyError:
                # Another process was faster; which release it is of is still to be looked at.
                marker = await meta.find_one({"_id": MARKER})
        if marker is None or marker.get("application") != "eventsink":
            raise self._foreign("is marked as somebody else's: leave it to them")
        if marker.get("version") != SCHEMA_VERSION:
            raise self._foreign(
                f"has schema {marker.get('version')}, this eventsink reads {SCHEMA_VERSION}: "
                "use the release that made it"
            )

    def _foreign(self, what: str) -> ForeignSchema:
        return ForeignSchema(
            f"the database {self._name} of {self._server} {what}, or name another in EVENTSINK_MONGO_DATABASE"
        )


class Collection:
    """What the stores need of a collection. Every call may be repeated as it is after ``Unavailable``."""

    def __init__(self, mongo: Mongo, name: str) -> None:
        self._mongo = mongo
        self._name = name

    async def index(self, name: str, keys: Keys, *, where: Document | None = None) -> None:
        """Make the index unless it is there. ``where``: only documents that meet it are in it."""
        only: dict[str, Any] = {} if where is None else {"partialFilterExpression": where}
        with self._mongo.translating(opening=True):
            await self._driver.create_index(keys, name=name, **only)

    async def insert_missing(self, documents: Sequence[Document]) -> list[Any]:
        """Insert each whose ``_id`` is not there yet; returns the ids of those that were there already."""
        if not documents:
            return []
        with self._mongo.translating():
            try:
                await self._driver.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                return [documents[index]["_id"] for index in self._duplicates(error)]
        return []

    async def write_over(self, changes: Sequence[tuple[Document, Document]]) -> list[Any]:
        """For each pair of a condition, which names an ``_id``, and values: set the values in the document
        that meets the condition, or make one. Returns the ids in whose place a document stands that does not
        meet it; those were left as they are, all others are written."""
        if not changes:
            return []
        operations = [UpdateOne(condition, {"$set": values}, upsert=True) for condition, values in changes]
        with self._mongo.translating():
            try:
                await self._driver.bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                return [changes[index][0]["_id"] for index in self._duplicates(error)]
        return []

    async def set_each(self, changes: Sequence[tuple[Document, Document]]) -> int:
        """For each pair of a condition and values: set the values in the document that meets it, if any does.
        Returns how many documents there were."""
        if not changes:
            return 0
        operations = [UpdateOne(condition, {"$set": values}) for condition, values in changes]
        with self._mongo.translating():
            return (await self._driver.bulk_write(operations, ordered=False)).matched_count

    async def set_one(self, condition: Document, values: Document) -> bool:
        """Set the values in the document that meets the condition; tells whether there was one."""
        with self._mongo.translating():
            return bool((await self._driver.update_one(condition, {"$set": values})).matched_count)

    async def change(self, id: str, change: Document) -> Document:
        """Apply operators (``$inc``, ``$max``) to one document, made if it is missing, at once; returns it changed."""
        with self._mongo.translating():
            document: Document | None = await self._driver.find_one_and_update(
                {"_id": id}, change, upsert=True, return_document=ReturnDocument.AFTER
            )
        if document is None:
            raise Unavailable("MongoDB did not answer with the document that it changed: try again")
        return document

    async def find(
        self,
        where: Document,
        *,
        sort: Keys = (),
        limit: int = 0,
        fields: Sequence[str] | None = None,
    ) -> list[Document]:
        """The documents that meet ``where``; all of them with limit 0, whole ones without ``fields``."""
        with self._mongo.translating():
            cursor = self._driver.find(where, fields, limit=limit, sort=list(sort) or None)
            return await cursor.to_list(None)

    async def find_one(self, id: str) -> Document | None:
        """One document, None if it is not there."""
        with self._mongo.translating():
            found: Document | None = await self._driver.find_one({"_id": id})
            return found

    async def delete(self, where: Document) -> int:
        """Delete what meets ``where``; returns how many."""
        with self._mongo.translating():
            return int((await self._driver.delete_many(where)).deleted_count)

    async def count(self, where: Document | None = None) -> int:
        """How many documents there are, or meet ``where``."""
        with self._mongo.translating():
            return int(await self._driver.count_documents(where or {}))

    @property
    def _driver(self) -> AsyncIOMotorCollection[Document]:
        return self._mongo.driver_collection(self._name)

    def _duplicates(self, error: BulkWriteError) -> list[int]:
        """Which of an unordered bulk found their ``_id`` taken, if nothing else went wrong. The others are written."""
        details: Mapping[str, Any] = error.details
        errors = details["writeErrors"]
        if details["writeConcernErrors"] or any(each["code"] != _DUPLICATE_KEY for each in errors):
            raise error
        return [each["index"] for each in errors]


def _said(error: Exception) -> str:
    """The driver's words, without the description of its timeouts and topology that it appends."""
    text = str(error)
    if isinstance(error, BulkWriteError):
        failed = [*error.details["writeErrors"], *error.details["writeConcernErrors"]]
        unusual = [each for each in failed if each.get("code") != _DUPLICATE_KEY]
        text = str((unusual or failed)[0].get("errmsg")) if failed else text
    elif isinstance(error, OperationFailure) and error.details is not None:
        text = str(error.details.get("errmsg", text))
    for appended in (" (configured timeouts", ", Timeout:"):
        text = text.partition(appended)[0]
    return " ".join(text.split())[:200] or type(error).__name__


def _hosts(url: str) -> str:
    """The servers in a URL that the driver accepts."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2]
