"""Laws of every probe. A new kind is one more case."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from monitors.port import said
from monitors.probe import Measured, Surroundings, Unknown
from monitors.probes import AnyProbeSettings, build
from schemas.events import Event
from schemas.reading import read
from tests.monitors.targets import Keeping, port_without_listener, saying, serving, silence, speaking

#: The machine may be busy.
SLACK_S = 20.0
TIMEOUT_S = 0.3


@dataclass(frozen=True)
class Case:
    """``well``: a target and the settings of a probe that measures it; ``away``: settings of one whose target is not
    there; ``silent``: the port of a server that accepts and says nothing, to settings, or None where there is no such
    thing."""

    well: Callable[[Path], AbstractAsyncContextManager[Mapping[str, object]]]
    away: Mapping[str, object]
    silent: Callable[[int], Mapping[str, object]] | None = None


@asynccontextmanager
async def healthy_page(folder: Path) -> AsyncIterator[Mapping[str, object]]:
    async with serving(saying("healthy")) as port:
        yield {"url": f"http://127.0.0.1:{port}/healthz"}


@asynccontextmanager
async def listener(folder: Path) -> AsyncIterator[Mapping[str, object]]:
    async with speaking(silence) as port:
        yield {"host": "127.0.0.1", "port": port}


@asynccontextmanager
async def loopback(folder: Path) -> AsyncIterator[Mapping[str, object]]:
    yield {"host": "127.0.0.1"}


@asynccontextmanager
async def counted_log(folder: Path) -> AsyncIterator[Mapping[str, object]]:
    """Of a log, the first check only finds where it ends."""
    log = folder / "access.log"
    log.touch()
    status = "Active connections: 2 \nserver accepts handled requests\n 7 7 9 \n"
    async with serving(saying(status)) as port:
        values = {"access_log": str(log), "status_url": f"http://127.0.0.1:{port}/status"}
        yield values


@asynccontextmanager
async def managed_queue(folder: Path) -> AsyncIterator[Mapping[str, object]]:
    async with serving(saying('{"messages": 3}')) as port:
        yield {"url": f"http://127.0.0.1:{port}", "queue": "clowder.metrics"}


def status_url_of(port: int) -> Mapping[str, object]:
    return {"status_url": f"http://127.0.0.1:{port}/"}


def queue_of(port: int) -> Mapping[str, object]:
    return {"url": f"amqp://127.0.0.1:{port}", "queue": "clowder.metrics"}


def url_of(port: int) -> Mapping[str, object]:
    return {"url": f"http://127.0.0.1:{port}/"}


CASES: Mapping[str, Case] = {
    "ping": Case(loopback, {"host": "nobody.invalid"}),
    "page": Case(healthy_page, url_of(port_without_listener()), url_of),
    "healthz": Case(healthy_page, url_of(port_without_listener()), url_of),
    "connections": Case(counted_log, status_url_of(port_without_listener()), status_url_of),
    "queue": Case(managed_queue, queue_of(port_without_listener()), queue_of),
    "port": Case(listener, {"host": "127.0.0.1", "port": port_without_listener()}),
}
every_kind = pytest.mark.parametrize("kind", CASES)


def settings_of(kind: str, values: Mapping[str, object]) -> AnyProbeSettings:
    document = {"kind": kind, "service": "clowder", "timeout": TIMEOUT_S, **values}
    return msgspec.convert(document, AnyProbeSettings)  # type: ignore[no-any-return] # a union


def stamped(result: Measured) -> bytes:
    """As the schedule sends it."""
    return msgspec.json.encode(
        {"service": "clowder", "region": "eu", "source": "m", "id": "1", "time": 1, **result}
    )


def test_every_kind_is_held_to_the_laws() -> None:
    assert {str(kind.__struct_config__.tag) for kind in get_args(AnyProbeSettings)} == set(CASES)


@every_kind
async def test_what_is_measured_is_a_canonical_event_again_and_again(kind: str, tmp_path: Path) -> None:
    async with CASES[kind].well(tmp_path) as values:
        keeping = Keeping()
        around = Surroundings(progress=keeping.progress)
        probe = build(settings_of(kind, {**values, "timeout": 5.0}), around)
        keeping.keep(await probe.check())
        for _ in range(3):
            result = keeping.keep(await probe.check())
            assert not isinstance(result, Unknown)
            assert isinstance(read(stamped(result)), Event), result
            assert result.get("up") is not False, result
        await probe.close()


@every_kind
async def test_a_target_that_is_not_there_is_a_result_and_no_error(kind: str, tmp_path: Path) -> None:
    probe = build(settings_of(kind, CASES[kind].away), Surroundings())
    result = Keeping().keep(await probe.check())
    if not isinstance(result, Unknown):
        assert result["up"] is False
        assert result["problem"]
        assert isinstance(read(stamped(result)), Event), result
    await probe.close()


@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if case.silent is not None])
async def test_a_silent_target_is_given_up_in_time(kind: str, tmp_path: Path) -> None:
    async with speaking(silence) as port:
        of_port = CASES[kind].silent
        assert of_port is not None
        probe = build(settings_of(kind, of_port(port)), Surroundings())
        began = time.monotonic()
        result = Keeping().keep(await probe.check())
        assert TIMEOUT_S <= time.monotonic() - began < TIMEOUT_S + SLACK_S
        assert isinstance(result, Unknown) or result["up"] is False
        await probe.close()


@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if case.silent is not None])
async def test_a_check_can_be_cancelled_and_the_next_one_measures(kind: str, tmp_path: Path) -> None:
    async with speaking(silence) as port:
        of_port = CASES[kind].silent
        assert of_port is not None
        probe = build(settings_of(kind, {**of_port(port), "timeout": 60}), Surroundings())
        check = asyncio.ensure_future(probe.check())
        await asyncio.sleep(0)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        await probe.close()
        await probe.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "its name is not known to DNS"),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure"),
            "its name cannot be looked up: no name server answers",
        ),
        (OSError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 80)"), "Connection refused"),
        (OSError("odd"), "OSError"),
    ],
)
def test_what_the_system_says_is_told_in_one_way_and_without_addresses(error: OSError, words: str) -> None:
    assert said(error) == words
