from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from schemas.canonical import canonical
from schemas.events import (
    EVENT_TYPES,
    MAX_COUNT,
    PHASES,
    Event,
    Extraction,
    FileUploaded,
    LoggedIn,
    Pinged,
    ResourceDownloaded,
    ResponseTimes,
)
from schemas.reading import read
from schemas.times import MAX_TIME_MS

AT = 1_795_467_603_000

# Characters as JSON can hold them; an empty id or user is none, so texts have at least one.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
counts = st.integers(0, MAX_COUNT)
durations = st.floats(0, MAX_COUNT)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "time": st.none() | st.integers(0, MAX_TIME_MS),
    "bytes": counts,
    "items": counts,
    **dict.fromkeys(("connections", "requests", "clients", "active", "unreadable"), counts),
    **dict.fromkeys(("messages", "ready", "unacknowledged", "consumers"), counts),
    "status": counts,
    "up": st.booleans(),
    "consent": st.booleans(),
    "check": st.sampled_from(["ping", "healthz", "port"]),
    "response_ms": st.builds(
        ResponseTimes, min=st.none() | durations, avg=st.none() | durations, max=st.none() | durations
    ),
    "phases_ms": st.dictionaries(st.sampled_from(PHASES), durations, min_size=1),
    "certificate_days_left": st.integers(-MAX_COUNT, MAX_COUNT),
    "loss": st.floats(0, 1),
    "valid_for_s": st.floats(1, 3600),
    "elapsed_ms": durations,
    "period_s": durations,
    "clock_ms": st.integers(0, MAX_TIME_MS),
}

#: Required members that a foreign shape may not know.
UNKNOWN: dict[type[Event], str] = {
    FileUploaded: "file_id",
    **{kind: "job_id" for kind in EVENT_TYPES if issubclass(kind, Extraction)},
    ResourceDownloaded: "resource_id",
}


@st.composite
def any_events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(EVENT_TYPES))
    members = {}
    for field in fields(kind):
        unknown = field.name == UNKNOWN.get(kind)
        if field.required or draw(st.booleans()):
            known = MEMBERS.get(field.name, texts)
            members[field.name] = draw(st.none() | known if unknown else known)
    return kind(**members)


@given(any_events(), st.integers(0, MAX_TIME_MS), st.none() | texts)
def test_what_is_archived_is_read_again(event: Event, time_ms: int, id: str | None) -> None:
    again = read(canonical(event, time_ms=time_ms, id=id))
    assert again == replace(event, time=time_ms, id=event.id if id is None else id)


def test_type_comes_first_and_time_has_milliseconds() -> None:
    event = LoggedIn(user_id="u", source="prod", id="i")
    assert canonical(event, time_ms=AT) == (
        b'{"type":"activity.logged_in","time":"2026-11-23T21:00:03.000Z",'
        b'"id":"i","source":"prod","user_id":"u"}'
    )


def test_the_id_that_an_event_was_given_is_archived() -> None:
    assert json.loads(canonical(LoggedIn(), time_ms=AT, id="given"))["id"] == "given"
    assert "id" not in json.loads(canonical(LoggedIn(), time_ms=AT))
    assert json.loads(canonical(LoggedIn(id="own"), time_ms=AT))["id"] == "own"


def test_absent_members_are_left_out_and_zeros_are_not() -> None:
    event = Pinged(service="s", region="r", up=False, loss=0.0, response_ms=ResponseTimes(avg=0.0))
    assert json.loads(canonical(event, time_ms=AT)) == {
        "type": "health.pinged",
        "time": "2026-11-23T21:00:03.000Z",
        "service": "s",
        "region": "r",
        "up": False,
        "loss": 0.0,
        "response_ms": {"avg": 0.0},
    }


def test_an_unknown_file_is_null_because_the_member_is_required() -> None:
    assert json.loads(canonical(FileUploaded(file_id=None, bytes=0), time_ms=AT)) == {
        "type": "storage.file_uploaded",
        "time": "2026-11-23T21:00:03.000Z",
        "file_id": None,
        "bytes": 0,
    }


def test_the_event_itself_is_not_touched() -> None:
    event = LoggedIn(time=5)
    canonical(event, time_ms=AT, id="given")
    assert event == LoggedIn(time=5)
