from __future__ import annotations

import json

import pytest

from cli.shifting import shifted
from schemas.reading import Refusal, read

HOUR = 3600
#: 2026-11-23T21:00:00Z
AT_MS = 1_795_467_600_000


def test_only_the_time_changes_and_the_rest_keeps_its_bytes() -> None:
    line = rb'{"type":"activity.logged_in","time":1795467600000,"user_id":"\u00fc","more":{"a":[1.50,null]}}'
    assert shifted(line, HOUR, AT_MS) == line.replace(b"1795467600000", b"1795471200000")


CANONICAL = '{"type":"activity.logged_in","time":%s}'
CLOWDER = '{"category":"user_activity","type":"login","user_id":"u","user_name":"n","created":%s}'


@pytest.mark.parametrize(
    ("shape", "before", "after"),
    [
        (CANONICAL, "1795467600123", "1795471200123"),
        (CANONICAL, '"2026-11-23T21:00:00Z"', '"2026-11-23T22:00:00Z"'),
        (CANONICAL, '"2026-11-23T23:30:00.250+01:00"', '"2026-11-24T00:30:00.250+01:00"'),
        (CANONICAL, '"2026-11-23t21:00:00.123456z"', '"2026-11-23t22:00:00.123456z"'),
        (CANONICAL, '"2026-11-23 21:00:60Z"', '"2026-11-23 22:01:00Z"'),
        (CLOWDER, "1795467600", "1795471200"),
        (CLOWDER, "1795467600.25", "1795471200.25"),
        (CLOWDER, "1795467600000", "1795471200000"),
        (CLOWDER, "1795467600000.0", "1795471200000.0"),
        (CLOWDER, "1.7954676e12", "1795471200000.0"),
        (CLOWDER, "1795467600000000", "1795471200000000"),
        (CLOWDER, "1795467600000000000", "1795471200000000000"),
        (CLOWDER, '"2026-11-23T21:00:00"', '"2026-11-23T22:00:00"'),
        (CLOWDER, '"2026-11-23T21:00:00,5+0100"', '"2026-11-23T22:00:00,5+0100"'),
        # Text that has no seconds cannot hold them: it becomes milliseconds.
        (CLOWDER, '"2026-11-23T21:00"', "1795471200000"),
        (CLOWDER, '"2026-11-23"', "1795395600000"),
    ],
)
def test_each_form_is_kept_and_means_the_later_instant(shape: str, before: str, after: str) -> None:
    line = (shape % before).encode()
    event = read(line)
    assert not isinstance(event, Refusal)
    assert event.time is not None
    moved = shifted(line, HOUR, event.time)
    assert moved == (shape % after).encode()
    later = read(moved)
    assert not isinstance(later, Refusal)
    assert later.time == event.time + HOUR * 1000


def test_a_field_of_the_same_name_that_is_not_the_time_stays() -> None:
    canonical = b'{"created":1795467600000,"type":"activity.logged_in","time":1795467600000}'
    assert json.loads(shifted(canonical, HOUR, AT_MS))["created"] == AT_MS


def test_a_body_in_latin_1_is_shifted_too() -> None:
    line = (CLOWDER % AT_MS).encode().replace(b'"n"', b'"J\xf6rg"')
    assert shifted(line, HOUR, AT_MS) == line.replace(b"1795467600000", b"1795471200000")


def test_a_byte_order_mark_is_no_obstacle() -> None:
    line = b"\xef\xbb\xbf" + (CANONICAL % AT_MS).encode()
    assert json.loads(shifted(line, HOUR, AT_MS))["time"] == AT_MS + HOUR * 1000
