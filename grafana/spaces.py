"""Spaces: what is added to and removed from them, and what is done in them."""

from __future__ import annotations

from grafana.boards import Board, source, tag, window
from grafana.measures import (
    NET_BYTES,
    STEP,
    bytes_added_and_removed,
    bytes_downloaded,
    downloaded,
    events_by_action,
    net_growth,
    rows_of,
)
from grafana.panels import BLUE, ORANGE, Influxql, Row, lines, stat, table

_SPACE = '"space_id" =~ /^$space_id$/'
_STORAGE = rows_of("space_storage", _SPACE)
_TRAFFIC = rows_of("resource_traffic", _SPACE)

spaces = Board(
    name="spaces",
    title="Spaces",
    description="Bytes and files added to and removed from spaces, and what is viewed and downloaded in them.",
    since="now-7d",
    variables=[
        source("influxdb", "InfluxDB"),
        window("1h"),
        tag("space_id", "Space", "space_storage"),
    ],
    rows=[
        Row(
            "In the span shown",
            4,
            [
                stat(
                    "Added",
                    "Bytes of all files uploaded.",
                    "bytes",
                    Influxql(f'SELECT sum("bytes_added") AS "added" {_STORAGE}', "$col"),
                    base=BLUE,
                    nothing="0 B",
                ),
                stat(
                    "Removed",
                    "Bytes of all files deleted.",
                    "bytes",
                    Influxql(f'SELECT sum("bytes_removed") AS "removed" {_STORAGE}', "$col"),
                    base=BLUE,
                    nothing="0 B",
                ),
                net_growth(
                    "Net growth",
                    "Added less removed. Below nothing: more was deleted than uploaded.",
                    _STORAGE,
                ),
                stat(
                    "Files, net",
                    "Files uploaded less files deleted.",
                    "short",
                    Influxql(
                        f'SELECT sum("files_added") - sum("files_removed") AS "files" {_STORAGE}', "$col"
                    ),
                    base=ORANGE,
                    steps=[(0, BLUE)],
                    nothing="0",
                ),
                downloaded(_TRAFFIC),
                stat(
                    "Views",
                    "Resources viewed; pages are not counted here.",
                    "short",
                    Influxql(f'SELECT sum("events") AS "views" {_TRAFFIC} AND "action" = \'viewed\'', "$col"),
                    base=BLUE,
                    nothing="0",
                ),
            ],
        ),
        Row(
            "Storage",
            9,
            [
                bytes_added_and_removed(_STORAGE),
                lines(
                    "Net growth since the beginning of the span",
                    "Added less removed, summed up from the left edge. It is growth, not the size of what is stored.",
                    "bytes",
                    Influxql(
                        f'SELECT cumulative_sum("net") AS "growth" FROM (SELECT {NET_BYTES} AS "net" {_STORAGE} '
                        f"{STEP} fill(0))",
                        "$col",
                    ),
                    interval="$window",
                ),
                table(
                    "Top spaces",
                    "The twenty spaces to which most bytes were added.",
                    Influxql(
                        'SELECT top("added", "space_id", 20) AS "added", "removed", "net", "files" FROM '
                        '(SELECT sum("bytes_added") AS "added", sum("bytes_removed") AS "removed", '
                        f'{NET_BYTES} AS "net", sum("files_added") AS "files" {_STORAGE} GROUP BY "space_id")'
                    ),
                    columns=("space_id", "added", "removed", "net", "files"),
                    sort="added",
                    unit="bytes",
                    units={"files": "short"},
                ),
            ],
        ),
        Row(
            "Traffic",
            8,
            [
                events_by_action(
                    "Views and downloads",
                    "Events of each kind; a download of several files at once is one.",
                    _TRAFFIC,
                ),
                bytes_downloaded(_TRAFFIC),
            ],
        ),
    ],
)
