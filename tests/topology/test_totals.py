"""Points folded by the store itself: one suite over every rollup sink, against the same folded by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.rollup_sinks import ROLLUP_SINKS, opened_sink
from topology.sinks import Point, RollupSink, Value
from topology.sqlite import rollups as sqlite_rollups
from topology.sqlite.file import Database
from topology.sqlite.rollups import SqliteRollups
from topology.totals import Fold, MaxOf

HOUR = 3600
#: 2021-04-05T13:00:00Z
T0 = 1617627600

KEYS = {"resource_traffic": ("action", "space_id"), "extractor_runtime": ("extractor",)}
FOLDS: Mapping[str, Fold] = {"events": "sum", "unique_users": "max"}


@pytest.fixture(params=ROLLUP_SINKS)
async def sink(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RollupSink]:
    async with opened_sink(request, tmp_path, KEYS) as sink:
        await sink.write(POINTS)
        yield sink


def point(hour: int, action: str, space: str, events: int, users: int, window: str = "1h") -> Point:
    tags = (("action", action), ("space_id", space))
    return Point(
        "resource_traffic", window, T0 + HOUR * hour, tags, {"events": events, "unique_users": users}
    )


#:          hour 0                  hour 1            hour 2: outside
#: viewed   s1 3 by 2, s2 4 by 3    s1 5 by 1         s1 100 by 100
#: loaded   s1 1 by 1
POINTS = [
    point(0, "viewed", "s1", 3, 2),
    point(0, "viewed", "s2", 4, 3),
    point(1, "viewed", "s1", 5, 1),
    point(0, "downloaded", "s1", 1, 1),
    point(2, "viewed", "s1", 100, 100),
    point(0, "viewed", "s1", 1000, 1000, window="1d"),
]


async def totals(
    sink: RollupSink,
    *by: str,
    folds: Mapping[str, Fold] = FOLDS,
    each_window: bool = False,
    rollup: str = "resource_traffic",
) -> Sequence[tuple[int, Mapping[str, str], Mapping[str, Value]]]:
    found = await sink.totals(
        rollup, "1h", since=T0, until=T0 + 2 * HOUR, by=by, folds=folds, each_window=each_window
    )
    plain = [((each.time - T0) // HOUR, dict(each.tags), dict(each.fields)) for each in found]
    return sorted(plain, key=lambda each: (each[0], sorted(each[1].items())))


async def test_points_are_folded_by_a_tag(sink: RollupSink) -> None:
    assert await totals(sink, "action") == [
        (0, {"action": "downloaded"}, {"events": 1, "unique_users": 1}),
        (0, {"action": "viewed"}, {"events": 3 + 4 + 5, "unique_users": 3}),
    ]


async def test_points_are_folded_by_several_tags(sink: RollupSink) -> None:
    assert await totals(sink, "action", "space_id") == [
        (0, {"action": "downloaded", "space_id": "s1"}, {"events": 1, "unique_users": 1}),
        (0, {"action": "viewed", "space_id": "s1"}, {"events": 3 + 5, "unique_users": 2}),
        (0, {"action": "viewed", "space_id": "s2"}, {"events": 4, "unique_users": 3}),
    ]


async def test_points_are_folded_in_each_window(sink: RollupSink) -> None:
    assert await totals(sink, "action", each_window=True) == [
        (0, {"action": "downloaded"}, {"events": 1, "unique_users": 1}),
        (0, {"action": "viewed"}, {"events": 3 + 4, "unique_users": 3}),
        (1, {"action": "viewed"}, {"events": 5, "unique_users": 1}),
    ]


async def test_everything_is_folded_into_one(sink: RollupSink) -> None:
    assert await totals(sink) == [(0, {}, {"events": 13, "unique_users": 3})]


async def test_a_single_maximum_stands_at_the_start_of_the_range(sink: RollupSink) -> None:
    assert await totals(sink, folds={"events": "max"}) == [(0, {}, {"events": 5})]


@pytest.mark.parametrize("each_window", [False, True])
async def test_a_maximum_that_was_taken_back_counts_for_nothing(sink: RollupSink, each_window: bool) -> None:
    def run(hour: int, extractor: str, **fields: Value) -> Point:
        return Point("extractor_runtime", "1h", T0 + HOUR * hour, (("extractor", extractor),), fields)

    # extractor   hour 0                                  hour 1
    # a           one of 9000 s, then none                one of 10 s
    # b           one of 5 s, then none                   -
    # c           submitted, nothing ended                -
    await sink.write(
        [
            run(0, "a", failed=1, runtime_s_count=1, runtime_s_max=9000.0),
            run(0, "b", failed=1, runtime_s_count=1, runtime_s_max=5.0),
        ]
    )
    await sink.write(
        [
            run(0, "a", failed=0, runtime_s_count=0),
            run(1, "a", failed=1, runtime_s_count=1, runtime_s_max=10.0),
            run(0, "b", failed=0, runtime_s_count=0),
            run(0, "c", failed=0, runtime_s_count=0),
        ]
    )
    folds: Mapping[str, Fold] = {"runtime_s_max": MaxOf("runtime_s_count"), "failed": "sum"}
    found = await totals(sink, "extractor", folds=folds, rollup="extractor_runtime", each_window=each_window)
    nothing = [(0, {"extractor": name}, {"failed": 0}) for name in "bc"]
    if each_window:
        assert found == [
            (0, {"extractor": "a"}, {"failed": 0}),
            *nothing,
            (1, {"extractor": "a"}, {"failed": 1, "runtime_s_max": 10.0}),
        ]
    else:
        assert found == [(0, {"extractor": "a"}, {"failed": 1, "runtime_s_max": 10.0}), *nothing]


async def test_a_maximum_of_what_there_is_alone(sink: RollupSink) -> None:
    folds: Mapping[str, Fold] = {"unique_users": MaxOf("events"), "events": MaxOf("unique_users")}
    assert await totals(sink, folds=folds) == [(0, {}, {"events": 5, "unique_users": 3})]


async def test_a_field_that_no_point_has_is_nothing(sink: RollupSink) -> None:
    folds: Mapping[str, Fold] = {"events": "sum", "bytes": "sum", "items": "max"}
    assert await totals(sink, folds=folds) == [(0, {}, {"events": 13, "bytes": 0})]


async def test_no_points_have_no_total(sink: RollupSink) -> None:
    assert await totals(sink, rollup="user_activity") == []
    assert await totals(sink, "action", rollup="user_activity") == []


async def test_sums_beyond_what_an_integer_holds_are_no_error_in_the_embedded_store(tmp_path: Path) -> None:
    # InfluxDB's own sums of integers wrap around there.
    sink = SqliteRollups(Database(tmp_path / "rollups.db", schema=sqlite_rollups.SCHEMA))
    await sink.open()
    most = 2**63 - 1
    await sink.write([point(0, "viewed", f"s{at}", most, 1) for at in range(3)])
    ((_, _, fields),) = await totals(sink, folds={"events": "sum"})
    assert fields["events"] == pytest.approx(3 * most)
    await sink.close()


async def test_awkward_tags_are_told_apart(sink: RollupSink) -> None:
    spaces = ['a"b', "a'b", "a b,c=d", "ü", "$.x"]
    await sink.write([point(0, "made", space, at + 1, 1) for at, space in enumerate(spaces)])
    found = await totals(sink, "action", "space_id", folds={"events": "sum"})
    made = {tags["space_id"]: fields["events"] for _, tags, fields in found if tags["action"] == "made"}
    assert made == {space: at + 1 for at, space in enumerate(spaces)}
