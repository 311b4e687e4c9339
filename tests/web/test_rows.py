"""Rows taken together, filled, put in order and paged: the same answers over every sink."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import ROLLUPS
from tests.rollup_sinks import ROLLUP_SINKS, opened_sink
from topology.rollups.combining import Lost
from topology.sinks import Point, RollupSink, Value
from web import rows
from web.documents import row_documents
from web.grouping import Grouping
from web.rows import Found, Order, Unanswerable, Wanted, find

#: 2026-11-23T21:00:00Z
T0 = 1_795_467_600
HOUR = 3600
KEYS = {rollup.name: rollup.key for rollup in ROLLUPS.values()}


@pytest.fixture(params=ROLLUP_SINKS)
async def sink(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RollupSink]:
    async with opened_sink(request, tmp_path, KEYS) as sink:
        yield sink


def traffic(hour: int, action: str, kind: str, space: str, **fields: Value) -> Point:
    tags = (("action", action), ("resource_type", kind), ("space_id", space))
    return Point("resource_traffic", "1h", T0 + hour * HOUR, tags, fields)


# hour   action      type     space  events
#   0    downloaded  file     a        1
#   0    viewed      dataset  a       10
#   0    viewed      file     a      100
#   0    viewed      file     b     1000
#   2    viewed      file     a    10000
TRAFFIC = [
    traffic(0, "downloaded", "file", "a", events=1, bytes=5, items=1, unique_users=1),
    traffic(0, "viewed", "dataset", "a", events=10, bytes=0, items=0, unique_users=3),
    traffic(0, "viewed", "file", "a", events=100, bytes=0, items=0, unique_users=9),
    traffic(0, "viewed", "file", "b", events=1000, bytes=0, items=0, unique_users=2),
    traffic(2, "viewed", "file", "a", events=10_000, bytes=0, items=0, unique_users=70),
]


async def asked(sink: RollupSink, rollup: str = "resource_traffic", **wanted: Any) -> Found:
    order = wanted.pop("order", "time")
    by = Order(by=order.removeprefix("-"), descending=order.startswith("-"))
    question = Wanted(window=wanted.pop("window", "1h"), order=by, **wanted)
    return await find(sink, ROLLUPS[rollup], question, now_s=T0 + 4 * HOUR)


def brief(found: Found, field: str = "events") -> list[tuple[Any, ...]]:
    """Hour, values of the tags, and one field of each row."""
    return [
        ((row.time - T0) // HOUR, *(value for _, value in row.tags), row.fields.get(field, "absent"))
        for row in found.rows
    ]


# -- taken together --


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"group_by": ["space_id"]}, [(0, "a", 111), (0, "b", 1000), (2, "a", 10_000)]),
        # Tags come in the order of the rollup's key, however they are named.
        (
            {"group_by": ["space_id", "action"], "where": {"space_id": ["a"]}},
            [(0, "downloaded", "a", 1), (0, "viewed", "a", 110), (2, "viewed", "a", 10_000)],
        ),
        ({"group_by": []}, [(0, 1111), (2, 10_000)]),
        ({"group_by": [], "where": {"action": ["viewed"], "space_id": ["a", "b"]}}, [(0, 1110), (2, 10_000)]),
        ({"group_by": [], "since": T0 + 1}, [(2, 10_000)]),
        # A total has the time of its first row.
        ({"group_by": ["action"], "total": True}, [(0, "downloaded", 1), (0, "viewed", 11_110)]),
        ({"group_by": [], "total": True}, [(0, 11_111)]),
        ({"group_by": [], "total": True, "since": T0 + 5 * HOUR}, []),
        (
            {"total": True, "where": {"resource_type": ["file"]}},
            [(0, "downloaded", "file", "a", 1), (0, "viewed", "file", "a", 10_100), (0, "viewed", "file", "b", 1000)],
        ),
    ],
)  # fmt: skip
async def test_sums_add_up(
    sink: RollupSink, question: Mapping[str, Any], answer: Sequence[tuple[Any, ...]]
) -> None:
    await sink.write(TRAFFIC)
    assert brief(await asked(sink, **question)) == answer


async def test_what_cannot_be_had_of_rows_taken_together_is_left_out_and_said(sink: RollupSink) -> None:
    await sink.write(TRAFFIC)
    found = await asked(sink, group_by=["space_id"])
    assert found.fields == ("events", "bytes", "items")
    assert all(set(row.fields) == {"events", "bytes", "items"} for row in found.rows)
    assert "the same user" in found.left_out["unique_users"]
    with pytest.raises(Unanswerable, match=r"unique_users .* over action and resource_type: the same user"):
        await asked(sink, group_by=["space_id"], fields=["events", "unique_users"])
    with pytest.raises(Unanswerable, match="over time"):
        await asked(sink, total=True, fields=["unique_users"])


async def test_over_a_tag_of_one_value_nothing_is_taken_together(sink: RollupSink) -> None:
    await sink.write(TRAFFIC)
    one = {"action": ["viewed"], "resource_type": ["file", "file"]}
    found = await asked(sink, group_by=["space_id"], where=one)
    assert brief(found, "unique_users") == [(0, "a", 9), (0, "b", 2), (2, "a", 70)]
    assert (found.left_out, found.key) == ({}, ("space_id",))


def uptime(region: str, **fields: Value) -> Point:
    return Point("service_uptime", "1h", T0, (("service", "clowder"), ("region", region)), fields)


async def test_uptime_over_regions_is_made_anew_of_seconds(sink: RollupSink) -> None:
    # region  up    down  unknown maintenance
    # eu      3600     0       0           0
    # us       900   900    1800           0
    # ap         0     0       0        3600   (no ratio)
    # all     3600     0       0           0   the quorum: none of the regions
    parts = {
        "eu": (3600.0, 0.0, 0.0, 0.0),
        "us": (900.0, 900.0, 1800.0, 0.0),
        "ap": (0.0, 0.0, 0.0, 3600.0),
        "all": (3600.0, 0.0, 0.0, 0.0),
    }
    names = ("up_s", "down_s", "unknown_s", "maintenance_s")
    stale = {"uptime_ratio": 1.0, "coverage": 1.0, "response_ms_max": 8.0, "response_ms_p95": 7.0}
    await sink.write(
        [uptime(region, **stale, **dict(zip(names, each, strict=True))) for region, each in parts.items()]
    )
    (row,) = (await asked(sink, "service_uptime", group_by=["service"])).rows
    assert row.fields == {
        "uptime_ratio": 4500 / 5400,
        "coverage": 9000 / 10_800,
        "up_s": 4500.0,
        "down_s": 900.0,
        "unknown_s": 1800.0,
        "maintenance_s": 3600.0,
        "response_ms_max": 8.0,
    }
    (row,) = (await asked(sink, "service_uptime", group_by=[], where={"region": ["ap"]})).rows
    assert "uptime_ratio" not in row.fields
    (row,) = (await asked(sink, "service_uptime", group_by=[], where={"region": ["eu", "us"]})).rows
    assert row.fields["up_s"] == 4500.0
    (row,) = (await asked(sink, "service_uptime", group_by=[], where={"region": ["all", "all"]})).rows
    assert row.fields["up_s"] == 3600.0
    found = await asked(sink, "service_uptime", total=True)
    assert [dict(row.tags)["region"] for row in found.rows] == ["all", "ap", "eu", "us"]


@pytest.mark.parametrize("total", [False, True])
async def test_the_quorum_is_not_added_to_the_regions_that_it_is_made_of(
    sink: RollupSink, total: bool
) -> None:
    for region in ("all", "us"):
        await sink.write([uptime(region, up_s=1800.0, down_s=1800.0)])
    where = {"region": ["all", "us"]}
    with pytest.raises(Unanswerable, match=r"region=all .* ask for it alone"):
        await asked(sink, "service_uptime", group_by=["service"], where=where, total=total)
    found = await asked(sink, "service_uptime", where=where, total=total)
    assert [dict(row.tags)["region"] for row in found.rows] == ["all", "us"]


async def test_the_least_and_the_most_of_no_values_count_for_nothing(sink: RollupSink) -> None:
    def runtime(extractor: str, **fields: Value) -> Point:
        return Point("extractor_runtime", "1h", T0, (("extractor", extractor),), fields)

    await sink.write(
        [
            runtime("a", succeeded=2, runtime_s_count=2, runtime_s_sum=5.5, runtime_s_min=2.0, runtime_s_max=3.5),
            # Taken back: its only job ended later. What it said of its runtime is stale.
            runtime("b", succeeded=0, runtime_s_count=0, runtime_s_sum=0.0, runtime_s_min=1.0, runtime_s_max=9.0),
            runtime("c", submitted=1, runtime_s_count=0, runtime_s_sum=0.0, runtime_s_min=1.0),
        ]
    )  # fmt: skip
    (row,) = (await asked(sink, "extractor_runtime", group_by=[])).rows
    assert row.fields == {
        "submitted": 1,
        "succeeded": 2,
        "runtime_s_count": 2,
        "runtime_s_sum": 5.5,
        "runtime_s_min": 2.0,
        "runtime_s_max": 3.5,
    }


async def test_a_sum_stops_at_the_largest_integer(sink: RollupSink) -> None:
    most = 2**63 - 1
    await sink.write([traffic(hour, "viewed", "file", "a", bytes=most) for hour in range(2)])
    assert brief(await asked(sink, total=True, group_by=[]), "bytes") == [(0, most)]


@given(values=st.lists(st.floats(0, 1e6), min_size=1, max_size=8), at=st.data())
def test_rows_taken_together_in_any_order_are_the_same(values: list[float], at: st.DataObject) -> None:
    points = [
        Point("service_uptime", "1h", T0, (("service", "s"), ("region", f"r{number}")), {"up_s": value})
        for number, value in enumerate(values)
    ]
    grouping = Grouping(
        combining=ROLLUPS["service_uptime"].combining,
        key=(),
        over=("service", "region"),
        total=False,
        without={},
        renamed=True,
    )
    (one,) = grouping.of(points)
    (other,) = grouping.of(at.draw(st.permutations(points)))
    assert one == other
    assert one.fields["up_s"] == math.fsum(values)


def test_every_field_says_how_it_is_combined() -> None:
    for rollup in ROLLUPS.values():
        assert set(rollup.combining) == set(rollup.fields)
        for field, how in rollup.combining.items():
            never = field == "unique_users" or field.rpartition("_")[2] in {"mean", "p50", "p95", "p99"}
            assert isinstance(how, Lost) == never, (rollup.name, field)


# -- gaps --


@pytest.mark.parametrize(("fill", "nothing"), [("null", None), ("zero", 0)])
async def test_gaps_are_filled_from_since_to_until(sink: RollupSink, fill: str, nothing: int | None) -> None:
    await sink.write(TRAFFIC)
    question: dict[str, Any] = {"group_by": ["space_id"], "fill": fill}
    found = await asked(sink, **question, since=T0 - HOUR - 1, until=T0 + 3 * HOUR)
    # hour -1         0         1         2
    # a     nothing   111       nothing   10000
    # b     nothing   1000      nothing   nothing
    known = {(0, "a"): 111, (0, "b"): 1000, (2, "a"): 10_000}
    assert brief(found) == [
        (hour, space, known.get((hour, space), nothing)) for hour in (-1, 0, 1, 2) for space in "ab"
    ]
    # Without since from the first row on; without until up to now.
    assert [row.time for row in (await asked(sink, **question, where={"space_id": ["b"]})).rows] == [
        T0 + hour * HOUR for hour in range(5)
    ]


async def test_of_no_events_there_is_no_greatest_and_no_mean(sink: RollupSink) -> None:
    where = {"service": ["clowder"], "region": ["eu"]}
    found = await asked(sink, "service_page", where=where, fill="zero", since=T0, until=T0 + HOUR)
    # A key that is asked for by all of its tags has rows even where there are none at all.
    (row,) = found.rows
    assert row.fields == {
        "fetches": 0,
        "failures": 0,
        "bytes_mean": None,
        "elapsed_ms_mean": None,
        "elapsed_ms_max": None,
        "elapsed_ms_p95": None,
    }
    assert (await asked(sink, "service_page", fill="zero", since=T0, until=T0 + HOUR)).rows == []


async def test_gaps_without_end_are_refused(sink: RollupSink) -> None:
    await sink.write(TRAFFIC)
    with pytest.raises(Unanswerable, match="narrow since"):
        await asked(sink, fill="null", since=T0 - 100_000 * HOUR)
    with pytest.raises(Unanswerable, match="total"):
        await asked(sink, fill="null", total=True)


async def test_too_many_keys_are_refused_before_they_are_made(sink: RollupSink) -> None:
    values = [str(number) for number in range(50)]
    where = dict.fromkeys(ROLLUPS["resource_traffic"].key, values)
    tracemalloc.start()
    try:
        with pytest.raises(Unanswerable, match=r"would be 125000 rows or more, .* fewer values"):
            await asked(sink, fill="null", since=T0, until=T0 + HOUR, where=where)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


async def test_a_value_that_is_asked_for_twice_is_one_key(
    sink: RollupSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_ROWS", 2)
    where = {"space_id": ["a", "a", "b", "b"]}
    found = await asked(sink, "space_storage", fill="zero", since=T0, until=T0 + HOUR, where=where)
    assert brief(found, "files_added") == [(0, "a", 0), (0, "b", 0)]


# -- order and pages --


async def test_rows_are_ordered_by_a_field_and_what_has_none_comes_last(sink: RollupSink) -> None:
    await sink.write([*TRAFFIC, traffic(1, "viewed", "file", "c", bytes=7)])
    up = [1, 10, 100, 1000, 10_000, "absent"]
    assert [row[-1] for row in brief(await asked(sink, order="events"))] == up
    down = [10_000, 1000, 100, 10, 1, "absent"]
    assert [row[-1] for row in brief(await asked(sink, order="-events"))] == down
    assert [row[0] for row in brief(await asked(sink, order="-time"))] == [2, 1, 0, 0, 0, 0]
    # What is alike: by time, then by tags.
    assert brief(await asked(sink, order="-items"))[0] == (0, "downloaded", "file", "a", 1)
    assert [row[-1] for row in brief(await asked(sink, order="-items"))[1:]] == [
        10,
        100,
        1000,
        10_000,
        "absent",
    ]
    with pytest.raises(Unanswerable, match="order='unique_users'"):
        await asked(sink, group_by=[], order="unique_users")


QUESTIONS: list[dict[str, Any]] = [
    {},
    {"order": "-time"},
    {"order": "-events"},
    {"order": "items"},
    {"group_by": ["space_id"], "order": "bytes"},
    {"fill": "zero", "since": T0, "until": T0 + 4 * HOUR},
    {"fill": "null", "order": "-events"},
    {"where": {"space_id": ["a", "b"], "action": ["viewed"]}, "since": T0 + 1},
    {"fields": ["bytes"]},
]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
async def test_page_after_page_shows_each_row_once_and_in_order(
    sink: RollupSink, question: Mapping[str, Any]
) -> None:
    await sink.write(TRAFFIC)
    whole = (await asked(sink, **question)).rows
    for limit in (1, 2, 3, 100):
        seen: list[Any] = []
        cursor = None
        for page in itertools.count():
            found = await asked(sink, **question, limit=limit, cursor=cursor)
            assert found.paged
            assert 0 < len(found.rows) <= limit
            seen += found.rows
            cursor = found.cursor
            if cursor is None:
                break
            assert page <= len(whole)
        assert row_documents(seen) == row_documents(whole)


async def test_rows_that_say_nothing_do_not_end_the_pages(sink: RollupSink) -> None:
    # Corrections left zeros in all windows but the last.
    await sink.write(
        [
            Point("extractor_runtime", "1h", T0 + hour * HOUR, (("extractor", "a"),), {"submitted": int(hour == 40)})
            for hour in range(41)
        ]
    )  # fmt: skip
    found = await asked(sink, "extractor_runtime", limit=1)
    assert [row.time for row in found.rows] == [T0 + 40 * HOUR]
    assert found.cursor is None


async def test_a_cursor_of_another_question_is_refused(sink: RollupSink) -> None:
    await sink.write(TRAFFIC)
    cursor = (await asked(sink, limit=1)).cursor
    assert cursor is not None
    others: list[dict[str, Any]] = [
        {"order": "-time"},
        {"fields": ["bytes"]},
        {"group_by": []},
        {"where": {"space_id": ["a"]}},
    ]
    for other in others:
        with pytest.raises(Unanswerable, match="another question"):
            await asked(sink, limit=1, cursor=cursor, **other)
    with pytest.raises(Unanswerable, match="limit"):
        await asked(sink, cursor=cursor)
    for wrong in ("", "x", "e30", cursor[:-4]):
        with pytest.raises(Unanswerable, match="none of ours"):
            await asked(sink, limit=1, cursor=wrong)


async def test_more_than_an_answer_is_made_of_is_refused(
    sink: RollupSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sink.write(TRAFFIC)
    monkeypatch.setattr(rows, "MAX_GROUPED", 4)
    with pytest.raises(Unanswerable, match="made of more than 4 rows"):
        await asked(sink, group_by=[])
    monkeypatch.setattr(rows, "MAX_ROWS", 4)
    with pytest.raises(Unanswerable, match="pages"):
        await asked(sink)
    assert len((await asked(sink, limit=4)).rows) == 4


@pytest.mark.parametrize(
    ("question", "hint"),
    [
        ({"window": "5m"}, "1m, 1h, 1d"),
        ({"where": {"user_id": ["a"]}}, "space_id"),
        ({"where": {"space_id": ["a"] * 101}}, "at most 100"),
        ({"group_by": ["user_id"]}, "space_id"),
        ({"fields": ["users"]}, "unique_users"),
        ({"order": "name"}, "unique_users"),
    ],
)
async def test_a_wrong_question_is_told_what_there_is(
    sink: RollupSink, question: Mapping[str, Any], hint: str
) -> None:
    with pytest.raises(Unanswerable, match=hint):
        await asked(sink, **question)
