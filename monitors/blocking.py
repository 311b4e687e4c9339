"""Calls that block and cannot be cancelled: names that are looked up, files of a disk that is away. Each is made in a
daemon thread of its own, so that one which hangs keeps neither the others nor the end of the process waiting. The
loop's own pools do both: four lookups that hang, and every name is unknown until they give up."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from aiohttp.abc import AbstractResolver, ResolveResult

T = TypeVar("T")
#: Of a host, without a port.
Address: TypeAlias = tuple[socket.AddressFamily, str]

#: Between two addresses of a host, where the first does not answer.
NEXT_AFTER_S = 0.25

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def in_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Begin the call. Who cancels what is returned leaves the thread behind."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type] # it is a T where there is no error
        else:
            future.set_exception(error)

    def run() -> None:
        outcome: tuple[T | None, BaseException | None]
        try:
            outcome = call(), None
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            outcome = None, error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="monitor blocking call", daemon=True).start()
    return future


class Names(AbstractResolver):
    """Addresses of hosts, by the system. While a name is being looked up nobody looks it up again, so there are no more
    threads than names, however long a name server keeps silent."""

    def __init__(self) -> None:
        self._asking: dict[str, asyncio.Future[Sequence[Address]]] = {}

    async def addresses(self, host: str) -> Sequence[Address]:
        """At least one, the system's choice first. Raises ``OSError``, and may be cancelled."""
        asking = self._asking.get(host)
        if asking is None:
            asking = self._asking[host] = in_thread(lambda: _looked_up(host))
            asking.add_done_callback(lambda done: self._asked(host, done))
        return await asyncio.shield(asking)

    def _asked(self, host: str, done: asyncio.Future[Sequence[Address]]) -> None:
        del self._asking[host]
        if not done.cancelled():
            done.exception()  # who waited may have gone

    async def connect(self, host: str, port: int) -> None:
        """Make a TCP connection and drop it: nothing was sent, so nothing is waited for. An address that keeps silent
        does not stand before the next one (RFC 8305). Raises ``OSError``, a refusal rather than what is no answer."""
        others = list(await self.addresses(host))
        asking: set[asyncio.Task[None]] = set()
        wrong: OSError = _unknown()
        try:
            while others or asking:
                if others:
                    asking.add(asyncio.create_task(_connect(*others.pop(0), port)))
                done, asking = await asyncio.wait(
                    asking,
                    timeout=NEXT_AFTER_S if others else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for each in done:
                    try:
                        each.result()
                    except OSError as error:
                        if not isinstance(wrong, ConnectionRefusedError):
                            wrong = error
                    else:
                        return
            raise wrong
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """For aiohttp."""
        return [
            ResolveResult(hostname=host, host=address, port=port, family=found, proto=0, flags=_NUMERIC)
            for found, address in await self.addresses(host)
            if family in {socket.AF_UNSPEC, found}
        ]

    async def close(self) -> None:
        """Threads that are left end by themselves."""


async def _connect(family: socket.AddressFamily, address: str, port: int) -> None:
    _, writer = await asyncio.open_connection(address, port, family=family)
    writer.transport.abort()


def _looked_up(host: str) -> Sequence[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # a part of it is empty or too long
        raise _unknown() from None
    return [(family, _with_scope(address)) for family, _, _, _, address in found]


def _with_scope(address: tuple[Any, ...]) -> str:
    """Of a link-local address of IPv6, with the link."""
    return f"{address[0]}%{address[3]}" if len(address) == 4 and address[3] else str(address[0])


def _unknown() -> OSError:
    return socket.gaierror(socket.EAI_NONAME, "Name or service not known")
