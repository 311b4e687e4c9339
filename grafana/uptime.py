"""Uptime: measured in time, seen from each region and by their quorum."""

from __future__ import annotations

from grafana.boards import Board, source, tag, window
from grafana.panels import BLUE, GREEN, ORANGE, RED, Influxql, Row, lines, stat, timeline

_WINDOW = '"window" = \'$window\' AND "service" =~ /^$service$/ AND $timeFilter'
_REGION = '"region" =~ /^$region$/'
_UPTIME = f'FROM "service_uptime" WHERE {_WINDOW}'
#: A stored ratio is stale where nothing of the window is known to be up or down: it is left out.
_KNOWN = '("up_s" > 0 OR "down_s" > 0)'
_RATIO = 'sum("up_s") / (sum("up_s") + sum("down_s"))'
_PAGE = f'FROM "service_page" WHERE {_WINDOW} AND {_REGION}'
_STEP = "GROUP BY time($__interval)"
#: Null where no window is: Grafana holds a state, and draws a line, to the next value that it is given.
_GAPS = f'{_STEP}, "service", "region" fill(null)'
#: Each window by itself: a mean, a quantile, or a maximum of one row is that row's.
_EACH = "GROUP BY time($window), {tags} fill(null)"
_SEEN = _EACH.format(tags='"service", "region"')
#: Monitors check once a minute unless told otherwise. One who checks every five has windows of a minute that are empty
#: by right: his line goes on. Windows of an hour or a day are further apart than this, and are never joined.
_CHECKS_APART_MS = 5 * 60_000 + 1
_SERIES = "$tag_service $tag_region"
#: 1, 2 and 3 nines.
_NINES = [(0.9, "semi-dark-orange"), (0.99, ORANGE), (0.999, GREEN)]

uptime = Board(
    name="uptime",
    title="Uptime",
    description="Whether services are up, from each region and by the quorum of regions (all); how fast they answer.",
    since="now-24h",
    variables=[
        source("influxdb", "InfluxDB"),
        window("1h"),
        tag("service", "Service", "service_uptime"),
        tag("region", "Region", "service_uptime"),
    ],
    rows=[
        Row(
            "In the span shown, by the quorum of regions",
            5,
            [
                stat(
                    "Up",
                    "Time up ÷ (up + down). Time that no check covers and maintenance count neither for nor against.",
                    "percentunit",
                    Influxql(
                        f'SELECT {_RATIO} AS "up" {_UPTIME} AND "region" = \'all\' AND {_KNOWN} GROUP BY "service"',
                        "$tag_service",
                    ),
                    width=12,
                    decimals=3,
                    base=RED,
                    steps=_NINES,
                    nothing="unknown",
                ),
                stat(
                    "Down",
                    "Time down: what an objective is broken by.",
                    "s",
                    Influxql(f'SELECT sum("down_s") AS "down" {_UPTIME} AND "region" = \'all\'', "$col"),
                    steps=[(60, ORANGE), (600, RED)],
                    nothing="unknown",
                ),
                stat(
                    "In maintenance",
                    "Time in announced maintenance.",
                    "s",
                    Influxql(
                        f'SELECT sum("maintenance_s") AS "maintenance" {_UPTIME} AND "region" = \'all\'',
                        "$col",
                    ),
                    base=BLUE,
                    nothing="unknown",
                ),
                stat(
                    "Known",
                    "Share of the span that is known at all. A service that is up for 100 % of a tenth of the time is "
                    "not proven healthy.",
                    "percentunit",
                    Influxql(
                        'SELECT (sum("up_s") + sum("down_s") + sum("maintenance_s")) / (sum("up_s") + sum("down_s") + '
                        f'sum("maintenance_s") + sum("unknown_s")) AS "known" {_UPTIME} AND "region" = \'all\'',
                        "$col",
                    ),
                    decimals=1,
                    base=RED,
                    steps=[(0.5, ORANGE), (0.95, GREEN)],
                    nothing="unknown",
                ),
            ],
        ),
        Row(
            "Up",
            9,
            [
                timeline(
                    "By service and region",
                    "The share of each window in which it was up; all is the quorum of regions. Gaps: unknown.",
                    "percentunit",
                    Influxql(
                        f'SELECT {_RATIO} AS "up" {_UPTIME} AND {_REGION} AND {_KNOWN} {_GAPS}',
                        _SERIES,
                    ),
                    base=RED,
                    steps=_NINES,
                    interval="$window",
                ),
                lines(
                    "Availability",
                    "Time up ÷ (up + down).",
                    "percentunit",
                    Influxql(
                        f'SELECT {_RATIO} AS "up" {_UPTIME} AND {_REGION} AND {_KNOWN} {_GAPS}',
                        _SERIES,
                    ),
                    interval="$window",
                    most=1,
                ),
                lines(
                    "Coverage",
                    "The share of each window that is known. Where it falls, look at the monitors.",
                    "percentunit",
                    Influxql(
                        f'SELECT mean("coverage") AS "coverage" {_UPTIME} AND {_REGION} {_GAPS}', _SERIES
                    ),
                    interval="$window",
                    least=0,
                    most=1,
                ),
            ],
        ),
        Row(
            "Response",
            8,
            [
                lines(
                    "Response time",
                    "Mean and 95th percentile of the checks in each window.",
                    "ms",
                    Influxql(
                        'SELECT last("response_ms_mean") AS "mean", last("response_ms_p95") AS "p95" '
                        f'{_UPTIME} AND {_REGION} AND "checks" > 0 {_SEEN}',
                        f"{_SERIES} $col",
                    ),
                    joined_ms=_CHECKS_APART_MS,
                    interval="$window",
                    least=0,
                ),
                lines(
                    "Checks that failed",
                    "Of pings and fetches, by region; the quorum has none of its own.",
                    "short",
                    Influxql(
                        f'SELECT sum("failures") AS "failures" {_UPTIME} AND {_REGION} '
                        f'{_STEP}, "service", "region" fill(0)',
                        _SERIES,
                    ),
                    bars=True,
                    interval="$window",
                ),
                lines(
                    "Page load",
                    "Time to fetch the page whole; mean and 95th percentile of each window.",
                    "ms",
                    Influxql(
                        'SELECT last("elapsed_ms_mean") AS "mean", last("elapsed_ms_p95") AS "p95" '
                        f'{_PAGE} AND "fetches" > 0 {_SEEN}',
                        f"{_SERIES} $col",
                    ),
                    joined_ms=_CHECKS_APART_MS,
                    interval="$window",
                    least=0,
                ),
                lines(
                    "Size of the page",
                    "A page that suddenly is small is an error page, as a rule.",
                    "bytes",
                    Influxql(
                        f'SELECT last("bytes_mean") AS "bytes" {_PAGE} AND "fetches" > 0 {_SEEN}', _SERIES
                    ),
                    joined_ms=_CHECKS_APART_MS,
                    interval="$window",
                    least=0,
                ),
            ],
        ),
        Row(
            "Load",
            8,
            [
                lines(
                    "Connections",
                    "Mean and most of what the monitors counted.",
                    "short",
                    Influxql(
                        'SELECT last("connections_mean") AS "mean", last("connections_max") AS "most" '
                        f'FROM "service_connections" WHERE {_WINDOW} AND {_REGION} {_SEEN}',
                        f"{_SERIES} $col",
                    ),
                    joined_ms=_CHECKS_APART_MS,
                    interval="$window",
                    least=0,
                ),
                lines(
                    "Queues",
                    "Messages that wait in RabbitMQ's queues, the most of each window.",
                    "short",
                    Influxql(
                        f'SELECT last("messages_max") AS "most" FROM "queue_length" WHERE {_WINDOW} '
                        + _EACH.format(tags='"service", "queue"'),
                        "$tag_service $tag_queue",
                    ),
                    joined_ms=_CHECKS_APART_MS,
                    interval="$window",
                    least=0,
                ),
            ],
        ),
    ],
)
