"""ICMP echo by asyncio, over a raw socket where that is allowed, else an unprivileged datagram socket.

By hand, see docs/decisions/0032-icmp-by-hand.md.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from monitors.blocking import Names
from monitors.port import said

_HEADER = struct.Struct("!BBHHH")
_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
#: As many bytes as ``ping`` sends. The token tells our replies from those to others: a raw socket sees them all, and of
#: an unprivileged one the kernel chooses the identifier.
TOKEN_BYTES = 16
PADDING = bytes(40)
_LARGEST_BYTES = 2048
#: Between two requests.
SPACING_S = 0.1


class NotAllowed(Exception):
    """Neither kind of socket may be opened here."""


@dataclass(slots=True)
class Echoes:
    """What came of some requests. ``problem``: why the last one failed that could not be sent."""

    sent: int = 0
    took_ms: list[float] = field(default_factory=list)
    problem: str | None = None

    @property
    def loss(self) -> float:
        """0 to 1."""
        return 1.0 - len(self.took_ms) / self.sent


async def echo(
    host: str, names: Names, *, count: int, timeout: float, monotonic: Callable[[], float]
) -> Echoes:
    """Send ``count`` requests one after the other, all within ``timeout`` seconds. A name that is not known, a network
    without a route, silence: loss. Raises ``NotAllowed``."""
    ends = monotonic() + timeout
    echoes = Echoes()
    try:
        async with asyncio.timeout(timeout):
            family, address = (await names.addresses(host))[0]
            with _connected(family, address) as connection:
                each_s = (ends - monotonic()) / count
                for sequence in range(count):
                    await _one(connection, family, sequence, each_s, echoes, monotonic)
    except TimeoutError:
        echoes.problem = f"no answer within {timeout:g} s"
    except OSError as error:
        echoes.problem = said(error)
    echoes.sent = count
    return echoes


def _connected(family: socket.AddressFamily, address: str) -> socket.socket:
    try:
        connection = socket.socket(family, socket.SOCK_RAW, _PROTOCOL[family])
    except PermissionError:
        try:
            connection = socket.socket(family, socket.SOCK_DGRAM, _PROTOCOL[family])
        except PermissionError as error:
            raise NotAllowed from error
    try:
        connection.setblocking(False)
        connection.connect((address, 0))
    except BaseException:
        connection.close()
        raise
    return connection


async def _one(
    connection: socket.socket,
    family: socket.AddressFamily,
    sequence: int,
    within_s: float,
    echoes: Echoes,
    monotonic: Callable[[], float],
) -> None:
    token = os.urandom(TOKEN_BYTES)
    sent = monotonic()
    try:
        connection.send(request(family, sequence, token))
        async with asyncio.timeout(within_s * 0.9):
            while True:
                packet = await asyncio.get_running_loop().sock_recv(connection, _LARGEST_BYTES)
                if is_reply(family, packet, sequence, token):
                    break
    except TimeoutError:
        echoes.problem = f"no answer within {within_s:.3g} s"
        return
    except OSError as error:
        echoes.problem = said(error)
        return
    took = monotonic() - sent
    echoes.took_ms.append(took * 1000)
    await asyncio.sleep(max(0.0, min(SPACING_S, within_s - took)))


def request(family: socket.AddressFamily, sequence: int, token: bytes) -> bytes:
    """An echo request. Of ICMPv6 the kernel computes the checksum (RFC 3542, section 3.1)."""
    identifier = os.getpid() & 0xFFFF
    payload = token + PADDING
    empty = _HEADER.pack(_REQUEST[family], 0, 0, identifier, sequence)
    if family == socket.AF_INET6:
        return empty + payload
    return _HEADER.pack(_REQUEST[family], 0, checksum(empty + payload), identifier, sequence) + payload


def is_reply(family: socket.AddressFamily, packet: bytes, sequence: int, token: bytes) -> bool:
    """Whether it answers this request. A raw IPv4 socket delivers the IP header too."""
    if family == socket.AF_INET and packet and packet[0] >> 4 == 4:
        packet = packet[(packet[0] & 0x0F) * 4 :]
    if len(packet) < _HEADER.size + TOKEN_BYTES:
        return False
    kind, code, _, _, number = _HEADER.unpack_from(packet)
    answers = kind == _REPLY[family] and code == 0 and number == sequence
    return answers and packet[_HEADER.size : _HEADER.size + TOKEN_BYTES] == token


def checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
