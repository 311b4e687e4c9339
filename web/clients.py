"""Which address a request comes from. A proxy is believed only where a setting names it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from aiohttp import web

from web.limits import Network

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

#: What one customer of a provider is given: whoever has one address of it has them all.
_IPV6_PREFIX = 64
#: Of X-Forwarded-For, which anybody may have begun, the last so many are looked at.
_HOPS = 16
#: Clients that keep asking, each a line of text.
_REMEMBERED = 1024


class Clients:
    """Tells clients apart. ``trusted``: the proxies whose X-Forwarded-For is believed; without any, nobody's is."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def by_proxy(self, request: web.Request) -> bool:
        """Whether it comes from a proxy that is trusted, and so on behalf of somebody else."""
        peer = _address(request.remote or "")
        return peer is not None and self._is_trusted(peer)

    def group(self, request: web.Request) -> str:
        """The client for the counting of its attempts: an IPv4 address, or the /64 of an IPv6 one."""
        address = self._client(request)
        if address is None:
            return "unknown"  # a Unix socket; all of its clients are one
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.IPv6Network((int(address), _IPV6_PREFIX), strict=False))
        return str(address)

    def address(self, request: web.Request) -> str | None:
        """The client's address, for a log; None where there is none."""
        if not self._trusted:
            return _written(request.remote)  # asked at each request
        address = self._client(request)
        return request.remote if address is None else str(address)

    def _client(self, request: web.Request) -> _Address | None:
        """Each proxy appends whom it heard. From the right, the first that is no proxy of ours is the client; what
        stands left of it is only said."""
        client = _address(request.remote or "")
        if not self._trusted:
            return client
        hops = ",".join(request.headers.getall("X-Forwarded-For", ())).rsplit(",", _HOPS)
        for hop in reversed(hops):
            if client is None or not self._is_trusted(client):
                break
            before = _address(hop.strip())
            if before is None:
                break
            client = before
        return client

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


@lru_cache(maxsize=_REMEMBERED)
def _written(remote: str | None) -> str | None:
    address = _address(remote or "")
    return remote if address is None else str(address)


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
