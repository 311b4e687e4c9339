"""Pages that are slow, broken, wrong or not to be trusted."""

from __future__ import annotations

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from monitors.healthz import HealthzProbe, HealthzSettings
from monitors.page import PageProbe, PageSettings
from monitors.probe import Measured, Surroundings
from schemas.canonical import canonical
from schemas.events import PageFetched
from schemas.reading import read_value
from tests.monitors.targets import port_without_listener, saying, saying_bytes, serving, speaking
from topology.errors import SettingsError

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it"


async def checked(url: str, environment: dict[str, str] | None = None, **more: object) -> Measured:
    """One check of a page."""
    settings = PageSettings(service="clowder", url=url, **{"timeout": 5.0, **more})  # type: ignore[arg-type] # as TOML
    probe = PageProbe(settings, Surroundings(environment=environment or {}))
    try:
        return await probe.check()
    finally:
        await probe.close()


async def test_a_page_that_is_there_is_measured_in_phases() -> None:
    async with serving(saying("Welcome to Clowder")) as port:
        result = await checked(f"http://localhost:{port}/", text="Welcome")
    phases = result["phases_ms"]
    assert isinstance(phases, dict)
    assert set(phases) == {"resolve", "connect", "first_byte", "transfer"}
    assert all(ms >= 0 for ms in phases.values())
    elapsed = result["elapsed_ms"]
    assert isinstance(elapsed, float)
    assert 0 < sum(phases.values()) <= elapsed + 0.01
    assert {name: result[name] for name in ("type", "up", "status", "bytes")} == {
        "type": "health.page_fetched",
        "up": True,
        "status": 200,
        "bytes": len("Welcome to Clowder"),
    }
    assert "problem" not in result


async def test_phases_that_were_passed_before_it_failed_are_told() -> None:
    result = await checked(f"http://localhost:{port_without_listener()}/")
    phases = result["phases_ms"]
    assert isinstance(phases, dict)
    assert (result["up"], result["problem"], list(phases)) == (False, "Connection refused", ["resolve"])


async def test_why_a_page_is_down_is_in_the_event_that_people_are_shown() -> None:
    # What the archive shows is the canonical form, which has none of the fields that nobody declared.
    result = await checked(f"http://localhost:{port_without_listener()}/")
    event = read_value({"service": "clowder", "region": "eu", **result})
    assert isinstance(event, PageFetched)
    shown = json.loads(canonical(event, time_ms=0))
    assert (shown["up"], shown["problem"]) == (False, "Connection refused")
    assert list(shown["phases_ms"]) == ["resolve"]
    assert list(shown).index("problem") == list(shown).index("up") + 1


async def test_a_slow_first_byte_is_told_from_a_slow_transfer() -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"x")
        # A busy machine may see the first byte some time after it was sent, and so less of this.
        await asyncio.sleep(0.6)
        await answer.write(b"y")
        return answer

    async with serving(slow) as port:
        result = await checked(f"http://127.0.0.1:{port}/")
    phases = result["phases_ms"]
    assert isinstance(phases, dict)
    assert phases["first_byte"] >= 100
    assert phases["transfer"] >= 200
    assert result["up"] is True


@pytest.mark.parametrize(
    ("status", "expected", "problem"),
    [(500, {}, "status 500"), (200, {"status": 204}, "status 200, not 204"), (404, {"status": 404}, None)],
)
async def test_the_status_is_the_expected_one_or_down(
    status: int, expected: dict[str, Any], problem: str | None
) -> None:
    async with serving(saying("x", status=status)) as port:
        result = await checked(f"http://127.0.0.1:{port}/", **expected)
    assert (result["up"], result.get("problem"), result["status"]) == (problem is None, problem, status)


async def test_another_text_is_down() -> None:
    async with serving(saying("It works!")) as port:
        result = await checked(f"http://127.0.0.1:{port}/", text="Clowder")
    assert (result["up"], result["problem"]) == (False, "the expected text is not in it")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (HALF, "the connection was closed within the body"),
        (b"", "the connection was closed before an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what it says is no HTTP"),
    ],
)
async def test_what_is_half_or_no_answer_is_down(data: bytes, problem: str) -> None:
    async with speaking(saying_bytes(data)) as port:
        result = await checked(f"http://127.0.0.1:{port}/")
    assert result["up"] is False
    assert result["problem"] == problem


async def test_a_page_that_trickles_beyond_the_timeout_is_down_with_what_came() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with speaking(trickle) as port:
        result = await checked(f"http://127.0.0.1:{port}/", timeout=1.0)
    assert (result["up"], result["problem"], result["status"]) == (False, "no whole answer within 1 s", 200)
    assert isinstance(result["bytes"], int)
    assert result["bytes"] > 0


async def test_ipv6() -> None:
    async with serving(saying("six"), host="::1") as port:
        result = await checked(f"http://[::1]:{port}/", text="six")
    assert result["up"] is True


# -- TLS --


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(
    authority: trustme.CA, *, ends: datetime | None = None, name: str = "localhost"
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name, not_after=ends).configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return str(file)


async def test_a_private_authority_is_trusted_where_it_is_named(authority: trustme.CA, ca_file: str) -> None:
    ends = datetime.now(UTC) + timedelta(days=10, hours=1)
    async with serving(saying("secret"), tls=server_tls(authority, ends=ends)) as port:
        url = f"https://localhost:{port}/"
        trusted = await checked(url, ca_file=ca_file)
        unknown = await checked(url)
    assert trusted["up"] is True
    assert trusted["certificate_days_left"] == 10
    phases = trusted["phases_ms"]
    assert isinstance(phases, dict)
    assert phases["tls"] > 0
    assert unknown["up"] is False
    assert str(unknown["problem"]).startswith("its certificate is not trusted: ")


async def test_an_expired_certificate_is_down_and_says_since_when(
    authority: trustme.CA, ca_file: str
) -> None:
    ended = datetime.now(UTC) - timedelta(days=3, hours=-1)
    async with serving(saying("old"), tls=server_tls(authority, ends=ended)) as port:
        result = await checked(f"https://localhost:{port}/", ca_file=ca_file)
    assert (result["up"], result["problem"]) == (False, "its certificate has expired")
    assert result["certificate_days_left"] == -3


async def test_a_certificate_of_another_name_is_down(authority: trustme.CA, ca_file: str) -> None:
    async with serving(saying("other"), tls=server_tls(authority, name="other.example")) as port:
        result = await checked(f"https://localhost:{port}/", ca_file=ca_file)
    assert result["up"] is False
    assert "localhost" in str(result["problem"])
    assert "certificate_days_left" not in result


async def test_of_an_expired_certificate_that_nobody_trusts_the_days_are_not_told(
    authority: trustme.CA,
) -> None:
    ended = datetime.now(UTC) - timedelta(days=3)
    async with serving(saying("old"), tls=server_tls(authority, ends=ended)) as port:
        result = await checked(f"https://localhost:{port}/")
    assert result["up"] is False
    assert "certificate_days_left" not in result


async def test_a_server_without_tls_is_said_to_be_one() -> None:
    async with serving(saying("plain")) as port:
        result = await checked(f"https://127.0.0.1:{port}/")
    assert (result["up"], str(result["problem"])[:12]) == (False, "no TLS there")


# -- secrets --


async def test_a_secret_header_is_sent_shown_nowhere_and_not_carried_to_where_a_redirect_leads() -> None:
    seen: list[str] = []

    async def page(request: web.Request) -> web.Response:
        seen.append(request.headers.get("X-Key", ""))
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with serving(page) as port:
        result = await checked(
            f"http://127.0.0.1:{port}/",
            {"CLOWDER_KEY": "hunter2-hunter2"},
            headers_env={"X-Key": "CLOWDER_KEY"},
            status=302,
        )
    assert seen == ["hunter2-hunter2"]
    assert result["up"] is True
    assert "hunter2" not in repr(result)


async def test_a_redirect_is_followed_where_nothing_is_secret() -> None:
    async def page(request: web.Request) -> web.Response:
        if request.path == "/":
            return web.Response(status=302, headers={"Location": "/home"})
        return web.Response(text="home")

    async with serving(page) as port:
        result = await checked(f"http://127.0.0.1:{port}/", text="home")
    assert (result["up"], result["status"]) == (True, 200)


def test_a_secret_that_is_not_there_is_said_before_anything_starts() -> None:
    settings = PageSettings(service="clowder", url="http://127.0.0.1/", headers_env={"X-Key": "CLOWDER_KEY"})
    with pytest.raises(SettingsError, match="CLOWDER_KEY, which is not set"):
        PageProbe(settings, Surroundings())


async def test_a_healthz_probe_tells_of_its_certificate_too(
    authority: trustme.CA, ca_file: str, tmp_path: Path
) -> None:
    ends = datetime.now(UTC) + timedelta(days=3, hours=1)
    async with serving(saying("healthy"), tls=server_tls(authority, ends=ends)) as port:
        settings = HealthzSettings(
            service="clowder", url=f"https://localhost:{port}/healthz", ca_file=ca_file
        )
        result = await HealthzProbe(settings, Surroundings()).check()
    assert (result["up"], result["certificate_days_left"]) == (True, 3)
