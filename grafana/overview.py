"""The whole platform on one page: users, traffic, storage, extractors, and whether it is up."""

from __future__ import annotations

from grafana.boards import Board, source, window
from grafana.measures import (
    bytes_added_and_removed,
    bytes_downloaded,
    downloaded,
    events_by_action,
    failures,
    net_growth,
    rows_of,
    runs,
)
from grafana.panels import BLUE, GREEN, ORANGE, RED, Influxql, Row, lines, stat

_ACTIVITY = rows_of("user_activity")
_STORAGE = rows_of("space_storage")
_TRAFFIC = rows_of("resource_traffic")
_RUNS = rows_of("extractor_runtime")
_QUORUM = rows_of("service_uptime", "\"region\" = 'all'", '("up_s" > 0 OR "down_s" > 0)')

overview = Board(
    name="overview",
    title="Overview",
    description="Users, traffic and storage of the whole platform, and whether it is up.",
    since="now-7d",
    variables=[source("influxdb", "InfluxDB"), window("1h")],
    rows=[
        Row(
            "In the span shown",
            4,
            [
                stat(
                    "Users on the latest day",
                    "Different users who logged in, on the latest day (UTC) of the span, today included.",
                    "short",
                    Influxql(
                        'SELECT last("unique_users") AS "users" FROM "user_activity" '
                        "WHERE \"window\" = '1d' AND \"action\" = 'logged_in' AND $timeFilter",
                        "$col",
                    ),
                    base=BLUE,
                ),
                stat(
                    "New users",
                    "Sign-ups.",
                    "short",
                    Influxql(
                        f'SELECT sum("events") AS "sign-ups" {_ACTIVITY} AND "action" = \'signed_up\'', "$col"
                    ),
                    base=BLUE,
                    nothing="0",
                ),
                downloaded(_TRAFFIC),
                net_growth(
                    "Net growth of storage", "Bytes of all uploads less those of all deletions.", _STORAGE
                ),
                failures("Failed runs", "Share of the extractors' runs that ended in failure.", _RUNS),
                stat(
                    "Up",
                    "Time up ÷ (up + down), by the quorum of regions, over all services. Time that no check covers and "
                    "maintenance count neither for nor against.",
                    "percentunit",
                    Influxql(f'SELECT sum("up_s") / (sum("up_s") + sum("down_s")) AS "up" {_QUORUM}', "$col"),
                    decimals=2,
                    base=RED,
                    steps=[(0.99, ORANGE), (0.999, GREEN)],
                    nothing="unknown",
                ),
            ],
        ),
        Row(
            "Users",
            8,
            [
                lines(
                    "Different users",
                    "By what they did; in each window by itself: users of two windows must not be added up.",
                    "short",
                    Influxql(
                        f'SELECT last("unique_users") AS "users" {_ACTIVITY} '
                        'GROUP BY time($window), "action" fill(0)',
                        "$tag_action",
                    ),
                    interval="$window",
                ),
                events_by_action("What users do", "Log-ins, sign-ups and resources made.", _ACTIVITY),
            ],
        ),
        Row(
            "Traffic",
            8,
            [
                events_by_action(
                    "Views and downloads", "Pages viewed, resources viewed, resources downloaded.", _TRAFFIC
                ),
                bytes_downloaded(_TRAFFIC),
            ],
        ),
        Row(
            "Storage and extractors",
            8,
            [
                bytes_added_and_removed(_STORAGE),
                runs("Runs of extractors", "Runs by how they ended.", _RUNS),
            ],
        ),
    ],
)
