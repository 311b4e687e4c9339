"""Extractors: runs, failures, how long they take and how long jobs wait for them."""

from __future__ import annotations

from grafana.boards import Board, source, tag, window
from grafana.measures import STEP, failures, rows_of, runs
from grafana.panels import BLUE, RED, Influxql, Row, lines, stat, table

_ROWS = rows_of("extractor_runtime", '"extractor" =~ /^$extractor$/')
#: A correction may leave quantiles behind that mean nothing: those of rows without a run or a wait.
_RAN = f'{_ROWS} AND "runtime_s_count" > 0'
_WAITED = f'{_ROWS} AND "wait_s_count" > 0'
#: Each window by itself: the last of one row is that row. Null where nothing ran: no line is drawn through it.
_EACH = 'GROUP BY time($window), "extractor" fill(null)'
_ONE_WINDOW = (
    "Of each window by itself: quantiles of several windows have no mean. A longer window has truer ones."
)

extractors = Board(
    name="extractors",
    title="Extractors",
    description="Runs and failures of extractors, how long they take, and how long jobs wait for them.",
    since="now-24h",
    variables=[
        source("influxdb", "InfluxDB"),
        window("1h"),
        tag("extractor", "Extractor", "extractor_runtime"),
    ],
    rows=[
        Row(
            "In the span shown",
            4,
            [
                stat(
                    "Succeeded",
                    "Runs that ended well.",
                    "short",
                    Influxql(f'SELECT sum("succeeded") AS "succeeded" {_ROWS}', "$col"),
                    base=BLUE,
                    nothing="0",
                ),
                stat(
                    "Failed",
                    "Runs that ended in failure.",
                    "short",
                    Influxql(f'SELECT sum("failed") AS "failed" {_ROWS}', "$col"),
                    steps=[(1, RED)],
                    nothing="0",
                ),
                failures("Share of failures", "Failed ÷ (failed + succeeded).", _ROWS),
                stat(
                    "Retried",
                    "Messages that an extractor took up again.",
                    "short",
                    Influxql(f'SELECT sum("retried") AS "retried" {_ROWS}', "$col"),
                    base=BLUE,
                    nothing="0",
                ),
                stat(
                    "Mean runtime",
                    "From a run's last start to its end.",
                    "s",
                    Influxql(
                        f'SELECT sum("runtime_s_sum") / sum("runtime_s_count") AS "runtime" {_RAN}', "$col"
                    ),
                    base=BLUE,
                    decimals=1,
                    nothing="no run",
                ),
                stat(
                    "Mean wait",
                    "From a job's submission to its first start.",
                    "s",
                    Influxql(f'SELECT sum("wait_s_sum") / sum("wait_s_count") AS "wait" {_WAITED}', "$col"),
                    base=BLUE,
                    decimals=1,
                    nothing="no run",
                ),
            ],
        ),
        Row(
            "Runs",
            8,
            [
                runs("Runs by how they ended", "In the window in which the run ended.", _ROWS),
                lines(
                    "Submitted and ended",
                    "Where more is submitted than ends, jobs pile up.",
                    "short",
                    Influxql(
                        'SELECT sum("submitted") AS "submitted", '
                        'sum("succeeded") + sum("failed") + sum("skipped") AS "ended" '
                        f"{_ROWS} {STEP} fill(0)",
                        "$col",
                    ),
                    interval="$window",
                ),
            ],
        ),
        Row(
            "Time",
            9,
            [
                lines(
                    "Runtime",
                    f"Half of the runs were shorter than p50, 95 % shorter than p95. {_ONE_WINDOW}",
                    "s",
                    Influxql(
                        'SELECT last("runtime_s_p50") AS "p50", last("runtime_s_p95") AS "p95" '
                        f"{_RAN} {_EACH}",
                        "$tag_extractor $col",
                    ),
                    interval="$window",
                    least=0,
                ),
                lines(
                    "Wait",
                    f"From a job's submission to its first start. {_ONE_WINDOW}",
                    "s",
                    Influxql(
                        f'SELECT last("wait_s_p50") AS "p50", last("wait_s_p95") AS "p95" {_WAITED} {_EACH}',
                        "$tag_extractor $col",
                    ),
                    interval="$window",
                    least=0,
                ),
            ],
        ),
        Row(
            "Extractors",
            10,
            [
                table(
                    "Every extractor",
                    "Runs in the span shown; the mean and the longest runtime.",
                    Influxql(
                        'SELECT sum("succeeded") AS "succeeded", sum("failed") AS "failed", '
                        f'sum("retried") AS "retried" {_ROWS} GROUP BY "extractor"'
                    ),
                    # By itself: a failure or a retry counts in windows without a runtime too. Mean and longest stay in
                    # one query: a lone max() brings the time of its row, by which the rows would not merge.
                    Influxql(
                        'SELECT sum("runtime_s_sum") / sum("runtime_s_count") AS "mean", '
                        f'max("runtime_s_max") AS "longest" {_RAN} GROUP BY "extractor"'
                    ),
                    columns=("extractor", "succeeded", "failed", "retried", "mean", "longest"),
                    sort="failed",
                    units={"mean": "s", "longest": "s"},
                )
            ],
        ),
    ],
)
