"""``GET /v1/overview``: the figures of a range, and what becomes of them when stores are away or nobody reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse

from agents import ROLLUPS
from tests.servers.influxdb import Influx
from tests.topology.engine import publish
from tests.web.filling import NOW_S, raw
from tests.web.sampled import NOW_MS, overview, shown
from tests.web.serving import Served, problem, served
from topology.influxdb.sink import InfluxRollups
from topology.position import NOWHERE, position
from topology.sinks import DeadLetter, Point
from topology.state import GroupState
from web.overview import figures, route, snapshots
from web.overview.present import Progress
from web.overview.route import EVENT_STREAM

HOUR = 3600


@pytest.mark.parametrize(("range", "windows"), [("1h", 60), ("24h", 24), ("7d", 168), ("30d", 30)])
async def test_each_range_has_its_window_and_ends_with_the_running_one(
    app: Served, range: str, windows: int
) -> None:
    span = (await overview(app, range))["span"]
    assert (span["until"] - span["since"]) / span["window_s"] == windows
    assert span["until"] - span["window_s"] <= span["now"] / 1000 < span["until"]


async def test_where_no_agent_has_run_there_is_none(app: Served) -> None:
    assert (await overview(app))["agents"] == []


async def test_agents_of_other_processes_are_known_by_what_they_saved(tmp_path: Path) -> None:
    """The log ends at offset 10; one group is at its end, one behind, one has not been heard of for an hour."""
    hour = 3_600_000
    at_end = {"storage": position(0, 9), "traffic": position(0, 9)}

    async def progress() -> Progress:
        groups = {
            "archive": GroupState(
                generation=1, positions={"archive": position(0, 3)}, watermark=NOW_MS - hour
            ),
            "google": GroupState(generation=1, positions={"google": position(0, 9)}, watermark=NOW_MS - hour),
            "new": GroupState(generation=1, positions={"new": NOWHERE}),
            "rollups": GroupState(generation=1, positions=at_end, watermark=NOW_MS - 20_000),
        }
        return Progress(groups, 10)

    async with served(tmp_path, progress=progress, clock=lambda: NOW_MS) as app:
        found = {
            each["agent"]: (each["up"], each["lag_events"], each["lag_seconds"], each["lag_messages"])
            for each in (await overview(app))["agents"]
        }
    assert found == {
        "storage": (True, 0, 0, 0),
        "traffic": (True, 0, 0, 0),
        # Its watermark is an hour old: so is its last sign of life, not what waits.
        "archive": (None, None, None, 6),
        "google": (False, 0, 0, 0),
        "new": (None, None, None, 10),
    }


def space_point(space: str, hours_ago: int, added: int) -> Point:
    fields = {"bytes_added": added, "bytes_removed": 0, "files_added": 1, "files_removed": 0}
    return Point("space_storage", "1h", NOW_S - HOUR * hours_ago, (("space_id", space),), fields)


async def test_what_is_before_the_range_does_not_count(app: Served) -> None:
    await app.stores.rollups.write([space_point("in", 23, 1), space_point("out", 24, 10)])
    assert (await overview(app))["storage"]["totals"]["bytes_added"] == 1
    assert (await overview(app, "7d"))["storage"]["totals"]["bytes_added"] == 11


async def test_what_was_taken_back_is_no_run(app: Served) -> None:
    fields = dict.fromkeys(
        ("submitted", "succeeded", "failed", "skipped", "runtime_s_count", "runtime_s_sum", "runtime_s_max"),
        0,
    )
    await app.stores.rollups.write([Point("extractor_runtime", "1h", NOW_S, (("extractor", "x"),), fields)])
    assert (await overview(app))["extractors"]["extractors"] == []


async def test_of_too_many_services_the_rest_is_counted(app: Served) -> None:
    await app.stores.rollups.write(
        [
            Point(
                "service_uptime",
                "1h",
                NOW_S,
                (("service", f"s{at:02}"), ("region", "eu")),
                {"up_s": 1.0, "down_s": 0.0},
            )
            for at in range(figures.MAX_SERVICES + 3)
        ]
    )
    found = (await overview(app))["uptime"]
    assert (len(found["services"]), found["left_out"]) == (figures.MAX_SERVICES, 3)


async def test_without_rollups_there_are_no_figures(tmp_path: Path) -> None:
    async with served(tmp_path, rollups={}) as app:
        found = await overview(app)
        assert found["away"] == {}
        assert found["uptime"]["services"] == found["storage"]["spaces"] == found["activity"]["actions"] == []


async def test_long_and_nested_members_of_events_are_cut(app: Served) -> None:
    fields: dict[str, Any] = {
        "url": "x" * 5000,
        "nested": {"a": ["y" * 500]},
        **{f"f{at}": at for at in range(50)},
    }
    await app.stores.raw_events.insert([raw(0)._replace(event=json.dumps({"type": "t", **fields}).encode())])
    (event,) = (await overview(app))["events"]
    assert event["type"] == "t"
    assert len(event["url"]) == 160
    assert event["nested"].startswith('{"a":["yyy')
    assert len(event) < 14


async def test_dead_letters_come_without_their_bodies(app: Served) -> None:
    letters = [
        DeadLetter(f"0-{at}-0", position(0, at), NOW_MS, "", "not JSON", "", b"secret", 1, "0" * 64)
        for at in range(8)
    ]
    await app.stores.dead_letters.put(letters)
    dead = (await overview(app))["dead"]
    assert dead["count"] == 8
    assert [letter["id"] for letter in dead["latest"]] == [f"0-{at}-0" for at in range(7, 2, -1)]
    assert "secret" not in json.dumps(dead)


@pytest.mark.servers
async def test_figures_from_influxdb_are_the_same(tmp_path: Path, influx: Influx) -> None:
    keys = {rollup.name: rollup.key for rollup in ROLLUPS.values()}
    sink = InfluxRollups(influx.url, influx.token, influx.org, influx.bucket, keys=keys)
    await sink.open()
    found = []
    for name, chosen in (("embedded", None), ("influxdb", sink)):
        (tmp_path / name).mkdir()
        async with shown(tmp_path / name, sink=chosen) as running:
            await running.send_sample()
            await running.rested()
            found.append(await overview(running.app))
    embedded, influxdb = found
    assert embedded["away"] == influxdb["away"] == {}
    for member in ("uptime", "storage", "extractors", "activity"):
        assert influxdb[member] == embedded[member], member
    await sink.close()


# -- stores that are away --


async def test_a_store_that_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        async def query(self, *args: object, **kwargs: object) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(snapshots, "ANSWER_WITHIN_S", 0.05)
    async with served(tmp_path, raw_events=Silent()) as app:
        found = await overview(app)
        assert found["events"] is None
        assert found["away"]["events"] == "no answer within 0.05 s"
        assert found["ready"] == {"accepting": True, "wrong": {}}


class Counting:
    """A sink that counts how often it is asked for totals."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        self.asked += name == "totals"
        return getattr(self._inner, name)


async def test_many_who_look_at_once_ask_the_store_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shown(tmp_path) as running:
        counting = Counting(running.engine.stores.rollups)
        monkeypatch.setattr(running.rollups, "_inner", counting)
        await asyncio.gather(*(overview(running.app) for _ in range(20)))
        once = counting.asked
        await overview(running.app, "7d")
        assert counting.asked == 2 * once


# -- wrong questions --


@pytest.mark.parametrize("query", ["range=2h", "range=", "window=1h", "range=1h&range=1h", "since=now-1h"])
async def test_a_wrong_parameter_is_named(app: Served, query: str) -> None:
    await problem(await app.get(f"/v1/overview?{query}"), 400)


async def test_reading_needs_a_key_where_others_can_ask(tmp_path: Path) -> None:
    async with served(tmp_path, loopback=False) as app:
        await problem(await app.get("/v1/overview"), 401)
        await problem(await app.get("/v1/overview", accept=EVENT_STREAM), 401)
        await problem(await app.get("/v1/overview", x_api_key=app.secrets["events"]), 403)
        assert (await app.get("/v1/overview", x_api_key=app.secrets["read"])).status == 200


# -- live --


async def told(stream: ClientResponse) -> dict[str, Any]:
    """The next event of a stream."""
    async with asyncio.timeout(60):
        while True:
            line = await stream.content.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: "):
                found: dict[str, Any] = json.loads(line[6:])
                return found


async def live(app: Served) -> ClientResponse:
    response = await app.get("/v1/overview", accept=EVENT_STREAM)
    assert response.status == 200
    assert response.content_type == EVENT_STREAM
    assert response.headers["Cache-Control"] == "no-store"
    return response


async def test_a_stream_tells_everything_and_then_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(snapshots, "LEAST_AGE_S", 0.01)
    async with shown(tmp_path) as running:
        stream = await live(running.app)
        first = await told(stream)
        assert set(first) == set(await overview(running.app))
        assert first["storage"]["spaces"] == []
        upload = {
            "type": "storage.file_uploaded",
            "time": NOW_MS,
            "file_id": "f",
            "space_id": "s",
            "bytes": 7,
        }
        await publish(running.engine.stores, [upload])
        await running.settled()
        news = await told(stream)
        while "storage" not in news:
            news = await told(stream)
        assert news["storage"]["totals"]["bytes_added"] == 7
        assert "uptime" not in news
        stream.close()


async def test_a_mistake_of_ours_ends_a_stream_and_is_logged(
    app: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(route, "LOOK_EVERY_S", 0.01)
    stream = await live(app)
    await told(stream)

    def fails(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(route, "changes", fails)
    async with asyncio.timeout(60):
        assert b"500" not in await stream.content.read()
    assert "a live page of the range 24h came to an end" in caplog.text


async def test_only_a_get_is_a_stream(app: Served) -> None:
    async with asyncio.timeout(60):
        response = await app.client.head("/v1/overview", headers={"Accept": EVENT_STREAM})
    assert response.status == 200
    assert response.content_type == "application/json"


async def test_there_are_no_more_streams_than_a_limit(app: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "MAX_STREAMS", 2)
    monkeypatch.setattr(route, "LOOK_EVERY_S", 0.01)
    streams = [await live(app), await live(app)]
    refused = await app.get("/v1/overview", accept=EVENT_STREAM)
    await problem(refused, 503)
    assert refused.headers["Retry-After"]
    assert (await app.get("/v1/overview")).status == 200
    streams[0].close()  # its place is free as soon as that is noticed
    async with asyncio.timeout(60):
        while (again := await app.get("/v1/overview", accept=EVENT_STREAM)).status == 503:
            await asyncio.sleep(0.01)
    assert again.status == 200


async def test_a_stream_ends_in_time_so_that_a_revoked_key_does_not_read_for_ever(
    app: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "LONGEST_STREAM_S", 0.05)
    monkeypatch.setattr(route, "LOOK_EVERY_S", 0.01)
    stream = await live(app)
    async with asyncio.timeout(60):
        body = await stream.content.read()
    assert body.startswith(b"retry: ")


async def test_a_quiet_stream_says_that_it_is_there(app: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "KEEP_ALIVE_EVERY_S", 0.02)
    monkeypatch.setattr(route, "LOOK_EVERY_S", 0.01)
    stream = await live(app)
    await told(stream)
    async with asyncio.timeout(60):
        while await stream.content.readline() != b": still here\n":
            pass


async def test_open_streams_do_not_hold_up_the_end(tmp_path: Path) -> None:
    streams: Sequence[ClientResponse] = []
    async with asyncio.timeout(60):
        async with served(tmp_path) as app:
            streams = [await live(app) for _ in range(3)]
            began = asyncio.get_running_loop().time()
            await app.client.server.close()
            # Less than what the runner grants to requests that do not end by themselves.
            assert asyncio.get_running_loop().time() - began < 2.5
    assert len(streams) == 3
