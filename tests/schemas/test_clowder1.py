"""Clowder 1, each kind of message in the shape that each version sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.clowder1 import ANONYMOUS
from schemas.events import (
    Archived,
    Event,
    ExtractionSubmitted,
    FileUploaded,
    LoggedIn,
    Pinged,
    ResourceDownloaded,
    ResourceViewed,
    ResponseTimes,
    SignedUp,
    Unarchived,
)
from schemas.reading import Refusal, read, read_value

AT = 1_795_467_603_855
USER = "f9270f4eb8b333a8e5446dd4"
RESOURCE = "3cbe87db05c42381bf910c3a"
DATASET = "2adf559a11cbc2884a5012dc"

#: Names are free text, null or "": they are never read, so they never matter.
NAMES: dict[str, Any] = {
    "resource_name": "soil 2020.csv",
    "author_id": USER,
    "author_name": None,
    "user_name": "",
}

UPLOAD = {"category": "upload", **NAMES, "user_id": USER, "size": 0, "created": AT}
DOWNLOAD = {
    "category": "download",
    "type": "file",
    "resource_id": RESOURCE,
    **NAMES,
    "user_id": USER,
    "size": 42,
    "created": AT,
}
VIEW = {
    "category": "view_resource",
    "type": "dataset",
    "resource_id": RESOURCE,
    **NAMES,
    "user_id": USER,
    "created": AT,
}
EXTRACTION = {
    "category": "extraction",
    "type": "file",
    "extractor_name": "ncsa.wordcount",
    "resource_id": RESOURCE,
    **NAMES,
    "user_id": USER,
    "created": AT,
}
LOGIN = {"category": "user_activity", "type": "login", "user_id": USER, "user_name": "Bob", "created": AT}
STATUS = {
    "category": "service_status",
    "type": "up",
    "service_name": "clowder",
    "response_time_avg": "0.045 ms",
    "response_time_min": "45 us",
    "response_time_max": "0.1 s",
    "response_time_loss": "0%",
    "uptime": 0.9993,
    "created": AT,
}

CURRENT = [
    (
        {**UPLOAD, "dataset_id": DATASET},
        FileUploaded(time=AT, user_id=USER, file_id=None, dataset_id=DATASET, bytes=0),
    ),
    (UPLOAD, FileUploaded(time=AT, user_id=USER, file_id=None, bytes=0)),
    ({**UPLOAD, "dataset_id": None}, FileUploaded(time=AT, user_id=USER, file_id=None, bytes=0)),
    ({**UPLOAD, "dataset_id": ""}, FileUploaded(time=AT, user_id=USER, file_id=None, bytes=0)),
    (
        DOWNLOAD,
        ResourceDownloaded(time=AT, user_id=USER, resource_type="file", resource_id=RESOURCE, bytes=42),
    ),
    (
        {**DOWNLOAD, "type": "dataset"},
        ResourceDownloaded(time=AT, user_id=USER, resource_type="dataset", resource_id=RESOURCE, items=42),
    ),
    (
        {**DOWNLOAD, "size": None},
        ResourceDownloaded(time=AT, user_id=USER, resource_type="file", resource_id=RESOURCE),
    ),
    *[
        (
            {**VIEW, "type": kind},
            ResourceViewed(time=AT, user_id=USER, resource_type=kind, resource_id=RESOURCE),
        )
        for kind in ("dataset", "file", "collection")
    ],
    (
        {**VIEW, "type": "space"},
        ResourceViewed(time=AT, user_id=USER, resource_type="space", resource_id=RESOURCE, space_id=RESOURCE),
    ),
    (
        {**VIEW, "user_id": ANONYMOUS},
        ResourceViewed(time=AT, user_id="0" * 24, resource_type="dataset", resource_id=RESOURCE),
    ),
    ({**VIEW, "user_id": None}, ResourceViewed(time=AT, resource_type="dataset", resource_id=RESOURCE)),
    ({**VIEW, "user_id": ""}, ResourceViewed(time=AT, resource_type="dataset", resource_id=RESOURCE)),
    *[
        (
            {**EXTRACTION, "type": kind},
            ExtractionSubmitted(
                time=AT,
                user_id=USER,
                job_id=None,
                extractor="ncsa.wordcount",
                resource_type=kind,
                resource_id=RESOURCE,
            ),
        )
        for kind in ("file", "dataset", "selection")
    ],
    (LOGIN, LoggedIn(time=AT, user_id=USER)),
    ({**LOGIN, "type": "signup"}, SignedUp(time=AT, user_id=USER)),
    (
        {**DOWNLOAD, "category": "archive"},
        Archived(time=AT, user_id=USER, resource_type="file", resource_id=RESOURCE, bytes=42),
    ),
    (
        {**DOWNLOAD, "category": "archive", "type": "dataset"},
        Archived(time=AT, user_id=USER, resource_type="dataset", resource_id=RESOURCE, items=42),
    ),
    (
        {**DOWNLOAD, "category": "unarchive"},
        Unarchived(time=AT, user_id=USER, resource_type="file", resource_id=RESOURCE, bytes=42),
    ),
    (
        {**DOWNLOAD, "category": "unarchive", "type": "dataset"},
        Unarchived(time=AT, user_id=USER, resource_type="dataset", resource_id=RESOURCE, items=42),
    ),
    (
        STATUS,
        Pinged(
            time=AT,
            service="clowder",
            region="unknown",
            up=True,
            response_ms=ResponseTimes(min=0.045, avg=0.045, max=100.0),
            loss=0.0,
        ),
    ),
    # Without a category, so v1.15.0. It sent no time.
    (
        {"dataset_id": DATASET, "dataset_author_id": "x", "uploader_id": USER, "filename": "a", "length": 7},
        FileUploaded(user_id=USER, file_id=None, dataset_id=DATASET, bytes=7),
    ),
    (
        {"uploader_id": USER, "uploader_name": "Bob", "filename": "a", "length": 7},
        FileUploaded(user_id=USER, file_id=None, bytes=7),
    ),
    (
        {"type": "file", "uploader_id": "x", "downloader_id": USER, "filename": "a", "length": 7},
        ResourceDownloaded(user_id=USER, resource_type="file", resource_id=None, bytes=7),
    ),
    (
        {
            "type": "dataset",
            "dataset_id": DATASET,
            "dataset_author_id": "x",
            "downloader_id": USER,
            "files_length": 5,
            "folder_length": 2,
        },
        ResourceDownloaded(user_id=USER, resource_type="dataset", resource_id=DATASET, items=7),  # 5 + 2
    ),
    (
        {"type": "dataset", "dataset_id": DATASET, "downloader_id": USER},
        ResourceDownloaded(user_id=USER, resource_type="dataset", resource_id=DATASET),
    ),
    (
        {"type": "file", "resource_id": RESOURCE, "author_id": "x", "viewer_id": USER, "viewer_name": "Bob"},
        ResourceViewed(user_id=USER, resource_type="file", resource_id=RESOURCE),
    ),
    (
        {"type": "space", "resource_id": RESOURCE, "viewer_id": "", "viewer_name": "Anonymous"},
        ResourceViewed(user_id=ANONYMOUS, resource_type="space", resource_id=RESOURCE, space_id=RESOURCE),
    ),
    (
        {"type": "dataset", "extractor_name": "e", "resource_id": RESOURCE, "submitter_id": USER},
        ExtractionSubmitted(
            user_id=USER, job_id=None, extractor="e", resource_type="dataset", resource_id=RESOURCE
        ),
    ),
    ({"type": "signup", "user_id": USER, "user_name": "Bob"}, SignedUp(user_id=USER)),
    ({"type": "login", "user_id": USER, "user_name": "Bob"}, LoggedIn(user_id=USER)),
    (
        {"type": "login", "user_id": USER, "created": 1_795_467_603},
        LoggedIn(user_id=USER, time=1_795_467_603_000),
    ),
    ({"category": None, "type": "login", "user_id": USER}, LoggedIn(user_id=USER)),
]


@pytest.mark.parametrize(("message", "event"), CURRENT)
def test_each_message_is_read_as_its_canonical_event(message: dict[str, Any], event: Event) -> None:
    assert read(json.dumps(message).encode()) == event
    assert read(json.dumps(message, ensure_ascii=False, indent=1).encode()) == event
    assert read_value(message) == event


@pytest.mark.parametrize(
    ("created", "time"),
    [
        (AT, AT),
        (1_795_467_603, 1_795_467_603_000),
        (1_795_467_603.855, AT),
        (AT * 1000, AT),
        (AT * 1_000_000, AT),
        ("2026-11-23T21:00:03.855Z", AT),
        ("2026-11-23T21:00:03.855", AT),
        ("2026-11-23T22:00:03.855+01:00", AT),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        (None, None),
        ("soon", None),
        ([], None),
        ({"$date": AT}, None),
        (True, None),
        (-5, None),
    ],
)
def test_created_has_many_forms_and_an_unreadable_one_means_arrival(
    created: object, time: int | None
) -> None:
    for message in (UPLOAD, DOWNLOAD, VIEW, EXTRACTION, LOGIN, STATUS):
        event = read(json.dumps({**message, "created": created}).encode())
        assert isinstance(event, Event)
        assert event.time == time
    without = {name: value for name, value in LOGIN.items() if name != "created"}
    assert read_value(without) == LoggedIn(user_id=USER)


@pytest.mark.parametrize(
    ("message", "pointer"),
    [
        ({**UPLOAD, "category": "uploads"}, "/category"),
        ({**UPLOAD, "category": ""}, "/category"),
        ({**UPLOAD, "category": 5}, "/category"),
        ({**UPLOAD, "size": -1}, "/size"),
        ({**UPLOAD, "size": "42"}, "/size"),
        ({**UPLOAD, "size": 1.5}, "/size"),
        ({**UPLOAD, "size": 2**53}, "/size"),
        ({**UPLOAD, "size": 2**70}, "/size"),
        ({**UPLOAD, "size": None}, "/size"),
        ({"category": "upload", "user_id": USER}, "/size"),
        ({**UPLOAD, "user_id": 7}, "/user_id"),
        ({**UPLOAD, "dataset_id": {}}, "/dataset_id"),
        ({**DOWNLOAD, "type": "collection"}, "/type"),
        ({**DOWNLOAD, "type": None}, "/type"),
        ({**DOWNLOAD, "resource_id": None}, "/resource_id"),
        ({**DOWNLOAD, "resource_id": ""}, "/resource_id"),
        ({**DOWNLOAD, "size": True}, "/size"),
        ({**VIEW, "type": "user"}, "/type"),
        ({"category": "view_resource", "resource_id": RESOURCE}, "/type"),
        ({"category": "view_resource", "type": "file"}, "/resource_id"),
        ({**EXTRACTION, "extractor_name": ""}, "/extractor_name"),
        ({**EXTRACTION, "type": "space"}, "/type"),
        ({**LOGIN, "type": "logout"}, "/type"),
        ({**STATUS, "type": "strange"}, "/type"),
        ({**STATUS, "type": None}, "/type"),
        ({**STATUS, "healthy": "perhaps"}, "/healthy"),
        ({**STATUS, "healthy": []}, "/healthy"),
        ({**STATUS, "service_name": None}, "/service_name"),
        ({**STATUS, "response_time_avg": {}}, "/response_time_avg"),
        # v1.15.0: the pointer names the key that was sent
        ({"uploader_id": USER, "length": -1}, "/length"),
        ({"uploader_id": USER}, "/length"),
        ({"downloader_id": USER, "length": 1}, "/type"),
        ({"downloader_id": USER, "type": "space"}, "/type"),
        ({"downloader_id": USER, "type": "dataset", "files_length": 1}, "/dataset_id"),
        ({"downloader_id": 7, "type": "file"}, "/downloader_id"),
        ({"viewer_id": USER, "type": "file"}, "/resource_id"),
        ({"viewer_id": USER, "type": "page", "resource_id": "x"}, "/type"),
        ({"submitter_id": USER, "type": "file", "resource_id": "x"}, "/extractor_name"),
        ({"type": "login", "user_id": []}, "/user_id"),
    ],
)
def test_a_wrong_message_is_refused_where_it_is_wrong(message: dict[str, Any], pointer: str) -> None:
    for result in (read(json.dumps(message).encode()), read_value(message)):
        assert isinstance(result, Refusal)
        assert result.pointer == pointer
        assert result.reason
        assert "\n" not in result.reason


@pytest.mark.parametrize(
    ("changes", "up"),
    [
        ({"type": "up"}, True),
        ({"type": "down"}, False),
        ({"type": "up", "healthy": False}, False),  # what was measured decides
        ({"type": "down", "healthy": True}, True),
        ({"type": "strange", "healthy": True}, True),
        ({"type": None, "healthy": 1}, True),
        ({"type": "up", "healthy": 0}, False),
        ({"type": "up", "healthy": "False"}, False),
        ({"type": "up", "healthy": None}, True),
        ({"type": "up", "healthy": ""}, True),
    ],
)
def test_a_service_status_is_up_or_down(changes: dict[str, Any], up: bool) -> None:
    event = read_value({**STATUS, **changes})
    assert isinstance(event, Pinged)
    assert event.up is up


@pytest.mark.parametrize(
    ("measured", "ms"),
    [
        ("0.045 ms", 0.045),
        ("12ms", 12.0),
        (" 12. ms ", 12.0),
        (".5 s", 500.0),
        ("3", 3.0),
        (3, 3.0),
        (0, 0.0),
        (0.25, 0.25),
        ("250 µs", 0.25),
        ("250 us", 0.25),
        ("5 %", None),
        ("n/a", None),
        ("", None),
        ("-1 ms", None),
        (-1, None),
        ("9" * 400 + " ms", None),
        (None, None),
    ],
)
def test_response_times_are_numbers_or_texts_with_a_unit(measured: object, ms: float | None) -> None:
    event = read_value(
        {
            **STATUS,
            "response_time_avg": measured,
            "response_time_min": None,
            "response_time_max": None,
        }
    )
    assert isinstance(event, Pinged)
    assert event.response_ms == (None if ms is None else ResponseTimes(avg=ms))


@pytest.mark.parametrize(
    ("measured", "loss"),
    [
        ("0%", 0.0),
        ("100 %", 1.0),
        ("2.5%", 0.025),
        (25, 0.25),
        ("1", 0.01),
        ("101%", None),
        ("ms", None),
        (-1, None),
    ],
)
def test_a_loss_is_in_percent(measured: object, loss: float | None) -> None:
    event = read_value({**STATUS, "response_time_loss": measured})
    assert isinstance(event, Pinged)
    assert event.loss == loss


def test_a_body_in_latin_1_is_read() -> None:
    body = '{"category":"extraction","type":"file","extractor_name":"Wörter","resource_id":"r"}'
    event = read(body.encode("latin-1"))
    assert isinstance(event, ExtractionSubmitted)
    assert event.extractor == "Wörter"


def test_a_canonical_event_may_have_a_member_called_category() -> None:
    for category in ("download", "upload", "service_status", "else", None, 5):
        body = {"type": "activity.logged_in", "category": category, "service_name": "x", "size": 1}
        assert read(json.dumps(body).encode()) == LoggedIn()
        assert read_value(body) == LoggedIn()


def test_an_escaped_key_is_the_same_key() -> None:
    body = rb'{"\u0063ategory":"user_activity","type":"login","user_id":"u","created":1795467603855}'
    assert read(body) == LoggedIn(time=AT, user_id="u")
