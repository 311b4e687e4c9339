"""``GET /v1/rollups…`` and ``GET /v1/events``."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agents import ROLLUPS
from tests.web.filling import point, raw
from tests.web.serving import NOW_MS, Served, problem, served
from topology.errors import Unavailable
from topology.sinks import Point
from web import queries
from web import rows as rows_of_rollups


async def rows(app: Served, query: str = "") -> Any:
    response = await app.get(f"/v1/rollups/space_storage{query}")
    assert response.status == 200, await response.text()
    return (await response.json())["rows"]


async def test_the_rollups_are_listed(app: Served) -> None:
    document = await (await app.get("/v1/rollups")).json()
    assert [each["name"] for each in document["rollups"]] == list(ROLLUPS)


async def test_rows_come_as_the_contract_says(app: Served) -> None:
    await app.stores.rollups.write([point(1, bytes_added=8), point(0, bytes_added=7)])
    response = await app.get("/v1/rollups/space_storage?window=1m")
    assert response.content_type == "application/json"
    assert await response.json() == {
        "rollup": "space_storage",
        "window": "1m",
        "rows": [
            {"time": "2026-11-23T21:00:00Z", "space_id": "s1", "bytes_added": 7},
            {"time": "2026-11-23T21:01:00Z", "space_id": "s1", "bytes_added": 8},
        ],
    }


async def test_a_row_counts_when_its_window_starts_in_the_range(app: Served) -> None:
    await app.stores.rollups.write([point(minute, bytes_added=minute) for minute in range(4)])
    # 21:00   :01   :02   :03
    # [0----) [1---) [2---) [3---)
    #         [since       until)
    query = "?since=2026-11-23T21:01:00Z&until=2026-11-23T21:03:00Z"
    assert [row["bytes_added"] for row in await rows(app, query)] == [1, 2]
    # A millisecond later the window that started before is out, and the one at the end is in.
    query = "?since=2026-11-23T21:01:00.001Z&until=2026-11-23T21:03:00.001Z"
    assert [row["bytes_added"] for row in await rows(app, query)] == [2, 3]


async def test_times_may_be_relative_to_now(app: Served) -> None:
    await app.stores.rollups.write([point(-90, bytes_added=1), point(-30, bytes_added=2)])
    assert [row["bytes_added"] for row in await rows(app, "?since=now-1h&until=now")] == [2]
    assert await rows(app, "?since=2026-11-23&until=2026-11-24") == await rows(app)
    answer = await problem(await app.get("/v1/events?since=2026-11-24T00:00:00+01:00"), 400)
    assert "%2B" in answer["detail"]


@pytest.mark.parametrize("path", ["/v1/rollups/space_storage", "/v1/events"])
async def test_a_range_that_ends_before_it_begins_is_400(app: Served, path: str) -> None:
    answer = await problem(await app.get(f"{path}?since=now&until=now-1h"), 400)
    assert answer["detail"].startswith("until: 2026-11-23T20:00:00Z lies before since, 2026-11-23T21:00:00Z")
    assert (await app.get(f"{path}?since=now&until=now")).status == 200


async def test_a_key_tag_narrows_the_rows(app: Served) -> None:
    await app.stores.rollups.write([point(0, "a", bytes_added=1), point(0, "b&c", bytes_added=2)])
    assert [row["space_id"] for row in await rows(app, "?space_id=b%26c")] == ["b&c"]
    assert await rows(app, "?space_id=none") == []


async def test_the_window_is_the_minute_unless_said(app: Served) -> None:
    await app.stores.rollups.write([point(0, bytes_added=1)])
    assert await rows(app) == await rows(app, "?window=1m")
    assert await rows(app, "?window=1h") == []


async def test_rows_come_as_csv(app: Served) -> None:
    await app.stores.rollups.write([point(0, "a,b", bytes_added=1)])
    response = await app.get("/v1/rollups/space_storage?format=csv")
    assert response.content_type == "text/csv"
    (row,) = csv.DictReader(io.StringIO(await response.text()))
    assert (row["space_id"], row["bytes_added"], row["bytes_removed"]) == ("a,b", "1", "")


@pytest.mark.parametrize(
    "query",
    [
        "window=2m",
        "window=",
        "since=yesterday",
        "since=",
        "since=2026-11",
        "until=now%2B1h",
        "since=now-99999999999999d",
        "since=now-" + "9" * 5000 + "d",
        "format=xml",
        "space=s1",
        "region=eu",
        "cursor=x",
        "window=1m&window=1h",
        "key=es_secret",
    ],
)
async def test_an_unknown_parameter_window_or_time_is_400(app: Served, query: str) -> None:
    await problem(await app.get(f"/v1/rollups/space_storage?{query}"), 400)


async def test_an_unknown_rollup_is_404_that_names_the_known(app: Served) -> None:
    answer = await problem(await app.get("/v1/rollups/no_such"), 404)
    assert "space_storage" in answer["detail"]
    await problem(await app.get("/v1/rollups?window=1m"), 400)


async def test_more_rows_than_an_answer_holds_are_refused_not_cut(
    app: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_of_rollups, "MAX_ROWS", 2)
    await app.stores.rollups.write([point(minute, bytes_added=1) for minute in range(2)])
    assert len(await rows(app)) == 2
    await app.stores.rollups.write([point(9, bytes_added=1)])
    await problem(await app.get("/v1/rollups/space_storage"), 400)


async def test_an_answer_of_many_megabytes_arrives(app: Served) -> None:
    await app.stores.rollups.write([point(minute, bytes_added=1) for minute in range(20_000)])
    assert len(await rows(app)) == 20_000


# -- events --


async def test_events_come_newest_first_by_time_then_position(app: Served) -> None:
    await app.stores.raw_events.insert([raw(0), raw(1), raw(2, at_ms=NOW_MS - 1), raw(3, at_ms=NOW_MS + 1)])
    document = await (await app.get("/v1/events")).json()
    assert [event["position"] for event in document["events"]] == ["0/3/0", "0/1/0", "0/0/0", "0/2/0"]
    assert document["cursor"] is None
    assert document["events"][0]["received"] == "2026-11-23T21:00:00.003Z"


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 11])
async def test_following_the_cursor_shows_each_event_once(app: Served, limit: int) -> None:
    # Ten events, of which five share one instant: time alone does not tell where a page ended.
    await app.stores.raw_events.insert([raw(at, at_ms=NOW_MS + at // 5) for at in range(10)])
    seen: list[str] = []
    address = f"/v1/events?limit={limit}"
    while True:
        document = await (await app.get(address)).json()
        assert len(document["events"]) <= limit
        seen += [event["position"] for event in document["events"]]
        if document["cursor"] is None:
            break
        assert document["events"]
        address = f"/v1/events?limit={limit}&cursor={document['cursor']}"
    assert seen == [f"0/{at}/0" for at in reversed(range(10))]


async def test_types_may_be_given_by_pattern_and_more_than_once(app: Served) -> None:
    ping: dict[str, Any] = {"service": "clowder", "region": "eu", "up": True}
    await app.stores.raw_events.insert(
        [
            raw(0),
            raw(1, type="activity.logged_in"),
            raw(2, type="health.pinged", **ping),
            raw(3, type="health.page_fetched", **ping),
        ]
    )

    async def positions(query: str) -> list[str]:
        document = await (await app.get(f"/v1/events?{query}")).json()
        return [event["position"] for event in document["events"]]

    assert await positions("type=health.*") == ["0/3/0", "0/2/0"]
    assert await positions("type=*.p*ed&limit=3") == ["0/3/0", "0/2/0", "0/0/0"]
    assert await positions("type=activity.logged_in&type=health.pinged") == ["0/2/0", "0/1/0"]
    for wrong, hint in (("health.ping", "health.pinged?"), ("nothing.*", "storage.*"), ("", "health.*")):
        answer = await problem(await app.get(f"/v1/events?type={wrong}"), 400)
        assert hint in answer["detail"]


async def test_events_are_narrowed_by_type_and_time(app: Served) -> None:
    await app.stores.raw_events.insert(
        [
            raw(0),
            raw(1, type="activity.logged_in"),
            raw(2, type="activity.logged_in", at_ms=NOW_MS - 3_600_000),
        ]
    )
    document = await (await app.get("/v1/events?type=activity.logged_in&since=now-1h&until=now")).json()
    assert [event["position"] for event in document["events"]] == ["0/2/0"]
    document = await (await app.get("/v1/events?type=activity.logged_in&since=now-1m")).json()
    assert [event["position"] for event in document["events"]] == ["0/1/0"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=1.5",
        "limit=²",
        "limit=",
        "cursor=",
        "cursor=x",
        "cursor=%00",
        "cursor=" + base64.urlsafe_b64encode(b"1.99999999999999999999").decode().rstrip("="),
        "cursor=" + base64.urlsafe_b64encode(b"1").decode().rstrip("="),
        "since=x",
        "format=csv",
        "window=1m",
    ],
)
async def test_a_wrong_parameter_of_events_is_400(app: Served, query: str) -> None:
    await problem(await app.get(f"/v1/events?{query}"), 400)


# -- who may read --


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[Served]:
    """Bound to an address that others reach."""
    async with served(tmp_path, loopback=False) as running:
        yield running


READ = ["/v1/rollups", "/v1/rollups/space_storage", "/v1/events", "/"]


@pytest.mark.parametrize("path", READ)
async def test_reading_needs_a_key_beyond_loopback(outside: Served, path: str) -> None:
    response = await outside.get(path)
    await problem(response, 401)
    assert "Bearer" in response.headers["WWW-Authenticate"]
    await problem(await outside.get(path, x_api_key="es_" + "0" * 38), 401)
    await problem(await outside.get(path, x_api_key=outside.secrets["events"]), 403)
    assert (await outside.get(path, x_api_key=outside.secrets["read"])).status == 200
    assert (await outside.get(path, authorization=f"bearer {outside.secrets['read']}")).status == 200


@pytest.mark.parametrize("path", READ)
async def test_a_person_with_a_browser_gives_the_key_as_password(outside: Served, path: str) -> None:
    assert "Basic" in (await outside.get(path)).headers["WWW-Authenticate"]
    for pair in (f"anybody:{outside.secrets['read']}", f"{outside.secrets['read']}:"):
        basic = "Basic " + base64.b64encode(pair.encode()).decode()
        assert (await outside.get(path, authorization=basic)).status == 200
    for wrong in ("Basic", "Basic !", "Basic /w==", "Basic bm86bm8="):
        await problem(await outside.get(path, authorization=wrong), 401)


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize(
    "host", ["localhost:80", "127.0.0.1", "127.1.2.3:8080", "[::1]:8080", "a.localhost", "LOCALHOST."]
)
async def test_reading_on_loopback_needs_no_key(app: Served, path: str, host: str) -> None:
    assert (await app.get(path, host=host)).status == 200


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "localhost.evil.example:8080"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "[::1].evil.example"},
        {"host": "10.0.0.1"},
        {"x_forwarded_for": "10.0.0.1"},
        {"forwarded": "for=10.0.0.1"},
    ],
)  # fmt: skip
async def test_another_name_or_a_proxy_is_not_loopback(
    app: Served, path: str, headers: dict[str, str]
) -> None:
    """A page elsewhere may have its own name resolve to us (DNS rebinding)."""
    await problem(await app.get(path, **headers), 401)
    assert (await app.get(path, x_api_key=app.secrets["read"], **headers)).status == 200


# -- stores that are away --


class Away:
    """A store that does not answer."""

    async def query(self, *args: object, **kwargs: object) -> None:
        raise Unavailable("the store does not answer: look whether it runs")


async def test_a_store_that_is_away_is_503_with_retry_after(tmp_path: Path) -> None:
    async with served(tmp_path, rollup_sink=Away(), raw_events=Away()) as app:
        for path in ("/v1/rollups/space_storage", "/v1/events"):
            response = await app.get(path)
            await problem(response, 503)
            assert response.headers["Retry-After"]


class Slow:
    """A sink that answers when it is let."""

    name = "rollups"

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.asked = 0

    async def query(self, *args: object, **named: object) -> Sequence[Point]:
        self.asked += 1
        await self.let.wait()
        return []


async def test_so_many_queries_are_answered_at_once_and_who_waits_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rows of one may take a hundred megabytes.
    monkeypatch.setattr(queries, "TURN_WITHIN_S", 0.01)
    sink = Slow()
    async with served(tmp_path, rollup_sink=sink) as app:
        path = "/v1/rollups/space_storage"
        asking = [asyncio.create_task(app.get(path)) for _ in range(queries.ANSWERS_AT_ONCE)]
        while sink.asked < queries.ANSWERS_AT_ONCE:
            await asyncio.sleep(0)
        turned_away = await app.get(path)
        await problem(turned_away, 503)
        assert int(turned_away.headers["Retry-After"]) >= 1
        assert sink.asked == queries.ANSWERS_AT_ONCE
        assert (await app.get("/v1/rollups")).status == 200
        sink.let.set()
        assert {(await each).status for each in asking} == {200}
        assert (await app.get(path)).status == 200
