"""Items, read together as each by itself."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.events import Event
from schemas.reading import Refusal, read
from tests.web.serving import PING, UPLOAD
from tests.web.test_bodies import JSON_VALUES
from web.bodies import items
from web.items import MAX_ITEM_BYTES, Taken, read_item, read_items

ITEMS = (
    st.sampled_from([PING, UPLOAD, b"{}", b"x", b'{"category":"user_activity","type":"login"}', b'"\xff"'])
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=30)
)


@given(st.lists(ITEMS, max_size=6))
@example([b"", b"{}\n{}"])
def test_items_read_together_are_what_each_is_by_itself(raw: list[bytes]) -> None:
    assert read_items(raw) == [read_item(each) for each in raw]


@given(st.lists(ITEMS, max_size=6).map(b"\n".join))
def test_lines_are_kept_in_their_bytes_and_read_as_the_log_reads_them(body: bytes) -> None:
    raw = items(body, "application/x-ndjson")
    for line, item in zip(raw, read_items(raw), strict=True):
        event = read(line)
        assert item == (event if isinstance(event, Refusal) else Taken(line, event))


def test_blanks_around_an_item_do_not_make_it_too_large() -> None:
    assert read_item(b" " * MAX_ITEM_BYTES + PING) == read_item(PING)
    assert read_item(b" " + PING) == Taken(b" " + PING, read_event(PING))


def test_an_oversized_item_is_refused_in_its_place() -> None:
    over = b'{"type":"traffic.page_viewed","url":"%b"}' % (b"x" * MAX_ITEM_BYTES)
    found = read_items([PING, over, UPLOAD])
    assert [isinstance(item, Refusal) for item in found] == [False, True, False]
    assert found[1] == read_item(over)


def read_event(body: bytes) -> Event:
    event = read(body)
    assert not isinstance(event, Refusal)
    return event
