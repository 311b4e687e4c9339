"""The connection to MongoDB: whose database it is, and what its errors become."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from bson.errors import InvalidDocument
from pymongo import MongoClient
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DocumentTooLarge,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from tests.servers.mongo import Mongo as MongoServer
from topology.errors import EventsinkError, ForeignSchema, Refused, SettingsError, Unavailable
from topology.mongo.connection import ACKNOWLEDGE_TIMEOUT_MS, META, Mongo
from topology.mongo.events import MongoDeadLetters, MongoRawEvents
from topology.mongo.state import MongoState

SOON = timedelta(seconds=0.2)

WRONG_URLS = {
    "escape": "mongodb://user:hunt%zz@127.0.0.1/",
    "slash in the password": "mongodb://user:12/hunt@127.0.0.1/",
    "letters before a slash": "mongodb://user:hunt/er2@127.0.0.1/",
    "question mark in the password": "mongodb://user:hunt?er2@127.0.0.1/",
    "at sign in the password": "mongodb://user:hu@nt@127.0.0.1:x/",
    "port": "mongodb://127.0.0.1:port/",
    "mistyped option": "mongodb://user:hunt@127.0.0.1/?autSource=admin",
    "wrong value": "mongodb://127.0.0.1/?tls=perhaps",
    "no such file": "mongodb://127.0.0.1/?tls=true&tlsCAFile=/nowhere/ca.pem",
}


@pytest.mark.parametrize("url", WRONG_URLS.values(), ids=WRONG_URLS.keys())
async def test_a_wrong_url_is_a_wrong_setting_and_is_not_printed(url: str) -> None:
    mongo = Mongo(url, "eventsink", patience=SOON)
    with pytest.raises(SettingsError) as error:
        await mongo.open()
    said = str(error.value)
    assert "EVENTSINK_MONGO_URL" in said
    assert "\n" not in said
    assert "hunt" not in said
    assert "12" not in said.replace("127.0.0.1", "")
    assert error.value.__cause__ is None, "a traceback would print the driver's words"


async def test_a_server_that_is_not_there_is_named_without_user_and_password() -> None:
    mongo = Mongo("mongodb://user:hunter2@127.0.0.1:1/?authSource=admin", "eventsink", patience=SOON)
    with pytest.raises(Unavailable) as error:
        await mongo.open()
    assert str(error.value) == (
        "MongoDB at 127.0.0.1:1 does not answer: start it, or check its address "
        "(127.0.0.1:1: [Errno 111] Connection refused)"
    )
    await mongo.close()


def bulk(*codes: int, concern: bool = False) -> BulkWriteError:
    return BulkWriteError(
        {
            "writeErrors": [
                {"index": at, "code": code, "errmsg": f"code {code}"} for at, code in enumerate(codes)
            ],
            "writeConcernErrors": [{"code": 64, "errmsg": "waiting for replication timed out"}]
            if concern
            else [],
        }
    )


DUPLICATE, INVALID, UNKNOWN = 11000, 121, 8

TRANSLATIONS: list[tuple[Exception, type[EventsinkError]]] = [
    (ServerSelectionTimeoutError("no server"), Unavailable),
    (AutoReconnect("connection closed"), Unavailable),
    (NetworkTimeout("timed out"), Unavailable),
    (NotPrimaryError("not primary"), Unavailable),
    (WTimeoutError("waiting for replication timed out", 64, {}), Unavailable),
    (OperationFailure("Authentication failed.", 18), Unavailable),
    (OperationFailure("out of disk space", 14031), Unavailable),
    (OperationFailure("some new thing", 9999), Unavailable),
    (OperationFailure("object to insert too large", 10334), Refused),
    (InvalidDocument("cannot encode"), Refused),
    (DocumentTooLarge("too large"), Refused),
    (OverflowError("MongoDB can only handle up to 8-byte ints"), Refused),
    (bulk(INVALID), Refused),
    (bulk(DUPLICATE, INVALID), Refused),
    (bulk(INVALID, UNKNOWN), Unavailable),
    (bulk(DUPLICATE, concern=True), Unavailable),
    (bulk(INVALID, concern=True), Unavailable),
    (ConfigurationError("DNS query failed"), Unavailable),
]

AT_THE_START: list[tuple[Exception, type[EventsinkError]]] = [
    (OperationFailure("Authentication failed.", 18), SettingsError),
    (OperationFailure("not authorized on eventsink", 13), SettingsError),
    (ConfigurationError("The DNS query name does not exist"), SettingsError),
    (OperationFailure("An existing index has the same name", 86), ForeignSchema),
    (ServerSelectionTimeoutError("no server"), Unavailable),
]


@pytest.mark.parametrize(("error", "expected"), TRANSLATIONS, ids=lambda value: str(value)[:60])
def test_errors_in_the_running_are_to_be_tried_again_or_of_the_document(
    error: Exception, expected: type[EventsinkError]
) -> None:
    with pytest.raises(expected), Mongo("mongodb://127.0.0.1/", "eventsink").translating():
        raise error


@pytest.mark.parametrize(("error", "expected"), AT_THE_START, ids=lambda value: str(value)[:60])
def test_errors_at_the_start_may_also_be_of_the_settings(
    error: Exception, expected: type[EventsinkError]
) -> None:
    with (
        pytest.raises(expected),
        Mongo("mongodb://127.0.0.1/", "eventsink").translating(opening=True),
    ):
        raise error


@pytest.mark.servers
async def test_writes_are_acknowledged_by_the_majority_whatever_the_url_says(mongo: MongoServer) -> None:
    separator = "&" if "?" in mongo.url else "?"
    connection = Mongo(f"{mongo.url}{separator}w=0&readPreference=secondary", mongo.database)
    await connection.open()
    collection: Any = connection.driver_collection("rows").delegate
    assert collection.write_concern.document == {
        "w": "majority",
        "j": True,
        "wtimeout": ACKNOWLEDGE_TIMEOUT_MS,
    }
    assert collection.read_preference.name == "Primary"
    await connection.close()


@pytest.mark.servers
async def test_stores_share_a_connection_and_processes_a_database(mongo: MongoServer) -> None:
    connections = [Mongo(mongo.url, mongo.database) for _ in range(3)]
    states = [MongoState(connection) for connection in connections]
    others = [kind(connection) for connection in connections for kind in (MongoRawEvents, MongoDeadLetters)]
    stores = [*states, *others]
    await asyncio.gather(*(store.open() for store in stores))
    assert await states[0].epoch() == 0
    for store in stores:
        await store.close()
    await states[0].open()
    assert await states[0].epoch() == 0
    await states[0].close()


@pytest.mark.servers
@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (None, "somebody else"),
        ({"_id": "schema", "application": "other", "version": 1}, "somebody else"),
        ({"_id": "schema", "application": "eventsink", "version": 99}, "schema 99"),
    ],
)
async def test_a_database_that_is_not_ours_is_refused(
    mongo: MongoServer, marker: dict[str, object] | None, said: str
) -> None:
    with MongoClient[dict[str, object]](mongo.url) as client:
        database = client[mongo.database]
        database["events"].insert_one({"theirs": 1})
        if marker is not None:
            database[META].insert_one(marker)
        with pytest.raises(ForeignSchema, match=said) as error:
            await Mongo(mongo.url, mongo.database).open()
        assert "EVENTSINK_MONGO_DATABASE" in str(error.value)
        assert database["events"].count_documents({}) == 1
