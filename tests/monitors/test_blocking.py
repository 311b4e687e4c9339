"""Look-ups and connections that hang keep nobody else waiting."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from monitors.blocking import Address, Names, in_thread
from tests.monitors.targets import port_without_listener, silence, speaking

V4 = socket.AF_INET


class Known(Names):
    """Names whose addresses are these."""

    def __init__(self, *addresses: str) -> None:
        super().__init__()
        self._known = addresses

    async def addresses(self, host: str) -> Sequence[Address]:
        return [(V4, address) for address in self._known]


@contextmanager
def silent_address(port: int) -> Iterator[str]:
    """An address at which connections to this port are neither made nor refused: its queue is full."""
    address = "127.0.0.77"
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind((address, port))
        full.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex((address, port))
        yield address


async def test_an_address_that_keeps_silent_does_not_stand_before_one_that_answers() -> None:
    async with speaking(silence) as port:
        with silent_address(port) as silent:
            async with asyncio.timeout(60):
                await Known(silent, silent, "127.0.0.1").connect("x", port)


async def test_a_refusal_is_told_rather_than_what_is_no_answer() -> None:
    port = port_without_listener()
    for addresses in (("256.0.0.1", "127.0.0.1"), ("127.0.0.1", "256.0.0.1")):
        with pytest.raises(ConnectionRefusedError):
            await Known(*addresses).connect("x", port)


async def test_a_connection_that_hangs_can_be_given_up() -> None:
    port = port_without_listener()
    with silent_address(port) as silent, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            await Known(silent, silent).connect("x", port)


async def test_a_name_is_asked_for_once_while_it_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = threading.Event()
    asked: list[str] = []

    def looked_up(host: str) -> Sequence[Address]:
        asked.append(host)
        answering.wait(30)
        return [(V4, "192.0.2.1")]

    monkeypatch.setattr("monitors.blocking._looked_up", looked_up)
    names = Names()
    given_up = asyncio.ensure_future(names.addresses("a"))
    others = [asyncio.ensure_future(names.addresses(host)) for host in ("a", "b", "a")]
    await asyncio.sleep(0)
    given_up.cancel()
    answering.set()
    assert await asyncio.gather(*others) == [[(V4, "192.0.2.1")]] * 3
    assert sorted(asked) == ["a", "b"]


@pytest.mark.parametrize("host", ["nobody.invalid", "..", f"{'x' * 64}.invalid"])
async def test_a_name_that_is_none_is_not_known(host: str) -> None:
    with pytest.raises(OSError, match=r"not known|No address"):
        await Names().addresses(host)


async def test_what_a_call_raises_is_raised_where_it_is_awaited() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)
