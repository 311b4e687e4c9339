"""What InfluxDB answers when something is wrong, and what becomes of the points then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.servers.influxdb import QUERY, Influx
from tests.topology.influx_sinks import everything, everything_said, point, sink_on
from topology.errors import EventsinkError, Refused, SettingsError, Unavailable
from topology.influxdb.sink import InfluxRollups

pytestmark = pytest.mark.servers


@pytest.fixture
async def sink(influx: Influx) -> AsyncIterator[InfluxRollups]:
    sink = sink_on(influx)
    await sink.open()
    influx.requests.clear()
    yield sink
    await sink.close()


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_the_server_will_never_take_is_refused(
    influx: Influx, sink: InfluxRollups, status: int
) -> None:
    influx.fail_next(status, message="no, and here is why")
    with pytest.raises(Refused, match=f"answers {status} .no, and here is why"):
        await sink.write([point()])


@pytest.mark.parametrize("status", [400, 402, 405, 406, 409, 415, 426, 431, 451])
async def test_a_proxys_page_gives_no_point_up(influx: Influx, sink: InfluxRollups, status: int) -> None:
    influx.answer_next(status, b"<h1>Down for maintenance</h1>", content_type="text/html")
    with pytest.raises(Unavailable, match=f"answers {status}"):
        await sink.write([point()])
    await sink.write([point()])
    assert await everything(sink) == [point()]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_server_that_is_busy_or_broken_is_unavailable(
    influx: Influx, sink: InfluxRollups, status: int
) -> None:
    influx.fail_next(status)
    with pytest.raises(Unavailable, match=f"answers {status}") as caught:
        await sink.write([point()])
    assert caught.value.retry_after is None
    await sink.write([point()])
    assert await everything(sink) == [point()]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_an_operator_mends_is_unavailable_once_running(
    influx: Influx, sink: InfluxRollups, status: int
) -> None:
    influx.fail_next(status, message="it was there a moment ago")
    with pytest.raises(Unavailable, match=r"it was there a moment ago.*EVENTSINK_INFLUX_"):
        await sink.write([point()])


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("stated", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("999999999", 86_400),  # a day is believed
        ("99999999999999999999", None),
        ("-7", None),
        ("soon", None),
        ("", None),
    ],
)
async def test_retry_after_is_handed_on(
    influx: Influx, sink: InfluxRollups, status: int, stated: str, seconds: int | None
) -> None:
    influx.fail_next(status, retry_after=stated)
    with pytest.raises(Unavailable) as caught:
        await sink.write([point()])
    assert caught.value.retry_after == (None if seconds is None else timedelta(seconds=seconds))


async def test_retry_after_as_a_date_is_measured_by_the_servers_clock(
    influx: Influx, sink: InfluxRollups
) -> None:
    influx.fail_next(
        503,
        retry_after="Sun, 06 Nov 1994 08:50:37 GMT",
        headers={"Date": "Sun, 06 Nov 1994 08:49:37 GMT"},
    )
    with pytest.raises(Unavailable) as caught:
        await sink.write([point()])
    assert caught.value.retry_after == timedelta(minutes=1)


async def test_a_retry_after_in_the_past_means_now(influx: Influx, sink: InfluxRollups) -> None:
    influx.fail_next(
        503,
        retry_after="Sun, 06 Nov 1994 08:49:37 GMT",
        headers={"Date": "Sun, 06 Nov 1994 08:50:37 GMT"},
    )
    with pytest.raises(Unavailable) as caught:
        await sink.write([point()])
    assert caught.value.retry_after == timedelta(0)


async def test_an_answer_that_is_not_influxdbs_is_no_success(influx: Influx, sink: InfluxRollups) -> None:
    influx.answer_next(200, b"<h1>Please log in</h1>", content_type="text/html")
    with pytest.raises(Unavailable, match="answers 200 to a write"):
        await sink.write([point()])


async def test_points_that_were_left_out_are_no_success(influx: Influx, sink: InfluxRollups) -> None:
    influx.answer_next(201, b'{"error": "partial"}', content_type="application/json")
    with pytest.raises(Refused, match="only some"):
        await sink.write([point()])


@pytest.mark.parametrize("forwarded", [False, True])
async def test_a_lost_connection_is_unavailable_and_writing_again_is_harmless(
    influx: Influx, sink: InfluxRollups, forwarded: bool
) -> None:
    influx.drop_next(forwarded=forwarded)
    with pytest.raises(Unavailable, match=influx.url):
        await sink.write([point()])
    assert await everything(sink) == ([point()] if forwarded else [])
    await sink.write([point()])
    assert await everything(sink) == [point()]


@pytest.mark.parametrize("forwarded", [False, True])
async def test_a_question_is_asked_once_more_where_its_connection_is_lost_and_not_twice(
    influx: Influx, sink: InfluxRollups, forwarded: bool
) -> None:
    await sink.write([point()])
    influx.drop_next(forwarded=forwarded, path=QUERY)
    assert await everything(sink) == [point()]
    influx.drop_next(times=2, forwarded=forwarded, path=QUERY)
    with pytest.raises(Unavailable, match=f"InfluxDB at {influx.url} does not answer"):
        await everything(sink)
    assert await everything(sink) == [point()]


async def test_a_server_that_went_away_and_came_back_is_used_again(
    influx: Influx, sink: InfluxRollups
) -> None:
    await sink.write([point("before")])
    with influx.away():
        for _ in range(3):
            with pytest.raises(Unavailable, match=f"InfluxDB at {influx.url} does not answer"):
                await sink.write([point("during")])
        with pytest.raises(Unavailable, match=f"InfluxDB at {influx.url} does not answer"):
            await everything(sink)
    await sink.write([point("during")])
    assert await everything(sink) == [point("before"), point("during")]


async def test_a_server_that_does_not_answer_in_time_is_unavailable(influx: Influx) -> None:
    sink = InfluxRollups(influx.url, influx.token, influx.org, influx.bucket, timeout=timedelta(seconds=2))
    await sink.open()
    influx.hang_next()
    with pytest.raises(Unavailable, match="within 2 s"):
        await sink.write([point()])
    await sink.close()


async def test_of_a_split_write_a_failed_part_is_not_swallowed(influx: Influx, sink: InfluxRollups) -> None:
    # Pitfalls 10 and 36: an error told to a callback, and the points that it was about cleared.
    points = [point(f"s{number:05}") for number in range(10_001)]
    influx.drop_next(forwarded=False, after=1)
    with pytest.raises(Unavailable):
        await sink.write(points)
    assert len(influx.requests) == 2
    await sink.write(points)
    assert influx.rows("SELECT count(files_added) FROM space_storage")[0]["count"] == 10_001


async def test_a_cancelled_write_leaves_a_sink_that_works(influx: Influx, sink: InfluxRollups) -> None:
    influx.hang_next()
    write = asyncio.create_task(sink.write([point()]))
    await asyncio.sleep(0.05)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    await sink.write([point()])
    assert await everything(sink) == [point()]


async def test_no_secret_is_in_any_message(influx: Influx, sink: InfluxRollups) -> None:
    # Pitfall 9. A server that repeats what it was sent is the worst case.
    _, _, password = influx.token.partition(":")
    said: list[EventsinkError] = []
    for status in (400, 401, 403, 404, 429, 500):
        influx.fail_next(status, message=f"token {influx.token},\npassword {password}")
        with pytest.raises((Refused, Unavailable)) as caught:
            await sink.write([point()])
        said.append(caught.value)
    for status in (401, 403, 404, 429, 500):
        influx.fail_next(status, message=f"token {influx.token},\npassword {password}")
        with pytest.raises((SettingsError, Unavailable)) as at_open:
            await sink_on(influx).open()
        said.append(at_open.value)
    assert len(said) == 11
    for error in said:
        assert "token ***, password ***" in str(error)
        assert password not in everything_said(error)
