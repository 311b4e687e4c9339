"""Requests and clients of a real NGINX, whose log a real logrotate rotates under load: the counts add up."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitors.connections import ConnectionsProbe, ConnectionsSettings
from monitors.probe import Read, Surroundings, Unknown
from schemas.canonical import canonical
from schemas.events import ConnectionsCounted
from schemas.reading import read_value
from tests.monitors.targets import Keeping
from tests.servers.nginx import Client, Nginx
from topology.errors import SettingsError

pytestmark = pytest.mark.servers

#: Every wait of this file.
LIMIT_S = 30.0


class Counting:
    """A probe, and the sum of what it found."""

    def __init__(self, log: Path, **settings: Any) -> None:
        self._settings = ConnectionsSettings(service="clowder", access_log=str(log), **settings)
        self.keeping = Keeping()
        self._surroundings = Surroundings(progress=self.keeping.progress)
        self._probe = ConnectionsProbe(self._settings, self._surroundings)
        self.requests = 0
        self.unreadable = 0
        self.seconds = 0.0

    async def begin(self) -> None:
        assert isinstance(self.keeping.keep(await self._probe.check()), Unknown)

    async def check(self) -> dict[str, Any]:
        found = self.keeping.keep(await self._probe.check())
        assert not isinstance(found, Unknown), found
        event: dict[str, Any] = dict(found)
        self.requests += event["requests"]
        self.unreadable += event.get("unreadable", 0)
        self.seconds += event["period_s"]
        return event

    async def looks(self) -> None:
        """A check of which nothing is kept."""
        await self._probe.check()

    async def restart(self) -> None:
        await self._probe.close()
        self._probe = ConnectionsProbe(self._settings, self._surroundings)

    async def comes_to(self, requests: int) -> None:
        """NGINX writes the line of a request after its answer."""
        async with asyncio.timeout(LIMIT_S):
            while self.requests < requests:
                await self.check()
                await asyncio.sleep(0.01)
        await self.check()
        assert self.requests == requests

    async def close(self) -> None:
        await self._probe.close()


@pytest.fixture
async def counting(nginx: Nginx, tmp_path: Path) -> AsyncIterator[Counting]:
    """A probe that counts what NGINX answers from now on."""
    nginx.start()
    made = Counting(nginx.log)
    await made.begin()
    yield made
    await made.close()


class Load:
    """Clients that ask as fast as they are answered, each in a thread."""

    def __init__(self) -> None:
        self.answered = 0
        self.ending = threading.Event()
        self.failed: BaseException | None = None
        self._counting = threading.Lock()

    def ask(self, port: int, address: str) -> None:
        try:
            client = Client(port, address)
            while not self.ending.is_set():
                client.ask()
                with self._counting:
                    self.answered += 1
            client.close()
        except BaseException as error:
            self.failed = error
            raise

    async def answers(self, more: int) -> None:
        """Until so many more requests were answered."""
        enough = self.answered + more
        async with asyncio.timeout(LIMIT_S):
            while self.answered < enough:
                assert self.failed is None
                await asyncio.sleep(0.001)


@contextmanager
def load(port: int, clients: int) -> Iterator[Load]:
    """While it is open, ``clients`` ask. Behind it, all that were answered are counted."""
    made = Load()
    threads = [
        threading.Thread(target=made.ask, args=(port, f"127.0.0.{number}"))
        for number in range(1, clients + 1)
    ]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.ending.set()
        for thread in threads:
            thread.join()
    assert made.failed is None


@pytest.mark.parametrize(
    "directives",
    [
        pytest.param(("nocompress",), id="kept"),
        pytest.param(("compress", "delaycompress"), id="as Debian does"),
        pytest.param(("compress",), id="compressed at once"),
    ],
)
async def test_under_load_every_request_counts_once_through_renames(
    nginx: Nginx, counting: Counting, directives: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with load(nginx.port, clients=4) as running:
        for _ in range(5):
            await running.answers(50)
            await counting.check()
            await asyncio.to_thread(nginx.rotate_by_rename, *directives)
            await running.answers(50)
            await counting.check()
    await counting.comes_to(running.answered)
    assert counting.unreadable == 0
    assert "missing" not in caplog.text


async def test_a_monitor_that_restarts_between_renames_counts_every_request_once(
    nginx: Nginx, counting: Counting
) -> None:
    with load(nginx.port, clients=2) as running:
        for _ in range(4):
            await running.answers(50)
            await counting.restart()
            await asyncio.to_thread(nginx.rotate_by_rename, "nocompress")
            await running.answers(50)
            await counting.check()
    await counting.comes_to(running.answered)


async def test_through_copytruncate_every_line_that_is_left_counts_once(
    nginx: Nginx, counting: Counting
) -> None:
    # What NGINX writes between the copy and the truncation is in no file any more: nobody can count that.
    with load(nginx.port, clients=4) as running:
        for turn in range(6):
            await running.answers(50)
            await counting.check()
            await asyncio.to_thread(nginx.rotate_by_copytruncate, "nocompress")
            await running.answers(50)
            if turn % 2:
                await counting.restart()
            await counting.check()
    async with asyncio.timeout(LIMIT_S):
        while counting.requests != await asyncio.to_thread(nginx.lines):
            await counting.check()
            await asyncio.sleep(0.01)
    assert counting.unreadable <= 6  # the halves of lines at which a copy ended
    assert counting.requests <= running.answered


async def test_clients_are_told_apart_and_stand_in_no_event_and_no_message(
    nginx: Nginx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    nginx.start()
    counting = Counting(nginx.log, count="clients", status_url=f"{nginx.url}/status")
    await counting.begin()
    for number in (71, 72, 73, 71):
        client = Client(nginx.port, f"127.0.0.{number}")
        client.ask(f"/files/{number}")
        client.ask("/")
        client.close()
    with nginx.log.open("ab") as file:
        file.write(b"127.0.0.74 is no line of the format\n")
    async with asyncio.timeout(LIMIT_S):
        while nginx.lines() < 9:
            await asyncio.sleep(0.01)
    event = await counting.check()
    assert event["connections"] == event["clients"] == 3
    assert (event["requests"], event["unreadable"]) == (8, 1)
    assert event["active"] >= 1
    assert event["period_s"] > 0
    assert "127.0.0.7" not in str(event) + caplog.text
    assert "1 line of" in caplog.text
    (kept,) = counting.keeping.kept.values()
    assert b"127.0.0.7" not in kept
    msgspec.convert({**event, "service": "clowder", "time": 0}, ConnectionsCounted)
    await counting.close()


async def test_a_log_format_of_ones_own_is_read_as_the_server_writes_it(nginx: Nginx, tmp_path: Path) -> None:
    directive = (
        """log_format own escape=json '{"at":"$time_iso8601","for":"$http_x_forwarded_for",'"""
        """ '"ask":"$request","agent":"$http_user_agent","took":$request_time}';"""
    )
    nginx.start(directive)
    counting = Counting(nginx.log, format=directive, client="$http_x_forwarded_for")
    await counting.begin()
    client = Client(nginx.port)
    for number, agent in enumerate((r'"\" }', "a\\", '","took":0.001}', "ü\x7f\t", ""), start=1):
        client.ask(
            f"/{number}?{agent.strip().replace(' ', '')[:1]}",
            f"User-Agent: {agent}",
            "X-Forwarded-For: 192.0.2.1, 10.0.0.1",
        )
    client.ask("/", "X-Forwarded-For: 192.0.2.2")
    client.ask("/")
    client.close()
    await counting.comes_to(7)
    assert counting.unreadable == 0
    await counting.close()


async def test_open_connections_are_counted_without_a_log(nginx: Nginx, tmp_path: Path) -> None:
    nginx.start()
    settings = ConnectionsSettings(service="clowder", status_url=f"{nginx.url}/status")
    probe = ConnectionsProbe(settings, Surroundings())
    held = [Client(nginx.port) for _ in range(5)]
    for client in held:
        client.ask()
    event = await probe.check()
    assert isinstance(event, dict)
    # The probe's own, too, and perhaps one of a probe of the server's start.
    assert 6 <= int(str(event["connections"])) <= 8
    assert "period_s" not in event
    for client in held:
        client.close()
    nginx.end()
    assert isinstance(await probe.check(), Unknown)
    await probe.close()


async def test_a_status_page_that_is_away_does_not_stop_the_count(
    nginx: Nginx, tmp_path: Path, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    nginx.start()
    counting = Counting(nginx.log, status_url=f"http://127.0.0.1:{free_port()}/status")
    await counting.begin()
    client = Client(nginx.port)
    client.ask()
    client.close()
    assert "active" not in await counting.check()
    await counting.comes_to(1)
    assert "the log is counted without it" in caplog.text
    await counting.close()


async def test_after_a_restart_the_period_reaches_back_to_the_last_check(
    nginx: Nginx, counting: Counting
) -> None:
    await counting.check()
    await counting.restart()
    event = await counting.check()
    assert 0 <= event["period_s"] < LIMIT_S


async def test_a_check_that_is_cancelled_loses_no_request(nginx: Nginx, counting: Counting) -> None:
    client = Client(nginx.port)
    for _ in range(3):
        client.ask()
        check = asyncio.ensure_future(counting.check())
        await asyncio.sleep(0)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
    client.close()
    await counting.comes_to(3)


async def test_checks_that_are_cancelled_leave_one_look_at_the_log_at_a_time(tmp_path: Path) -> None:
    # The second is cancelled while it waits for the look of the first, which a disk holds up.
    log = tmp_path / "access.log"
    log.touch()
    here, goes_on = threading.get_ident(), threading.Event()

    def monotonic() -> float:
        assert threading.get_ident() == here or goes_on.wait(LIMIT_S)
        return 0.0

    settings = ConnectionsSettings(service="clowder", access_log=str(log))
    probe = ConnectionsProbe(settings, Surroundings(monotonic=monotonic))
    before = set(threading.enumerate())
    for _ in range(3):
        check = asyncio.ensure_future(probe.check())
        await asyncio.sleep(0)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        assert len(set(threading.enumerate()) - before) == 1
    goes_on.set()
    assert isinstance(await probe.check(), Read)
    await probe.close()


async def test_what_was_not_kept_is_counted_by_the_next_check(nginx: Nginx, counting: Counting) -> None:
    client = Client(nginx.port)
    for _ in range(3):
        client.ask()
        await counting.looks()  # and the disk takes nothing, or the process is killed
    client.close()
    await counting.comes_to(3)


@pytest.mark.parametrize(("count", "connections"), [("requests", 6), ("clients", 2)])
async def test_after_a_pause_the_period_is_an_interval_on_average(
    count: str, connections: int, tmp_path: Path
) -> None:
    # Ten intervals of a minute in one period, and sixty requests of two clients: six in an interval. Two clients
    # stay two: nobody knows in which intervals they came.
    log = tmp_path / "access.log"
    log.touch()
    keeping, now = Keeping(), 0.0
    probe = ConnectionsProbe(
        msgspec.convert(
            {"kind": "connections", "service": "c", "access_log": str(log), "count": count},
            ConnectionsSettings,
        ),
        Surroundings(progress=keeping.progress, monotonic=lambda: now),
    )
    keeping.keep(await probe.check())
    line = '127.0.0.{} - - [24/Nov/2026:23:20:01 +0000] "GET / HTTP/1.1" 200 3 "-" "-"\n'
    log.write_text("".join(line.format(number % 2) for number in range(60)))
    now = 600.0
    event = keeping.keep(await probe.check())
    assert isinstance(event, dict)
    assert event["connections"] == connections
    assert (event["requests"], event["clients"], event["period_s"]) == (60, 2, 600.0)
    # What the archive shows is the canonical form: nobody could tell how many there were from an average.
    kept = read_value({"service": "c", "region": "eu", **event})
    assert isinstance(kept, ConnectionsCounted)
    shown = json.loads(canonical(kept, time_ms=0))
    assert (shown["requests"], shown["clients"], shown["period_s"]) == (60, 2, 600.0)
    await probe.close()


async def test_a_log_that_is_a_pipe_is_unknown_at_once(tmp_path: Path) -> None:
    # The log of NGINX's image is a link to its standard output.
    os.mkfifo(tmp_path / "access.log")
    settings = ConnectionsSettings(service="clowder", access_log=str(tmp_path / "access.log"))
    probe = ConnectionsProbe(settings, Surroundings())
    found = await probe.check()
    assert isinstance(found, Unknown)
    assert "no regular file" in found.reason
    await probe.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "needs access_log, status_url, or both"),
        ({"status_url": "http://127.0.0.1/status", "count": "clients"}, "needs access_log"),
        ({"status_url": "ftp://127.0.0.1/status"}, "must be http"),
    ],
)
def test_settings_that_count_nothing_are_refused(settings: dict[str, Any], says: str) -> None:
    wrong = list(ConnectionsSettings(service="clowder", **settings).contradictions())
    assert any(says in each.what for each in wrong)


def test_a_client_that_the_format_does_not_tell_is_refused(tmp_path: Path) -> None:
    settings = ConnectionsSettings(service="clowder", access_log="access.log", client="$http_x_real_ip")
    with pytest.raises(SettingsError, match="http_x_real_ip"):
        ConnectionsProbe(settings, Surroundings())


async def test_a_log_that_cannot_be_read_is_unknown_and_says_why(tmp_path: Path) -> None:
    settings = ConnectionsSettings(service="clowder", access_log=str(tmp_path / "none.log"))
    probe = ConnectionsProbe(settings, Surroundings())
    found = await probe.check()
    assert isinstance(found, Unknown)
    assert "No such file" in found.reason
    await probe.close()
