"""pyclowder's status messages as each version sends them, and Clowder 1's rows of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import canonical
from schemas.events import (
    Event,
    Extraction,
    ExtractionFailed,
    ExtractionProgressed,
    ExtractionRetried,
    ExtractionSkipped,
    ExtractionStarted,
    ExtractionSubmitted,
    ExtractionSucceeded,
    FileUploaded,
    LoggedIn,
)
from schemas.reading import Refusal, read, read_value

FILE = "603e00000000000000001133"
JOB = "603e00000000000000001200"
EXTRACTOR = "ncsa.wordcount"
START = "2021-04-05T13:45:02-05:00"
#: 13:45:02 and five hours.
START_MS = 1_617_648_302_000

SAMPLE = (
    '{"file_id":"603e00000000000000001133","extractor_id":"ncsa.wordcount","job_id":"603e00000000000000001200",'
    '"status":"StatusMessage.start: Started processing.","start":"2021-04-05T13:45:02-05:00",'
    '"message_type":"StatusMessage.start","message":"Started processing."}'
)

OLD: dict[str, Any] = {"file_id": FILE, "extractor_id": EXTRACTOR, "status": "Done", "start": START}
CURRENT: dict[str, Any] = json.loads(SAMPLE)


def old(status: str) -> dict[str, Any]:
    return {**OLD, "status": status}


def current(state: str, text: str) -> dict[str, Any]:
    return {**CURRENT, "status": f"{state}: {text}", "message_type": state, "message": text}


def both_ways(message: object) -> Event | Refusal:
    result = read(json.dumps(message).encode())
    assert read_value(message) == result
    assert read(json.dumps(message, ensure_ascii=False, indent=1).encode()) == result
    return result


def extraction(message: object) -> Extraction:
    result = both_ways(message)
    assert isinstance(result, Extraction)
    return result


def test_the_sample_is_a_start_with_all_that_it_says() -> None:
    assert read(SAMPLE.encode()) == ExtractionStarted(
        job_id=JOB,
        extractor=EXTRACTOR,
        resource_id=FILE,
        message="Started processing.",
        clock_ms=START_MS,
    )


@pytest.mark.parametrize(
    ("member", "value", "happened"),
    [
        ("start", "STARTED", ExtractionStarted),
        ("processing", "PROCESSING", ExtractionProgressed),
        ("done", "SUCCEEDED", ExtractionSucceeded),
        ("skip", "SKIPPED", ExtractionSkipped),
        ("error", "ERROR", ExtractionFailed),
        ("retry", "RESUBMITTED", ExtractionRetried),
    ],
)
def test_a_state_is_read_however_a_version_spells_it(
    member: str, value: str, happened: type[Extraction]
) -> None:
    text = "(#2) Résumé: 50 %"
    event = happened(job_id=JOB, extractor=EXTRACTOR, resource_id=FILE, message=text, clock_ms=START_MS)
    # 2.3.1 and later, then 2.3.0
    assert both_ways(current(f"StatusMessage.{member}", text)) == event
    assert both_ways(current(value, text)) == event
    # one day there may be no status any more
    assert both_ways({n: v for n, v in current(value, text).items() if n != "status"}) == event
    assert both_ways({**current(value, text), "status": None}) == event
    # 2.0 to 2.2, and Clowder 1's rows of both
    without_job = happened(
        job_id=None, extractor=EXTRACTOR, resource_id=FILE, message=text, clock_ms=START_MS
    )
    assert both_ways(old(f"StatusMessage.{member}: {text}")) == without_job
    assert both_ways(old(f"{value}: {text}")) == without_job
    assert both_ways({**old(f"{value}: {text}"), "message_type": None, "message": None}) == without_job


@pytest.mark.parametrize(
    ("status", "happened", "message"),
    [
        # 1.x
        ("Started processing file", ExtractionStarted, "Started processing file"),
        ("Started processing file.", ExtractionStarted, "Started processing file."),
        ("Done", ExtractionSucceeded, "Done"),
        ("Done with page 1", ExtractionProgressed, "Done with page 1"),
        ("Error processing: no such file", ExtractionProgressed, "Error processing: no such file"),
        ("50 %", ExtractionProgressed, "50 %"),
        # without words after the state
        ("StatusMessage.done", ExtractionSucceeded, None),
        ("StatusMessage.error:", ExtractionFailed, None),
        ("StatusMessage.error: a: b", ExtractionFailed, "a: b"),
        ("ERROR", ExtractionFailed, None),
        # what looks like a state and is none
        ("StatusMessage.started: x", ExtractionProgressed, "StatusMessage.started: x"),
        ("ERRORS: 0", ExtractionProgressed, "ERRORS: 0"),
        ("Starting", ExtractionProgressed, "Starting"),
        (" ", ExtractionProgressed, None),
    ],
)
def test_a_status_alone_says_the_state_or_is_progress(
    status: str, happened: type[Extraction], message: str | None
) -> None:
    event = extraction(old(status))
    assert (type(event), event.message) == (happened, message)


def test_the_message_type_decides_over_the_status() -> None:
    assert isinstance(extraction({**CURRENT, "message_type": "ERROR"}), ExtractionFailed)
    assert isinstance(extraction({**CURRENT, "message_type": ""}), ExtractionStarted)


def test_a_row_of_clowder_is_read_like_the_message_it_was_made_of() -> None:
    row = {"file_id": FILE, "job_id": JOB, "extractor_id": EXTRACTOR, "user_id": "u", "start": START_MS}
    assert both_ways({**row, "status": "STARTED: Started processing."}) == ExtractionStarted(
        user_id="u",
        job_id=JOB,
        extractor=EXTRACTOR,
        resource_id=FILE,
        message="Started processing.",
        clock_ms=START_MS,
    )
    # Clowder's clock wrote this one: its difference to the extractor's is nobody's wait.
    assert both_ways({**row, "status": "SUBMITTED"}) == ExtractionSubmitted(
        user_id="u", job_id=JOB, extractor=EXTRACTOR, resource_id=FILE
    )


@pytest.mark.parametrize(
    ("start", "clock_ms"),
    [
        (START, START_MS),
        ("2021-04-05T18:45:02-00:00", START_MS),
        ("2021-04-05T18:45:02+00:00", START_MS),
        ("2021-04-05T18:45:02Z", START_MS),
        ("2021-04-05T18:45:02", START_MS),  # from a log of an HPC job
        ("2021-04-05T13:45:02-0500", START_MS),
        ("2021-04-05T13:45:02-05", START_MS),
        ("2021-04-05T23:45:02+05:50", START_MS - 50 * 60_000),  # India: 5.50 hours, with a colon
        ("2021-04-05T23:45:02+05:75", START_MS - 75 * 60_000),  # Nepal
        ("2021-04-05T13:45:02-05:75", START_MS + 75 * 60_000),
        (START_MS, START_MS),
        (None, None),
        ("", None),
        ("yesterday", None),
        ("+05:75", None),
        ("yesterday+05:75", None),
        ("1970-01-01T00:00:00+05:75", None),
        ("9999-12-31T23:59:59-05:75", None),
        (True, None),
        ([], None),
        ({"$date": START_MS}, None),
    ],
)
def test_the_clock_is_read_as_far_as_it_can_be_and_no_time_is(start: object, clock_ms: int | None) -> None:
    for message in (CURRENT, OLD):
        event = extraction({**message, "start": start})
        assert (event.clock_ms, event.time) == (clock_ms, None)
    assert extraction({n: v for n, v in CURRENT.items() if n != "start"}).clock_ms is None


@pytest.mark.parametrize("offset", ["-00:00", "+05:50", "+05:75", "-09:50", "+12:75", "-0500", "Z", ""])
def test_differences_within_a_job_are_right_whatever_the_offset(offset: str) -> None:
    started = extraction({**CURRENT, "start": f"2021-12-31T23:59:58{offset}"})
    ended = extraction({**CURRENT, "start": f"2022-01-01T00:01:03{offset}", "message_type": "ERROR"})
    assert started.clock_ms is not None
    assert ended.clock_ms is not None
    assert ended.clock_ms - started.clock_ms == 65_000


def test_a_skip_and_the_done_after_it_are_two_events() -> None:
    skip = extraction(current("StatusMessage.skip", "Skipped in check_message"))
    done = extraction(current("StatusMessage.done", "Done processing."))
    assert (type(skip), type(done)) == (ExtractionSkipped, ExtractionSucceeded)
    assert skip.job_id == done.job_id == JOB


@pytest.mark.parametrize("job_id", [None, ""])
def test_a_job_without_an_id_is_one_of_its_file(job_id: str | None) -> None:
    event = extraction({**CURRENT, "job_id": job_id})
    assert (event.job_id, event.resource_id) == (None, FILE)


@pytest.mark.parametrize("file_id", [None, ""])
def test_a_job_with_an_id_needs_no_file(file_id: str | None) -> None:
    event = extraction({**CURRENT, "file_id": file_id})
    assert (event.job_id, event.resource_id) == (JOB, None)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", "Started processing."),
        (None, "Started processing."),
        ({"page": 1}, "Started processing."),
        ("x", "x"),
    ],
)
def test_a_message_that_is_no_text_gives_way_to_the_status(said: object, message: str) -> None:
    assert extraction({**CURRENT, "message": said}).message == message


def test_no_key_is_kept() -> None:
    event = extraction({**CURRENT, "secretKey": "hush", "message_type": "ERROR"})
    assert b"hush" not in canonical(event, time_ms=0)


@pytest.mark.parametrize(
    ("message", "pointer", "reason"),
    [
        (
            {**CURRENT, "message_type": "StatusMessage.bored"},
            "/message_type",
            "unknown message_type 'StatusMes",
        ),
        ({**CURRENT, "message_type": "started"}, "/message_type", "unknown message_type 'started'"),
        ({**CURRENT, "message_type": "SUBMITTED"}, "/message_type", "unknown message_type 'SUBMITTED'"),
        ({**CURRENT, "message_type": "a\nb\U000e0001" * 50}, "/message_type", "unknown message_type 'a\\nb"),
        ({**CURRENT, "message_type": 1}, "/message_type", "must be a text or null"),
        ({**CURRENT, "extractor_id": ""}, "/extractor_id", "must not be empty"),
        ({**CURRENT, "extractor_id": None}, "/extractor_id", "must be a text"),
        ({**CURRENT, "file_id": {"$oid": FILE}}, "/file_id", "must be a text or null"),
        ({**CURRENT, "job_id": 7}, "/job_id", "must be a text or null"),
        ({**CURRENT, "job_id": "", "file_id": ""}, "/file_id", "is required where there is no job_id"),
        ({**CURRENT, "job_id": None, "file_id": None}, "/file_id", "is required where there is no job_id"),
        ({**OLD, "file_id": ""}, "/file_id", "is required where there is no job_id"),
        ({"extractor_id": EXTRACTOR, "status": "Done"}, "/file_id", "is required where there is no job_id"),
        (old(""), "/status", "must not be empty"),
        ({**OLD, "status": None}, "/status", "is required"),
        ({**OLD, "status": 5}, "/status", "must be a text or null"),
        ({"extractor_id": EXTRACTOR, "file_id": FILE, "message_type": None}, "/status", "is required"),
        # not known for pyclowder's
        ({"extractor_id": EXTRACTOR, "file_id": FILE}, "/type", "is required"),
        ({**OLD, "category": "nothing"}, "/category", "unknown category 'nothing'"),
    ],
)
def test_a_wrong_message_is_refused_where_it_is_wrong(
    message: dict[str, Any], pointer: str, reason: str
) -> None:
    result = read_value(message)
    assert isinstance(result, Refusal)
    assert result.pointer == pointer
    assert result.reason.startswith(reason)
    assert "\n" not in result.reason
    assert len(result.reason) < 100
    assert both_ways(message) == result


def test_a_number_that_fits_nowhere_is_refused_where_it_stands() -> None:
    result = read(SAMPLE.replace(f'"{START}"', "1e999").encode())
    assert isinstance(result, Refusal)
    assert result.pointer == "/start"


def test_whose_message_it_is() -> None:
    # A type with a dot is canonical, a category is Clowder's; neither null nor another type says anything.
    assert both_ways({**CURRENT, "type": "activity.logged_in"}) == LoggedIn()
    assert both_ways({**CURRENT, "category": "upload", "size": 1}) == FileUploaded(file_id=None, bytes=1)
    assert both_ways({**CURRENT, "category": None}) == both_ways(CURRENT)
    for other in (None, "", "status", "login"):
        assert both_ways({**CURRENT, "type": other}) == both_ways(CURRENT)
    # v1.15.0 is known by single keys.
    assert both_ways({**CURRENT, "viewer_id": "u", "uploader_id": "u"}) == both_ways(CURRENT)
    # An escape in a key hides it from the quick way.
    hidden = SAMPLE.replace("{", '{"c\\u0061tegory":"upload","size":1,', 1)
    assert read(hidden.encode()) == FileUploaded(file_id=None, bytes=1)
    assert read(SAMPLE.replace("extractor_id", "extractor\\u005fid").encode()) == both_ways(CURRENT)


def test_a_body_in_latin_1_is_read() -> None:
    body = json.dumps(current("ERROR", "größer"), ensure_ascii=False).encode("latin-1")
    event = read(body)
    assert isinstance(event, ExtractionFailed)
    assert event.message == "größer"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
members = (
    anything
    | st.sampled_from(
        ["StatusMessage.done", "SUBMITTED", "Done", "STARTED: x", "StatusMessage.skip:", "a.b", ""]
    )
    | st.from_regex(r"[0-9]{4}-0[0-9]-[0-3][0-9]T[0-2][0-9]:00:00[+-][0-9]{2}:?[0-9]{2}", fullmatch=True)
)
names = st.sampled_from([*CURRENT, "user_id", "type", "category", "viewer_id", "secretKey"])


@given(st.dictionaries(names, members), st.booleans())
def test_no_body_raises_and_both_ways_of_reading_agree(odd: dict[str, Any], whole: bool) -> None:
    value = {**CURRENT, **odd} if whole else odd
    result = read_value(value)
    assert isinstance(result, Event | Refusal)
    if "\\ud" not in json.dumps(value):
        assert read(json.dumps(value).encode()) == result
    if isinstance(result, Extraction):
        # What is archived is read as it was, placed at its arrival.
        again = read(canonical(result, time_ms=5))
        assert isinstance(again, Extraction)
        assert (again.time, again.clock_ms, again.message) == (5, result.clock_ms, result.message)


@given(st.binary(max_size=20), st.integers(0, len(SAMPLE)), st.integers(0, 20))
def test_no_damaged_message_raises(junk: bytes, at: int, gone: int) -> None:
    body = SAMPLE.encode()
    assert isinstance(read(body[:at] + junk + body[at + gone :]), Event | Refusal)
