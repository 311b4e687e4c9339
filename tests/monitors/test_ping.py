"""ICMP by both kinds of socket, what comes instead where neither is allowed, and silence."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors import icmp
from tests.monitors.namespaces import (
    ALLOW_UNPRIVILEGED,
    LOOPBACK,
    SILENT_ADDRESS,
    SILENT_NETWORK,
    WITHOUT_RAW,
    in_namespace,
)

pytestmark = pytest.mark.processes

QUICK = {"timeout": 2.0, "count": 2}


async def pinged(host: str, *setup: str, prefix: tuple[str, ...] = (), **settings: object) -> Any:
    """The event of one check in a network of its own."""
    ended = await in_namespace(
        setup, "tests.monitors.pinging", host, json.dumps({**QUICK, **settings}), prefix=prefix
    )
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_by_a_raw_socket(host: str) -> None:
    event = await pinged(host, LOOPBACK)
    assert (event["up"], event["check"], event["loss"]) == (True, "ping", 0.0)
    times = event["response_ms"]
    assert 0 < times["min"] <= times["avg"] <= times["max"] < 2000
    assert "note" not in event


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_by_an_unprivileged_socket_where_the_kernel_allows_it(host: str) -> None:
    event = await pinged(host, LOOPBACK, ALLOW_UNPRIVILEGED, prefix=WITHOUT_RAW)
    assert (event["up"], event["loss"]) == (True, 0.0)
    assert "note" not in event


async def test_by_tcp_with_a_note_where_icmp_is_not_allowed() -> None:
    event = await pinged("127.0.0.1", LOOPBACK, prefix=WITHOUT_RAW, tcp_port=9)
    # Nothing listens on port 9: a refusal comes from a host that is there.
    assert (event["up"], event["loss"]) == (True, 0.0)
    assert event["note"] == "ICMP is not allowed here: TCP connect to port 9 instead"


@pytest.mark.parametrize("prefix", [(), WITHOUT_RAW], ids=["icmp", "tcp"])
async def test_a_silent_address_is_down_with_everything_lost(prefix: tuple[str, ...]) -> None:
    event = await pinged(SILENT_ADDRESS, LOOPBACK, SILENT_NETWORK, prefix=prefix, timeout=0.4)
    assert (event["up"], event["loss"]) == (False, 1.0)
    assert "response_ms" not in event
    assert event["problem"].startswith("no ")


async def test_a_network_without_a_route_is_down_at_once() -> None:
    event = await pinged("192.0.2.1", LOOPBACK, timeout=60.0)
    assert (event["up"], event["problem"]) == (False, "Network is unreachable")


async def test_a_name_that_nobody_knows_is_down() -> None:
    event = await pinged("nobody.invalid", LOOPBACK)
    assert (event["up"], event["loss"]) == (False, 1.0)


# -- packets --


@given(st.binary(min_size=16, max_size=16), st.integers(0, 0xFFFF))
def test_the_checksum_makes_the_sum_nothing(token: bytes, sequence: int) -> None:
    packet = icmp.request(socket.AF_INET, sequence, token)
    assert icmp.checksum(packet) == 0
    assert struct.unpack_from("!BB", packet) == (8, 0)


@given(st.binary(max_size=120))
def test_whatever_else_comes_is_no_reply(packet: bytes) -> None:
    token = bytes(range(1, 17))
    assert not icmp.is_reply(socket.AF_INET, packet, 3, token)
    assert not icmp.is_reply(socket.AF_INET6, packet, 3, token)


def test_our_own_request_on_the_loopback_is_no_reply_and_the_reply_is() -> None:
    token = bytes(range(1, 17))
    request = icmp.request(socket.AF_INET, 3, token)
    reply = b"\0" + request[1:]
    ip_header = b"\x45" + bytes(19)
    assert not icmp.is_reply(socket.AF_INET, ip_header + request, 3, token)
    assert icmp.is_reply(socket.AF_INET, ip_header + reply, 3, token)
    assert icmp.is_reply(socket.AF_INET, reply, 3, token)
    assert not icmp.is_reply(socket.AF_INET, reply, 4, token)
    assert not icmp.is_reply(socket.AF_INET, reply, 3, bytes(16))
