"""TCP connect: does somebody listen?"""

from __future__ import annotations

import asyncio
import os
import socket

from monitors.probe import HostName, Measured, Port, ProbeSettings, Surroundings


class PortSettings(ProbeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="port"):
    """``[[probe]] kind = "port"``."""

    host: HostName
    port: Port


class PortProbe:
    """Up when the connection is made."""

    def __init__(self, settings: PortSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._monotonic = surroundings.monotonic
        self._names = surroundings.names

    async def check(self) -> Measured:
        took = await self._connect_ms()
        if isinstance(took, str):
            return {"type": "health.pinged", "check": "port", "up": False, "problem": took}
        return {
            "type": "health.pinged",
            "check": "port",
            "up": True,
            "response_ms": {"min": took, "avg": took, "max": took},
        }

    async def _connect_ms(self) -> float | str:
        """How long a TCP connection took to be made, names looked up included; or why there is none."""
        settings = self._settings
        began = self._monotonic()
        try:
            async with asyncio.timeout(settings.timeout):
                await self._names.connect(settings.host, settings.port)
        except TimeoutError:
            return f"no connection within {settings.timeout:g} s"
        except OSError as error:
            return said(error)
        return round((self._monotonic() - began) * 1000, 3)

    async def close(self) -> None:
        """Nothing is kept open."""


def said(error: OSError) -> str:
    """What is wrong, without addresses, so that the same trouble reads the same."""
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return "its name cannot be looked up: no name server answers"
        return "its name is not known to DNS"
    # asyncio words a refused connection as "Connect call failed (address)"; other numbers may be none of the system's.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__
