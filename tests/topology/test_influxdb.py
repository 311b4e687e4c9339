"""What only InfluxDB can do: refuse, be away, lose an answer, not know us. The rest: ``test_rollup_sinks.py``."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from tests.servers.influxdb import QUERY, WRITE, Influx
from tests.servers.victoria import Series, Victoria
from tests.topology.influx_sinks import T0, everything, everything_said, point, sink_on
from topology.errors import Refused, SettingsError, Unavailable
from topology.influxdb.sink import InfluxRollups
from topology.integers import is_integer_field
from topology.sinks import Point

pytestmark = pytest.mark.servers


@pytest.fixture
async def sink(influx: Influx) -> AsyncIterator[InfluxRollups]:
    sink = sink_on(influx)
    await sink.open()
    influx.requests.clear()
    yield sink
    await sink.close()


# -- open --


async def test_opening_proves_the_right_to_write_and_writes_nothing(influx: Influx) -> None:
    sink = sink_on(influx)
    await sink.open()
    await sink.close()
    assert [(seen.path, seen.status) for seen in influx.requests] == [(WRITE, 204)]
    assert influx.rows("SHOW SERIES") == []


@pytest.mark.parametrize("token", ["eventsink:wrong-password", "nobody:nothing", "not-of-this-form", ""])
async def test_a_wrong_token_is_a_matter_of_settings(influx: Influx, token: str) -> None:
    with pytest.raises(SettingsError, match="EVENTSINK_INFLUX_TOKEN") as caught:
        await sink_on(influx, token=token).open()
    for secret in filter(None, (token, token.partition(":")[2])):
        assert secret not in everything_said(caught.value)


async def test_a_missing_bucket_is_a_matter_of_settings(influx: Influx) -> None:
    with pytest.raises(SettingsError, match=r"bucket elsewhere .* EVENTSINK_INFLUX_BUCKET"):
        await sink_on(influx, bucket="elsewhere").open()


async def test_a_token_that_may_only_read_is_a_matter_of_settings(influx: Influx) -> None:
    with pytest.raises(SettingsError, match=f"read and write bucket {influx.bucket}"):
        await sink_on(influx, token=influx.reader_token()).open()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8086", "EVENTSINK_INFLUX_URL"),
        ("ftp://localhost", "EVENTSINK_INFLUX_URL"),
        ("http://", "EVENTSINK_INFLUX_URL"),
        ("http://[::1", "EVENTSINK_INFLUX_URL"),
        ("http://localhost:99999", "EVENTSINK_INFLUX_URL"),
        ("http://user:s3cret@localhost:8086", "EVENTSINK_INFLUX_TOKEN to user:password"),
    ],
)
async def test_an_address_that_cannot_be_right_is_named(influx: Influx, url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        await sink_on(influx, url=url).open()
    assert "s3cret" not in everything_said(caught.value)


@pytest.mark.parametrize("token", ["s3cret\n", "s3cretü"])
async def test_a_token_that_cannot_be_right_is_not_sent(influx: Influx, token: str) -> None:
    with pytest.raises(SettingsError, match="EVENTSINK_INFLUX_TOKEN") as caught:
        await sink_on(influx, token=token).open()
    assert "s3cret" not in everything_said(caught.value)
    assert influx.requests == []


@pytest.mark.parametrize("status", [200, 400])
async def test_a_server_that_is_no_influxdb_is_a_matter_of_settings(influx: Influx, status: int) -> None:
    influx.answer_next(status, b"<h1>Welcome</h1>", content_type="text/html")
    with pytest.raises(SettingsError, match="EVENTSINK_INFLUX_URL"):
        await sink_on(influx).open()


async def test_a_server_without_such_a_method_is_no_influxdb(influx: Influx) -> None:
    influx.answer_next(405, b"method not allowed", content_type="text/plain")
    with pytest.raises(SettingsError, match=r"method not allowed.*EVENTSINK_INFLUX_URL"):
        await sink_on(influx).open()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"code": "invalid", "message": "writing requires points"}'),
        ("application/json", b'{"error": "no points"}'),
        ("text/plain; charset=utf-8", b"no points"),
    ],
)
async def test_a_server_that_wants_a_point_has_understood_us(
    influx: Influx, content_type: str, body: bytes
) -> None:
    influx.answer_next(400, body, content_type=content_type)
    sink = sink_on(influx)
    await sink.open()
    await sink.close()


async def test_a_redirect_is_not_followed(influx: Influx, sink: InfluxRollups) -> None:
    # A redirected POST becomes a GET: its answer would look like success, and the points were gone.
    influx.fail_next(302, headers={"Location": f"{influx.url}/ping"}, times=2)
    with pytest.raises(SettingsError, match="has moved"):
        await sink_on(influx).open()
    with pytest.raises(Unavailable, match="has moved"):
        await sink.write([point()])
    assert {seen.path for seen in influx.requests} == {WRITE}


async def test_an_unreachable_server_is_named_without_secrets(free_port: Callable[[], int]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    sink = InfluxRollups(url, "eventsink:s3cret", "eventsink", "eventsink")
    with pytest.raises(Unavailable, match=f"InfluxDB at {url} does not answer") as caught:
        await sink.open()
    assert "s3cret" not in everything_said(caught.value)
    assert caught.value.retry_after is None


async def test_a_failed_open_can_be_repeated(influx: Influx) -> None:
    sink = sink_on(influx)
    with influx.away(), pytest.raises(Unavailable):
        await sink.open()
    await sink.open()
    await sink.write([point()])
    await sink.close()


async def test_a_sink_that_is_not_open_says_so(influx: Influx) -> None:
    sink = sink_on(influx)
    with pytest.raises(Unavailable, match="open"):
        await sink.write([point()])
    with pytest.raises(Unavailable, match="open"):
        await everything(sink)


# -- write --


async def test_what_is_written_is_compressed_and_read_by_the_server(
    influx: Influx, sink: InfluxRollups
) -> None:
    await sink.write([point(f"s{number}") for number in range(100)])
    (seen,) = influx.requests
    assert seen.headers["Content-Encoding"] == "gzip"
    assert seen.query == {"org": influx.org, "bucket": influx.bucket, "precision": "s"}
    lines = gzip.decompress(seen.body).decode().splitlines()
    assert len(lines) == 100
    assert lines[0] == f"space_storage,window=1h,space_id=s0 files_added=1i {T0}"
    assert len(seen.body) < len("\n".join(lines)) / 5
    assert influx.rows("SELECT count(files_added) FROM space_storage")[0]["count"] == 100


async def test_the_point_in_the_database_is_the_one_of_the_contract(
    influx: Influx, sink: InfluxRollups
) -> None:
    await sink.write([point("a b,c=d", files_added=0, bytes_added=2**63 - 1, bytes_mean=2.0)])
    assert influx.rows("SELECT * FROM space_storage") == [
        {
            "time": T0,
            "window": "1h",
            "space_id": "a b,c=d",
            "files_added": 0,
            "bytes_added": 2**63 - 1,
            "bytes_mean": 2,
        }
    ]
    types = {row["fieldKey"]: row["fieldType"] for row in influx.rows("SHOW FIELD KEYS")}
    assert types == {"files_added": "integer", "bytes_added": "integer", "bytes_mean": "float"}
    assert {row["tagKey"] for row in influx.rows("SHOW TAG KEYS")} == {"window", "space_id"}


async def test_two_keys_in_one_window_do_not_overwrite_each_other(
    influx: Influx, sink: InfluxRollups
) -> None:
    # Pitfall 4: the same tags in the same millisecond. An address here is unique by construction.
    await sink.write([point("s1", files_added=1), point("s2", files_added=2)])
    assert [each.fields["files_added"] for each in await everything(sink)] == [1, 2]


async def test_a_long_write_is_split(influx: Influx, sink: InfluxRollups) -> None:
    await sink.write([point(f"s{number}") for number in range(12_000)])
    sizes = [len(gzip.decompress(seen.body).splitlines()) for seen in influx.requests]
    assert sizes == [5000, 5000, 2000]


async def test_a_type_conflict_is_refused_in_the_servers_words(influx: Influx, sink: InfluxRollups) -> None:
    await sink.write([point(files_added=1)])
    with pytest.raises(Refused, match=r"field type conflict.*files_added"):
        await sink.write([point(files_added=1.5)])


async def test_a_type_conflict_does_not_hide_behind_its_neighbours(
    influx: Influx, sink: InfluxRollups
) -> None:
    await sink.write([point(files_added=1)])
    with pytest.raises(Refused, match="field type conflict"):
        await sink.write([point("s2"), point("s3", files_added=1.5), point("s4")])


@pytest.mark.parametrize(
    "unfit",
    [
        point(bytes_added=2**63),
        point(time=2**40),
        point("a\\"),
        point("a\\b"),
        point("a\nspace_storage,space_id=b files_added=9i"),
        point("\x00"),
        point(""),
        point()._replace(rollup="#space_storage"),
        point()._replace(rollup=""),
        point()._replace(window=""),
        point()._replace(fields={"": 1}),
    ],
)
async def test_what_influxdb_cannot_hold_is_refused(
    influx: Influx, sink: InfluxRollups, unfit: Point
) -> None:
    with pytest.raises(Refused):
        await sink.write([unfit])
    assert influx.rows("SHOW SERIES") == []


async def test_names_are_escaped_too(influx: Influx, sink: InfluxRollups) -> None:
    odd = Point("a b,c=d", "1 h", T0, (("t, =", "v"),), {"f, =": 1.0})
    await sink.write([odd])
    assert await sink.query("a b,c=d", "1 h", since=None, until=None, where={"t, =": "v"}, limit=9) == [odd]


# -- query --


async def test_what_a_query_looks_for_cannot_become_part_of_it(influx: Influx, sink: InfluxRollups) -> None:
    await sink.write([point()])
    for text in ("' OR '1'='1", "x' OR 1=1 --", "'; DROP MEASUREMENT space_storage; SELECT '", "\\' OR ''='"):
        for rollup, window, where in (
            (text, "1h", {}),
            (f'x" WHERE 1=1; DROP MEASUREMENT space_storage; SHOW "{text}', "1h", {}),
            ("space_storage", text, {}),
            ("space_storage", "1h", {"space_id": text}),
            ("space_storage", "1h", {text: "s1"}),
            ("space_storage", "1h", {f"x\" = '' OR \"{text}": "s1"}),
        ):
            assert await sink.query(rollup, window, since=None, until=None, where=where, limit=9) == []
    assert await everything(sink) == [point()]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_query_that_is_not_answered_is_unavailable(
    influx: Influx, sink: InfluxRollups, status: int
) -> None:
    influx.fail_next(status, retry_after=3, path=QUERY)
    with pytest.raises(Unavailable, match=f"answers {status}") as caught:
        await everything(sink)
    assert caught.value.retry_after == timedelta(seconds=3)


async def test_a_query_whose_answer_is_cut_off_is_no_empty_result(
    influx: Influx, sink: InfluxRollups
) -> None:
    await sink.write([point()])
    influx.drop_next(times=2, forwarded=False, path=QUERY)
    with pytest.raises(Unavailable):
        await everything(sink)
    for body in (b"<h1>Please log in</h1>", b"[]", b"{}", b'{"results": null}'):
        influx.answer_next(200, body, content_type="application/json", path=QUERY)
        with pytest.raises(Unavailable, match="not as InfluxDB does"):
            await everything(sink)
    influx.answer_next(
        200, b'{"results":[{"error":"timeout reached"}]}', content_type="application/json", path=QUERY
    )
    with pytest.raises(Unavailable, match="timeout reached"):
        await everything(sink)


async def test_a_question_of_many_long_values_is_asked_in_the_body(
    influx: Influx, sink: InfluxRollups
) -> None:
    # Proxies and servers take 8 KiB of a URL; these are 25 600 characters.
    spaces = [f"{number:03}{'ü' * 253}" for number in range(100)]
    points = [point(space) for space in spaces]
    await sink.write(points)
    influx.requests.clear()
    found = await sink.query(
        "space_storage", "1h", since=T0, until=None, where={"space_id": spaces[1:]}, limit=1000
    )
    assert found == points[1:]
    (asked,) = influx.requests
    assert (asked.method, set(asked.query)) == ("POST", {"db", "epoch"})


async def test_a_bucket_that_vanished_is_told_in_a_query(influx: Influx, sink: InfluxRollups) -> None:
    influx.rows(f"DROP DATABASE {influx.bucket}")
    with pytest.raises(Unavailable, match=f"bucket {influx.bucket}"):
        await everything(sink)
    with pytest.raises(Unavailable, match=f"make bucket {influx.bucket}"):
        await sink.write([point()])
    influx.open_bucket()
    await sink.write([point()])


async def test_rows_that_a_server_leaves_out_are_asked_for(influx: Influx, sink: InfluxRollups) -> None:
    # max-row-limit = 2: three points in one window, two in the next. "partial" says that there is more.
    def answer(*values: tuple[int, int, str]) -> None:
        series = {"columns": ["time", "files_added", "space_id"], "values": values, "partial": True}
        body = json.dumps({"results": [{"series": [series]}]}).encode()
        influx.answer_next(200, body, content_type="application/json", path=QUERY)

    points = [
        *(point(space, time=T0) for space in ("a", "b", "c")),
        *(point(space, time=T0 + 3600) for space in ("a", "b")),
    ]
    await sink.write(points)
    answer((T0, 1, "c"), (T0, 1, "b"))
    assert await everything(sink) == points
    answer((T0, 1, "c"), (T0, 1, "b"))
    answer((T0, 1, "c"), (T0, 1, "b"))
    with pytest.raises(Unavailable, match="max-row-limit"):
        await everything(sink)


# -- which fields are integers --


@pytest.mark.parametrize(
    ("field", "integer"),
    [
        ("files_added", True),
        ("files_removed", True),
        ("events", True),
        ("unique_users", True),
        ("runtime_s_count", True),
        ("retried", True),
        ("messages_max", True),
        ("connections_max", True),
        ("bytes", True),
        ("bytes_added", True),
        ("bytes_mean", False),
        ("messages_mean", False),
        ("response_ms_max", False),
        ("up_s", False),
        ("coverage", False),
        ("runtime_s_sum", False),
        ("runtime_s_p95", False),
    ],
)
def test_integer_fields_follow_from_their_names(field: str, integer: bool) -> None:
    assert is_integer_field("any", field) is integer


# -- VictoriaMetrics, which serves /api/v2/write itself --


async def test_the_path_of_writing_is_one_that_others_serve(victoria: Victoria) -> None:
    sink = sink_on(victoria)
    await sink.open()
    await sink.write(
        [
            point("grün, =", files_added=0, bytes_added=12),
            point("grün, =", time=T0 + 3600, files_added=5, bytes_added=0),
        ]
    )
    labels = {"window": "1h", "space_id": "grün, ="}
    assert [series._replace(labels=_without_database(series)) for series in victoria.stored()] == [
        Series("space_storage_bytes_added", labels, {T0: 12, T0 + 3600: 0}),
        Series("space_storage_files_added", labels, {T0: 0, T0 + 3600: 5}),
    ]
    await sink.close()


def _without_database(series: Series) -> dict[str, str]:
    return {name: value for name, value in series.labels.items() if name != "db"}
