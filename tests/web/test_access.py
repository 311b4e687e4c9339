"""Who is let in, how often, and what is counted of those who are not."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.web.serving import NOW_MS, PING, UPLOAD, Served, problem, served
from web.keys import Keys
from web.limits import Limits, Rate

WRONG = "es_" + "0" * 38
LOCAL = ipaddress.ip_network("127.0.0.0/8")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def limited(
    folder: Path, clock: Clock, *, proxies: bool = False, loopback: bool = True
) -> AsyncIterator[Served]:
    """Three requests a key and two failures an address at once; one more a second of each."""
    limits = Limits(
        key_rate=Rate(per_s=1, burst=3),
        failed_attempts_rate=Rate(per_s=1, burst=2),
        trusted_proxies=[LOCAL] if proxies else [],
        monotonic=clock,
    )
    async with served(folder, limits=limits, loopback=loopback) as app:
        yield app


def refused(app: Served, reason: str) -> float:
    return app.registry.get_sample_value("eventsink_ingest_refused_keys_total", {"reason": reason}) or 0.0


# -- the rate of a key --


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock) as app:
        assert [(await app.post(UPLOAD)).status for _ in range(3)] == [202, 202, 202]
        response = await app.post(UPLOAD)
        await problem(response, 429)
        assert response.headers["Retry-After"] == "1"
        assert len(await app.published()) == 3
        assert app.counted(429) == 1
        # Another key is not held up, and a second later neither is this one.
        assert (await app.post(PING, key="health")).status == 202
        clock.now += 1
        assert (await app.post(UPLOAD)).status == 202


async def test_reading_with_a_key_has_the_same_rate(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock, loopback=False) as app:
        key = {"x_api_key": app.secrets["read"]}
        assert [(await app.get("/v1/rollups", **key)).status for _ in range(4)] == [200, 200, 200, 429]


async def test_a_body_that_is_asked_for_first_is_one_request(tmp_path: Path, clock: Clock) -> None:
    """Expect: 100-continue looks at the key before the body comes; that is not a second request."""
    async with limited(tmp_path, clock) as app:
        for _ in range(3):
            reader, writer = await asyncio.open_connection(app.client.host, app.client.port)
            writer.write(
                f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAPI-KEY: {app.secrets['events']}\r\n"
                f"Content-Length: {len(UPLOAD)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n".encode()
            )
            assert b" 100 " in await reader.readline()
            writer.write(UPLOAD)
            assert b" 202 " in (await reader.read()).split(b"\r\n", 2)[1]
            writer.close()
            await writer.wait_closed()


# -- failed attempts --


async def test_failed_attempts_of_an_address_are_limited(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock) as app:
        assert [(await app.post(UPLOAD, key=WRONG)).status for _ in range(2)] == [401, 401]
        response = await app.post(UPLOAD, key=WRONG)
        await problem(response, 429)
        assert response.headers["Retry-After"] == "1"
        await problem(await app.post(UPLOAD, key=None), 429)
        clock.now += 1
        await problem(await app.post(UPLOAD, key=WRONG), 401)


async def test_a_good_key_is_let_in_however_many_failed_at_its_address(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock) as app:
        for _ in range(10):
            await app.post(UPLOAD, key=WRONG)
        assert (await app.post(UPLOAD)).status == 202


async def test_who_is_told_to_wait_cannot_fill_the_log(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "web.access")
    async with limited(tmp_path, clock) as app:
        for _ in range(10):
            await app.post(UPLOAD, key=WRONG)
        assert refused(app, "limited") == 8
    assert [record.getMessage() for record in caplog.records if record.name.startswith("web.access")] == [
        "POST /v1/events 401"  # the first; the second came to the same
    ]


async def test_refused_keys_are_counted_by_reason(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock) as app:
        keys = Keys(tmp_path / "keys.json")
        expired = keys.create("short", ["events"], NOW_MS, now=NOW_MS - 1)
        unknown = keys.create("gone", ["events"], None, now=NOW_MS)
        keys.revoke("gone")
        for key in (None, WRONG, unknown, expired):
            await problem(await app.post(UPLOAD, key=key), 401)
            clock.now += 10
        await problem(await app.post(UPLOAD, key="read"), 403)
        reasons = ("missing", "malformed", "unknown", "expired", "scope", "limited")
        assert [refused(app, reason) for reason in reasons] == [1, 1, 1, 1, 1, 0]
        for _ in range(5):
            await app.post(UPLOAD, key=WRONG)
        assert refused(app, "malformed") == 3
        assert refused(app, "limited") == 3


async def test_nobody_is_another_address_by_saying_so(tmp_path: Path, clock: Clock) -> None:
    async with limited(tmp_path, clock) as app:
        statuses = [
            (await app.post(UPLOAD, key=WRONG, x_forwarded_for=f"203.0.113.{number}")).status
            for number in range(4)
        ]
        assert statuses == [401, 401, 429, 429]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("203.0.113.1", "203.0.113.2", False),
        ("203.0.113.1", "::ffff:203.0.113.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        # Whatever a client wrote there itself stands left of what our proxy heard.
        ("203.0.113.1", "198.51.100.7, 203.0.113.1", True),
        ("203.0.113.1", "203.0.113.1, 198.51.100.7", False),
        ("203.0.113.1", "203.0.113.1, 127.0.0.9", True),
        ("203.0.113.1", "x, " * 500 + "203.0.113.1", True),
        # What is no address is nobody's: the proxy itself is counted.
        ("unknown", "", True),
        ("unknown, 127.0.0.5", "127.0.0.5", True),
    ],
)
async def test_behind_a_trusted_proxy_clients_are_told_apart(
    tmp_path: Path, clock: Clock, first: str, second: str, same: bool
) -> None:
    async with limited(tmp_path, clock, proxies=True) as app:
        for _ in range(2):
            await problem(await app.post(UPLOAD, key=WRONG, x_forwarded_for=first), 401)
        await problem(await app.post(UPLOAD, key=WRONG, x_forwarded_for=second), 429 if same else 401)


async def test_what_a_trusted_proxy_passes_on_needs_a_key_to_read(tmp_path: Path, clock: Clock) -> None:
    """A proxy on this machine that says nothing of whom it asks for looks like somebody on this machine."""
    async with limited(tmp_path, clock) as app:
        assert (await app.get("/v1/rollups")).status == 200
        elsewhere = await problem(await app.get("/v1/rollups", host="events.example.org"), 401)
        assert "by the name localhost" in elsewhere["detail"]
    behind = tmp_path / "behind"
    behind.mkdir()
    async with limited(behind, clock, proxies=True) as app:
        # No other name and no other way would help.
        assert "localhost" not in (await problem(await app.get("/v1/rollups"), 401))["detail"]
        assert (await app.get("/v1/rollups", x_api_key=app.secrets["read"])).status == 200


@pytest.mark.parametrize("path", ["/", "/v1/rollups", "/v1/events", "/v1/overview"])
async def test_a_wrong_key_is_refused_where_none_is_needed_too(app: Served, path: str) -> None:
    assert (await app.get(path)).status == 200
    # A variable that was not set is no key at all.
    assert (await app.get(path, authorization="Bearer ")).status == 200
    # One that may not read, may what nobody needs a key for.
    assert (await app.get(path, x_api_key=app.secrets["health"])).status == 200
    app.keys.revoke("read")
    for wrong in ("es_typed", WRONG, app.secrets["read"]):
        response = await app.get(path, authorization=f"Bearer {wrong}")
        await problem(response, 401)
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    await problem(await app.get(path, api_key=WRONG), 401)


@pytest.mark.parametrize(("path", "needed"), [("/v1/events", "events or health"), ("/service", "health")])
async def test_who_lacks_a_scope_is_told_which_one_this_needs(app: Served, path: str, needed: str) -> None:
    answer = await problem(await app.post(PING, key="read", path=path), 403)
    assert f"has the scope read, this needs {needed}: " in answer["detail"]


async def test_the_last_use_of_a_key_is_kept_apart_from_the_keys(tmp_path: Path) -> None:
    async with served(tmp_path) as app:
        file = Keys(tmp_path / "keys.json")
        before = file.path.stat()
        assert (await app.post(UPLOAD)).status == 202
        await problem(await app.post(UPLOAD, key="read"), 403)
        assert file.last_used.read() == {}
        app.keys.last_used.write({key.sha256 for key in file.list()})
        (sending,) = [key for key in file.list() if key.name == "events"]
        assert file.last_used.read() == {sending.sha256: NOW_MS}
        assert file.path.stat() == before


async def test_the_log_names_the_client_and_not_the_proxy(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with limited(tmp_path, clock, proxies=True) as app:
        await app.get("/healthz/", x_forwarded_for="198.51.100.9, 203.0.113.7")
        await app.get("/healthz/")
    found = [record.__dict__["remote"] for record in caplog.records if record.name.startswith("web.access")]
    assert found == ["203.0.113.7", "127.0.0.1"]
