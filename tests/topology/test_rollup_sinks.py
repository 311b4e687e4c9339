"""One suite over every rollup sink. What only InfluxDB can do wrong is in ``test_influxdb.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.rollup_sinks import ROLLUP_SINKS, opened_sink
from topology.errors import Refused
from topology.sinks import Point, RollupSink, Value, Where
from topology.sqlite import rollups as sqlite_rollups
from topology.sqlite.file import Database
from topology.sqlite.rollups import SqliteRollups

HOUR = 3600
#: 2021-04-05T13:00:00Z
T0 = 1617627600

KEYS = {"resource_traffic": ("action", "space_id"), "service_uptime": ("service", "region")}


@pytest.fixture(params=ROLLUP_SINKS)
async def sink(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RollupSink]:
    async with opened_sink(request, tmp_path, KEYS) as sink:
        yield sink


def point(time: int = T0, *, action: str = "viewed", space: str = "s1", **fields: Value) -> Point:
    return Point("resource_traffic", "1h", time, (("action", action), ("space_id", space)), fields)


async def everything(
    sink: RollupSink,
    rollup: str = "resource_traffic",
    window: str = "1h",
    *,
    since: int | None = None,
    until: int | None = None,
    where: Where | None = None,
    limit: int = 1_000_000,
) -> Sequence[Point]:
    return await sink.query(rollup, window, since=since, until=until, where=where or {}, limit=limit)


async def test_a_point_comes_back_as_it_was_written(sink: RollupSink) -> None:
    written = point(events=3, bytes=1_000_000, items=2, unique_users=1)
    await sink.write([written])
    assert await everything(sink) == [written]


async def test_writing_an_address_again_replaces_its_values(sink: RollupSink) -> None:
    await sink.write([point(events=3, bytes=10)])
    await sink.write([point(events=2, bytes=0)])
    assert await everything(sink) == [point(events=2, bytes=0)]


async def test_of_one_address_twice_in_one_write_the_last_holds(sink: RollupSink) -> None:
    await sink.write([point(events=1), point(events=2)])
    assert await everything(sink) == [point(events=2)]


async def test_writing_the_same_twice_changes_nothing(sink: RollupSink) -> None:
    points = [point(T0 + HOUR * n, events=n) for n in range(5)]
    await sink.write(points)
    await sink.write(points)
    assert await everything(sink) == points


async def test_points_that_differ_in_one_part_of_the_address_are_kept_apart(sink: RollupSink) -> None:
    # Every part in turn: rollup, window, time, each tag.
    points = [
        point(events=1),
        point(events=2)._replace(rollup="user_activity"),
        point(events=3)._replace(window="1d"),
        point(T0 + HOUR, events=4),
        point(events=5, action="downloaded"),
        point(events=6, space="s2"),
    ]
    await sink.write(points)
    assert await everything(sink) == [points[4], points[0], points[5], points[3]]
    assert await everything(sink, "user_activity") == [points[1]]
    assert await everything(sink, window="1d") == [points[2]]


async def test_zeros_are_written_and_read(sink: RollupSink) -> None:
    await sink.write([point(events=0, bytes=0, bytes_mean=0.0)])
    (read,) = await everything(sink)
    assert read.fields == {"events": 0, "bytes": 0, "bytes_mean": 0.0}


async def test_integers_stay_integers_and_floats_floats(sink: RollupSink) -> None:
    fields: dict[str, Value] = {
        "events": 3,
        "files_added": 0,
        "runtime_s_count": 7,
        "bytes": 12,
        "bytes_mean": 3.0,
        "up_s": 0.0,
        "uptime_ratio": 0.1 + 0.2,
        "tiny": 5e-324,
        "huge": 1.7976931348623157e308,
        "below": -2.5,
    }
    await sink.write([point()._replace(fields=fields)])
    (read,) = await everything(sink)
    assert read.fields == fields
    assert {name: type(value) for name, value in read.fields.items()} == {
        name: type(value) for name, value in fields.items()
    }


async def test_the_largest_integer_is_exact(sink: RollupSink) -> None:
    await sink.write([point(bytes=2**63 - 1), point(T0 + HOUR, bytes=2**53 + 1)])
    assert [each.fields["bytes"] for each in await everything(sink)] == [2**63 - 1, 2**53 + 1]


AWKWARD = [
    "plain",
    "two words",
    " edges ",
    "a,b",
    "a=b",
    "a,b=c d",
    "#comment",
    "it's",
    'say "so"',
    "'; DROP MEASUREMENT resource_traffic; --",
    "' OR '1'='1",
    '"window" = 1h',
    "$space",
    "%s %25 &amp; +",
    "/.*/",
    "unknown",
    "NULL",
    "1",
    "true",
    "1i",
    "grün",
    "データセット",
    "😀 \U0001f9ea",
    "e\u0301",  # e and an accent, not é
    "\u00a0",
    "\u2028",
    "\ufeff",
    "[]{}()",
    '"},{"space_id":"x',
    "x" * 256,
    "ü" * 256,
]


async def test_awkward_tags_are_kept_and_found_exactly(sink: RollupSink) -> None:
    points = [point(space=text, events=number) for number, text in enumerate(AWKWARD)]
    await sink.write(points)
    assert await everything(sink) == sorted(points, key=lambda each: each.tags)
    for each in points:
        assert await everything(sink, where={"space_id": each.tags[1][1]}) == [each]


@pytest.mark.parametrize("text", ["", "\n", "a\nb", "a\\", "\\", "\\'", "\x00", "\ud800", "nobody"])
async def test_looking_for_a_tag_that_no_point_has_finds_nothing(sink: RollupSink, text: str) -> None:
    await sink.write([point(events=1), point(space="a", events=1)])
    assert await everything(sink, where={"space_id": text}) == []


async def test_an_unknown_tag_name_matches_nothing(sink: RollupSink) -> None:
    await sink.write([point(events=1)])
    for name in ("nope", 'no"pe', "no pe", "no'pe", "grün"):
        assert await everything(sink, where={name: "viewed"}) == []


async def test_the_range_holds_its_start_and_not_its_end(sink: RollupSink) -> None:
    # T0     +1h    +2h    +3h
    # [0-----)[1----)[2----)[3----)
    #         ^since        ^until
    points = [point(T0 + HOUR * n, events=n) for n in range(4)]
    await sink.write(points)
    assert await everything(sink, since=T0 + HOUR, until=T0 + 3 * HOUR) == points[1:3]
    assert await everything(sink, since=T0 + HOUR + 1) == points[2:]
    assert await everything(sink, until=T0 + 1) == points[:1]
    assert await everything(sink, since=T0 + HOUR, until=T0 + HOUR) == []
    assert await everything(sink, since=T0 + 3 * HOUR, until=T0) == []


async def test_bounds_far_outside_all_time_are_bounds(sink: RollupSink) -> None:
    await sink.write([point(events=1)])
    assert len(await everything(sink, since=-(2**63), until=2**63 - 1)) == 1
    assert await everything(sink, since=2**62) == []
    assert await everything(sink, until=-(2**62)) == []


async def test_windows_before_1970_are_windows(sink: RollupSink) -> None:
    points = [point(-HOUR, events=1), point(0, events=2)]
    await sink.write(points)
    assert await everything(sink) == points
    assert await everything(sink, since=-2 * HOUR, until=0) == points[:1]


async def test_where_takes_all_conditions_together(sink: RollupSink) -> None:
    points = [
        point(action=action, space=space, events=1)
        for action in ("downloaded", "viewed")
        for space in ("s1", "s2")
    ]
    await sink.write(points)
    assert await everything(sink, where={"space_id": "s2"}) == [points[1], points[3]]
    assert await everything(sink, where={"action": "viewed", "space_id": "s1"}) == [points[2]]


async def test_of_several_values_of_a_tag_each_will_do(sink: RollupSink) -> None:
    points = [
        point(time, action=action, space=space, events=1)
        for time in (T0, T0 + HOUR)
        for action in ("downloaded", "viewed")
        for space in ("s1", "s2", "s\u00fc")
    ]
    await sink.write(points)

    def of(*spaces: str) -> list[Point]:
        return [each for each in points if each.tags[1][1] in spaces]

    assert await everything(sink, where={"space_id": ["s2", "s1", "s2", "nobody"]}) == of("s1", "s2")
    assert await everything(sink, where={"space_id": ["s\u00fc"]}) == of("s\u00fc")
    both: Where = {"space_id": ("s1", "s2"), "action": ["viewed", "downloaded", "none"]}
    assert await everything(sink, where=both) == of("s1", "s2")
    for limit in range(10):
        assert await everything(sink, where=both, limit=limit) == of("s1", "s2")[:limit]
    assert await everything(sink, where=both, since=T0 + HOUR, limit=3) == of("s1", "s2")[4:7]
    assert await everything(sink, where=both, since=T0, until=T0 + HOUR) == of("s1", "s2")[:4]
    # A value that no tag can have is none of the choice; and of no choice nothing is chosen.
    assert await everything(sink, where={"space_id": ["", "\ud800", "s1"]}) == of("s1")
    assert await everything(sink, where={"space_id": []}) == []
    assert await everything(sink, where={"space_id": [], "action": "viewed"}) == []


async def test_rows_ascend_by_time_then_by_tags_in_the_order_of_the_key(sink: RollupSink) -> None:
    tags = [("a", "z"), ("b", "a"), ("b", "a!"), ("b", 'a"'), ("b", "aa"), ("é", "a")]
    ordered = [
        Point("service_uptime", "1h", time, (("service", service), ("region", region)), {"checks": 1})
        for time in (T0, T0 + HOUR)
        for service, region in tags
    ]
    await sink.write(ordered[::-1])
    assert await everything(sink, "service_uptime") == ordered


async def test_each_window_has_the_keys_and_the_fields_of_its_own(sink: RollupSink) -> None:
    # hour      0    1    2    3    4    5      as text "s1 is before "s1!, as values after it or before
    # s1        x         x         x
    # s1!       x    x         x    x    x
    # s1"       x    x    x    x              of each: one field more than of the one before
    spaces = {"s1": (0, 2, 4), "s1!": (0, 1, 3, 4, 5), 's1"': (0, 1, 2, 3)}
    names = ("events", "bytes", "items")
    ordered = sorted(
        (
            point(T0 + HOUR * hour, space=space)._replace(fields=dict.fromkeys(names[: place + 1], hour + 1))
            for place, (space, hours) in enumerate(spaces.items())
            for hour in hours
        ),
        key=lambda each: (each.time, each.tags),
    )
    await sink.write(ordered[::-1])
    assert await everything(sink) == ordered
    for limit in range(1, len(ordered)):
        assert await everything(sink, limit=limit) == ordered[:limit]
    two: Where = {"action": "viewed", "space_id": ["s1", 's1"']}
    assert await everything(sink, where=two) == [each for each in ordered if each.tags[1][1] != "s1!"]


async def test_a_limit_keeps_the_first_rows_also_within_one_window(sink: RollupSink) -> None:
    ordered = [
        point(time, space=f"s{number:02}", events=1) for time in (T0, T0 + HOUR) for number in range(10)
    ]
    await sink.write(ordered[::-1])
    for limit in (0, 1, 9, 10, 11, 19, 20, 21, 2**31 - 1):
        assert await everything(sink, limit=limit) == ordered[:limit]


async def test_a_rollup_that_was_never_written_is_empty(sink: RollupSink) -> None:
    assert await everything(sink, "user_activity") == []
    await sink.write([point(events=1)])
    assert await everything(sink, "user_activity") == []
    assert await everything(sink, window="1d") == []


async def test_writing_nothing_is_nothing(sink: RollupSink) -> None:
    await sink.write([])
    assert await everything(sink) == []


async def test_a_point_without_a_field_says_nothing(sink: RollupSink) -> None:
    # Pitfall 6: a point with tags and no field was refused, and the points beside it were lost.
    await sink.write([point(space="a"), point(space="b", events=1)])
    assert await everything(sink) == [point(space="b", events=1)]
    await sink.write([point(space="b")])
    assert await everything(sink) == [point(space="b", events=1)]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
async def test_a_number_that_is_not_finite_is_refused(sink: RollupSink, number: float) -> None:
    with pytest.raises(Refused, match="resource_traffic"):
        await sink.write([point(bytes_mean=number)])


async def test_a_tag_that_is_no_text_is_refused(sink: RollupSink) -> None:
    with pytest.raises(Refused, match="resource_traffic"):
        await sink.write([point(space="\ud800", events=1)])


async def test_more_points_than_one_request_or_page_holds(sink: RollupSink) -> None:
    # 12 000 points in 3 windows: three requests, and pages that end within a window.
    points = [
        point(T0 + HOUR * hour, space=f"{number:05}", events=number)
        for hour in range(3)
        for number in range(4000)
    ]
    await sink.write(points)
    assert await everything(sink) == points
    assert await everything(sink, limit=9000) == points[:9000]


async def test_a_window_with_more_points_than_a_page_holds(sink: RollupSink) -> None:
    points = [point(T0, space=f"{number:05}", events=number) for number in range(10_001)]
    points.append(point(T0 + HOUR, events=1))
    await sink.write(points)
    assert await everything(sink) == points


async def test_closing_twice_and_opening_twice_are_harmless(sink: RollupSink) -> None:
    await sink.open()
    await sink.write([point(events=1)])
    await sink.close()
    await sink.close()
    await sink.open()
    assert await everything(sink) == [point(events=1)]


async def test_a_query_by_time_uses_the_index(tmp_path: Path) -> None:
    database = Database(tmp_path / "rollups.db", schema=sqlite_rollups.SCHEMA)
    sink = SqliteRollups(database)
    await sink.open()
    statements: list[str] = []
    await database.read(lambda connection: connection.set_trace_callback(statements.append))
    await sink.query("resource_traffic", "1h", since=T0, until=T0 + HOUR, where={}, limit=10)
    await database.read(lambda connection: connection.set_trace_callback(None))
    plan = await database.read(
        lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    )
    assert not any("SCAN" in step[3] or "TEMP B-TREE" in step[3] for step in plan), plan
    assert any("rollup=? AND window=? AND time>? AND time<?" in step[3] for step in plan), plan
    await sink.close()


async def test_a_page_costs_the_same_however_many_windows_come_after_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "rollups.db", schema=sqlite_rollups.SCHEMA)
    sink = SqliteRollups(database, keys=KEYS)
    await sink.open()
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    async def cost() -> int:
        nonlocal steps
        steps = 0
        await database.read(lambda connection: connection.set_progress_handler(step, 1))
        assert len(await everything(sink, limit=3)) == 3
        await database.read(lambda connection: connection.set_progress_handler(None, 1))
        return steps

    def windows(first: int, last: int) -> list[Point]:
        return [
            point(T0 + HOUR * hour, space=space, events=1) for hour in range(first, last) for space in "ab"
        ]

    await sink.write(windows(0, 10))
    of_ten = await cost()
    await sink.write(windows(10, 500))
    assert await cost() == of_ten > 0
    await sink.close()


async def test_of_a_few_keys_only_their_own_rows_are_read(tmp_path: Path) -> None:
    database = Database(tmp_path / "rollups.db", schema=sqlite_rollups.SCHEMA)
    sink = SqliteRollups(database, keys=KEYS)
    await sink.open()
    statements: list[str] = []
    await database.read(lambda connection: connection.set_trace_callback(statements.append))
    where = {"space_id": ["s1", "s2"], "action": "viewed"}
    await sink.query("resource_traffic", "1h", since=T0, until=None, where=where, limit=10)
    await database.read(lambda connection: connection.set_trace_callback(None))
    plan = await database.read(
        lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    )
    reads = [step[3] for step in plan if "rollups" in step[3]]
    assert len(reads) == 3, plan
    assert all(
        "SEARCH rollups USING PRIMARY KEY (rollup=? AND window=? AND time" in read for read in reads
    ), plan
    assert "tags=?" in reads[-1], plan
    await sink.close()
