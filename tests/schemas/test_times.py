"""Every form of time that Clowder and its companions have been seen to send, and no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import (
    MAX_TIME_MS,
    from_clowder,
    from_rfc3339,
    parse_when,
    rfc3339,
    rfc3339_with_milliseconds,
)

# 2026-11-23T21:00:03Z is 1 795 467 603 s.
AT_MS = 1_795_467_603_000
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

instants = st.integers(0, MAX_TIME_MS)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-23T21:00:03Z", AT_MS),
        ("2026-11-23t21:00:03z", AT_MS),
        ("2026-11-23 21:00:03Z", AT_MS),
        ("2026-11-23T21:00:03.855Z", AT_MS + 855),
        ("2026-11-23T21:00:03.8Z", AT_MS + 800),
        ("2026-11-23T21:00:03.8559999999999Z", AT_MS + 855),  # cut off, not rounded
        ("2026-11-23T22:00:03+01:00", AT_MS),
        ("2026-11-23T15:10:03-05:50", AT_MS),
        ("2026-11-23T21:00:03-00:00", AT_MS),
        ("2026-11-24T20:59:03+23:59", AT_MS),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),  # = 2017-01-01T00:00:00Z
        ("2016-12-31T23:59:60.250Z", 1_483_228_800_250),
        ("2017-01-01T00:59:60+01:00", 1_483_228_800_000),
        ("1970-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59.999Z", MAX_TIME_MS),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
    ],
)
def test_rfc3339_is_read(text: str, ms: int) -> None:
    assert from_rfc3339(text) == ms
    assert from_clowder(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-23",
        "2026-11-23T21:00Z",
        "2026-11-23T21:00:03",  # no zone
        "2026-11-23T21:00:03+01",
        "2026-11-23T21:00:03+0100",
        "2026-11-23T21:00:03 Z",
        "2026-11-23T21:00:03.Z",
        "2026-11-23T21:00:03,5Z",
        "20261123T210003Z",
        "2026-W48-1T21:00:03Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T21:60:00Z",
        "2026-11-23T21:00:61Z",
        "2026-11-23T21:00:03+24:00",
        "2026-11-23T21:00:03+05:60",
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "9999-12-31T23:59:60Z",
        "9999-12-31T23:59:59-00:01",
        " 2026-11-23T21:00:03Z",
        "2026-11-23T21:00:03Z\n",
        "٢٠٢٦-11-23T21:00:03Z",  # digits, but not ASCII
        "1795467603000",
    ],
)
def test_anything_else_is_no_rfc3339(text: str) -> None:
    assert from_rfc3339(text) is None


@pytest.mark.parametrize(
    ("created", "ms"),
    [
        # integers: |n| < 1e11 s, < 1e14 ms, < 1e17 µs, else ns
        (1_795_467_603, AT_MS),
        (1_795_467_603_855, AT_MS + 855),
        (1_795_467_603_855_999, AT_MS + 855),
        (1_795_467_603_855_999_999, AT_MS + 855),
        (10**11 - 1, (10**11 - 1) * 1000),
        (10**11, 10**11),
        (10**14 - 1, 10**14 - 1),
        (10**14, 10**11),
        (10**17 - 1, 10**14 - 1),
        (10**17, 10**11),
        (0, 0),
        (MAX_TIME_MS * 1_000_000, MAX_TIME_MS),
        # floats
        (1_795_467_603.0, AT_MS),
        (1_795_467_603.855, AT_MS + 855),
        (1.005, 1005),  # 1.005 * 1000 is 1004.999…
        (1_795_467_659.9999, AT_MS + 56_999),  # still in its minute
        (1_795_467_603_855.5, AT_MS + 855),
        (1_795_467_603_855_999.0, AT_MS + 855),
        (1.795467603855e18, AT_MS + 855),
        # texts
        ("2026-11-23T21:00:03", AT_MS),  # no zone = UTC
        ("2026-11-23 21:00:03.855", AT_MS + 855),
        ("2026-11-23T21:00:03,855", AT_MS + 855),
        ("2026-11-23T21:00", AT_MS - 3000),
        ("2026-11-23T21:00Z", AT_MS - 3000),
        ("2026-11-23", AT_MS - 3000 - 21 * 3_600_000),
        ("2026-11-23T16:00:03-0500", AT_MS),
        ("2026-11-23T16:00:03-05", AT_MS),
        ("2026-11-23T21:00:03 +00:00", AT_MS),
        ("2016-12-31T23:59:60", 1_483_228_800_000),
    ],
)
def test_created_is_read_in_all_its_forms(created: object, ms: int) -> None:
    assert from_clowder(created) == ms


@pytest.mark.parametrize(
    "created",
    [
        None,
        True,
        False,
        "",
        "yesterday",
        "23.11.2026",
        "1969-12-31T23:59:59",
        -1,
        -1_795_467_603_855,
        -0.5,
        float("nan"),
        float("inf"),
        float("-inf"),
        1e300,
        2**70,
        10**4000,
        (MAX_TIME_MS + 1) * 1_000_000,
        [],
        {},
        b"2026-11-23T21:00:03Z",
    ],
)
def test_unreadable_created_means_arrival(created: object) -> None:
    assert from_clowder(created) is None


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.binary()))
def test_no_created_raises(created: object) -> None:
    ms = from_clowder(created)
    assert ms is None or 0 <= ms <= MAX_TIME_MS


def test_milliseconds_are_written_only_where_there_are_any() -> None:
    assert rfc3339(AT_MS) == "2026-11-23T21:00:03Z"
    assert rfc3339(AT_MS + 50) == "2026-11-23T21:00:03.050Z"
    assert rfc3339_with_milliseconds(AT_MS) == "2026-11-23T21:00:03.000Z"


@given(instants)
def test_what_is_written_is_read_again(ms: int) -> None:
    assert from_rfc3339(rfc3339(ms)) == ms
    assert from_rfc3339(rfc3339_with_milliseconds(ms)) == ms


@given(instants, st.integers(-1439, 1439))
def test_python_agrees(ms: int, offset_minutes: int) -> None:
    zone = timezone(timedelta(minutes=offset_minutes))
    # The last day of 9999 has no text in zones that are ahead, the first of 1970 is before it in others.
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(ms, MAX_TIME_MS - 86_400_000))
    assert from_rfc3339(at.astimezone(zone).isoformat()) == (
        at - datetime(1970, 1, 1, tzinfo=UTC)
    ) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("now", NOW),
        ("now-250ms", NOW - timedelta(milliseconds=250)),
        ("now-90s", NOW - timedelta(seconds=90)),
        ("now-5m", NOW - timedelta(minutes=5)),
        ("now-1h", NOW - timedelta(hours=1)),
        ("now-7d", NOW - timedelta(days=7)),
        ("now-2w", NOW - timedelta(weeks=2)),
        ("now-0h", NOW),
        ("2026-11-23T21:00:03.5Z", datetime(2026, 11, 23, 21, 0, 3, 500_000, tzinfo=UTC)),
        ("2026-11-23T22:00:03+01:00", datetime(2026, 11, 23, 21, 0, 3, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
    ],
)
def test_a_person_can_say_when(text: str, when: datetime) -> None:
    assert parse_when(text, NOW) == when
    assert parse_when(text, NOW.astimezone(timezone(timedelta(hours=5)))).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NOW",
        "now+1h",
        "now-1",
        "now-h",
        "now-1y",
        "now-1.5h",
        "now -1h",
        "2026-02-30",
        "2026-11",
        "2026-11-23Z",
        "7d",
        "2026-11-23T21:00:03",
        "1795467603000",
        "now-3000w",
        "now-99999999999999999999d",
        "now-" + "9" * 5000 + "d",
        "x" * 5000,
    ],
)
def test_what_is_no_time_is_said_in_one_line(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_when(text, NOW)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 150
    assert repr(text[:40]) in message
    assert ": use " in message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("7d", "use now-7d for"),
        ("-90s", "use now-90s for"),
        ("2h ago", "use now-2h for"),
        ("2026-11-23T21:00:03", "use 2026-11-23T21:00:03Z for UTC"),
        ("2026-02-30T08:00:00", "use 2026-11-24, 2026-11-24T08:00:00Z, now"),  # with a Z it is no day either
        ("yesterday", "(ms, s, m, h, d, w)"),
        ("now-1y", "(ms, s, m, h, d, w)"),
    ],
)
def test_what_is_nearly_a_time_is_put_right(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match="is not a time") as caught:
        parse_when(text, NOW)
    assert hint in str(caught.value)
