"""Every panel on rollups shows something, on the real engine; and some of it to the digit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from tests.grafana.reading import GRAFANA, NOW_S, UNIT_S, Asked, asked, boards, chosen, filled, span_s
from tests.grafana.seeding import REGIONS, SERVICES, SPACES, WINDOWS, points, starts
from tests.servers.influxdb import Influx, Influxd
from topology.influxdb.sink import InfluxRollups

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

PANELS = {str(each): each for each in asked("influxdb")}
OVER_TIME = [name for name, each in PANELS.items() if each.panel["type"] == "timeseries"]


class Series(NamedTuple):
    """One of an answer; rows by column."""

    tags: dict[str, str]
    rows: list[dict[str, Any]]


class Seeded:
    """A bucket in which the platform of ``seeding`` is."""

    def __init__(self, influxd: Influxd, bucket: str) -> None:
        self._influxd = influxd
        self._bucket = bucket

    def ask(self, query: str) -> list[Series]:
        return [
            Series(
                series.get("tags", {}),
                [dict(zip(series["columns"], row, strict=True)) for row in series["values"]],
            )
            for series in self._influxd.series(query, self._bucket, epoch="ms")
        ]

    def shown(self, each: Asked, **values: str) -> list[Series]:
        """What Grafana gets for a panel, its dashboard as it opens or with other values of variables."""
        board = boards()[each.board]
        query = filled(
            each.target["query"],
            {**chosen(board), **values},
            interval=values.get("window", chosen(board)["window"]),
            since_s=NOW_S - span_s(board),
        )
        return self.ask(query)


@pytest.fixture(scope="module")
def seeded(influxd: Influxd, free_port: Callable[[], int]) -> Iterator[Seeded]:
    server = Influx(influxd, free_port(), "grafana")
    server.open()

    async def write() -> None:
        sink = InfluxRollups(server.url, server.token, server.org, server.bucket)
        await sink.open()
        await sink.write(points())
        await sink.close()

    asyncio.run(write())
    yield Seeded(influxd, server.bucket)
    server.close()


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_shows_values_in_every_column(name: str, seeded: Seeded) -> None:
    each = PANELS[name]
    series = seeded.shown(each)
    assert series
    for one in series:
        columns = {column for row in one.rows for column, value in row.items() if value is not None}
        assert columns == set(one.rows[0]), one
        assert len(columns) > 1


@pytest.mark.parametrize("name", [name for name in PANELS if "alias" in PANELS[name].target])
def test_names_of_series_come_from_tags_and_columns_that_are_there(name: str, seeded: Seeded) -> None:
    each = PANELS[name]
    alias = each.target["alias"]
    for one in seeded.shown(each):
        assert set(re.findall(r"\$tag_(\w+)", alias)) == set(one.tags)
        columns = len(one.rows[0]) - 1
        assert columns == 1 or "$col" in alias, "series of different columns would have one name"


@pytest.mark.parametrize("name", [name for name in PANELS if PANELS[name].panel["type"] == "table"])
def test_a_table_orders_the_columns_that_come_and_sorts_by_one_of_them(name: str, seeded: Seeded) -> None:
    each = PANELS[name]
    together = [other for other in PANELS.values() if other.panel == each.panel]
    shown = [seeded.shown(other) for other in together]
    come = {column for series in shown for one in series for column in [*one.tags, *one.rows[0]]} - {"time"}
    *merged, organized = each.panel["transformations"]
    assert [other["id"] for other in merged] == (["merge"] if len(together) > 1 else [])
    # Rows merge by what they have in common: time and tags.
    assert len({one.rows[0]["time"] for series in shown for one in series}) == 1
    assert set(organized["options"]["indexByName"]) == come
    assert each.panel["options"]["sortBy"][0]["displayName"] in come
    assert {override["matcher"]["options"] for override in each.panel["fieldConfig"]["overrides"]} <= come


@pytest.mark.parametrize("window", ["1m", "1d"])
@pytest.mark.parametrize("name", PANELS)
def test_other_windows_are_shown_as_well(name: str, window: str, seeded: Seeded) -> None:
    assert seeded.shown(PANELS[name], window=window)


@pytest.mark.parametrize("board", ["spaces", "extractors", "uptime"])
def test_variables_offer_the_values_of_their_tag(board: str, seeded: Seeded) -> None:
    offered = {}
    for variable in boards()[board]["templating"]["list"]:
        if variable["type"] == "query":
            (series,) = seeded.ask(variable["query"]["query"])
            offered[variable["name"]] = {row["value"] for row in series.rows}
    expected = {"service": set(SERVICES), "region": set(REGIONS), "space_id": set(SPACES)}
    for name, values in offered.items():
        assert values == expected.get(name, values)
        assert values


def test_a_chosen_value_leaves_the_others_out(seeded: Seeded) -> None:
    (one,) = seeded.shown(PANELS["spaces/Added/A"], space_id="(s2)")
    assert [row["added"] for row in one.rows] == [WINDOWS * 2000]
    series = seeded.shown(PANELS["uptime/By service and region/A"], service="(clowder)", region="(eu|us)")
    assert [one.tags for one in series] == [{"service": "clowder", "region": each} for each in ("eu", "us")]


def test_growth_is_what_was_added_less_what_was_removed(seeded: Seeded) -> None:
    net = WINDOWS * (1000 + 2000 + 3000 - 3 * 1500)
    (now,) = seeded.shown(PANELS["spaces/Net growth/A"])
    assert [row["net"] for row in now.rows] == [net]
    (summed,) = seeded.shown(PANELS["spaces/Net growth since the beginning of the span/A"])
    assert summed.rows[-1]["growth"] == net


def test_the_top_spaces_are_those_to_which_most_was_added(seeded: Seeded) -> None:
    (top,) = seeded.shown(PANELS["spaces/Top spaces/A"])
    rows = sorted(top.rows, key=lambda row: -row["added"])
    assert [(row["space_id"], row["added"], row["removed"], row["net"]) for row in rows] == [
        (space, WINDOWS * 1000 * place, WINDOWS * 1500, WINDOWS * (1000 * place - 1500))
        for place, space in ((3, "s3"), (2, "s2"), (1, "s1"))
    ]


def test_a_gap_is_null_and_so_is_a_stale_ratio_of_an_unknown_window(seeded: Seeded) -> None:
    # What is not said to be null, Grafana holds as a state, or draws a line through, to the next value.
    stale = starts("1h")[0] * 1000
    for title, column, shown in (
        ("By service and region", "up", WINDOWS - 1),
        ("Availability", "up", WINDOWS - 1),
        ("Coverage", "coverage", WINDOWS),
    ):
        each = PANELS[f"uptime/{title}/A"]
        assert each.panel["interval"] == "$window"
        for one in seeded.shown(each):
            values = {row["time"]: row[column] for row in one.rows}
            assert len([value for value in values.values() if value is not None]) == shown, title
            hour = 3_600_000
            assert sorted(values) == list(range(min(values), max(values) + hour, hour)), title
            assert values[stale - hour] is None, title
            assert values[stale] is None or title == "Coverage"
    up = {one.tags["service"]: one.rows[0]["up"] for one in seeded.shown(PANELS["uptime/Up/A"])}
    assert up == {"clowder": 0.75, "rabbitmq": 1.0}
    (known,) = seeded.shown(PANELS["uptime/Known/A"])
    assert known.rows[0]["known"] == (WINDOWS - 1) / WINDOWS


@pytest.mark.parametrize("window", ["1m", "1h", "1d"])
@pytest.mark.parametrize("name", OVER_TIME)
def test_no_line_is_drawn_through_a_window_that_has_no_row(name: str, window: str, seeded: Seeded) -> None:
    # Grafana draws a line from a value to the next that it is given, however far: each window is given, as null or 0.
    for one in seeded.shown(PANELS[name], window=window):
        times = [row["time"] for row in one.rows]
        step = UNIT_S[window[1]] * 1000
        assert times == list(range(times[0], times[-1] + step, step))
        assert times[-1] == NOW_S * 1000 // step * step
        assert times[0] <= NOW_S * 1000 - span_s(boards()[PANELS[name].board]) * 1000


@pytest.mark.parametrize("window", ["1m", "1h", "1d"])
def test_a_window_by_itself_shows_what_its_row_says(window: str, seeded: Seeded) -> None:
    for name in ("uptime/Response time/A", "extractors/Runtime/A", "uptime/Queues/A"):
        for one in seeded.shown(PANELS[name], window=window):
            values = {row["time"] // 1000: tuple(row.values())[1:] for row in one.rows}
            there = {at: each for at, each in values.items() if any(value is not None for value in each)}
            begins = NOW_S - span_s(boards()[PANELS[name].board])  # before which no row is shown
            expected = [at for at in starts(window) if at >= begins]
            if name == "extractors/Runtime/A" and window != "1d":
                del expected[0]  # nothing ran in it
            assert list(there) == expected, name
            assert {value for each in there.values() for value in each} <= {2.5, 7}, name


def test_failures_are_a_share_of_the_runs_that_ended_well_or_not(seeded: Seeded) -> None:
    (share,) = seeded.shown(PANELS["extractors/Share of failures/A"])
    assert share.rows[0]["failed"] == pytest.approx(0.1)


def test_failures_and_retries_count_where_nothing_has_a_runtime(seeded: Seeded) -> None:
    found: dict[str, Any] = {}
    for ref in "AB":
        for one in seeded.shown(PANELS[f"extractors/Every extractor/{ref}"]):
            if one.tags["extractor"] == "ncsa.image":
                found |= one.rows[0]
    (failed,) = seeded.shown(PANELS["extractors/Failed/A"], extractor="(ncsa.image)")
    (retried,) = seeded.shown(PANELS["extractors/Retried/A"], extractor="(ncsa.image)")
    assert (found["failed"], found["retried"]) == (WINDOWS, 7 * WINDOWS)
    assert (failed.rows[0]["failed"], retried.rows[0]["retried"]) == (WINDOWS, 7 * WINDOWS)
    # The oldest window has no run, and stale times.
    assert (found["mean"], found["longest"]) == (pytest.approx(2.5 / 7), 2.5)


def test_the_alert_on_services_names_the_one_that_was_down(seeded: Seeded) -> None:
    rules = yaml.safe_load((GRAFANA / "provisioning/alerting/eventsink.yaml").read_text())["groups"][0][
        "rules"
    ]
    rule = next(rule for rule in rules if rule["uid"] == "eventsink-service-down")
    query, _, condition = rule["data"]
    since = NOW_S - query["relativeTimeRange"]["from"]
    series = seeded.ask(filled(query["model"]["query"], {}, interval="1m", since_s=since))
    down = {one.tags["service"]: one.rows[-1]["down"] for one in series}
    # Four of the five minutes are known, a quarter of each is down.
    assert down == {"clowder": 60.0, "rabbitmq": 0.0}
    (evaluator,) = [each["evaluator"] for each in condition["model"]["conditions"]]
    assert evaluator["type"] == "gt"
    assert down["rabbitmq"] <= evaluator["params"][0] < down["clowder"]
