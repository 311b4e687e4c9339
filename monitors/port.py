"""TCP connect: does somebody listen?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from monitors.probe import Measured, Name, Port, ProbeSettings, Surroundings


class PortSettings(ProbeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="port"):
    """``[[probe]] kind = "port"``."""

    host: Name
    port: Port


class PortProbe:
    """Up when the connection is made."""

    def __init__(self, settings: PortSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._monotonic = surroundings.monotonic

    async def check(self) -> Measured:
        settings = self._settings
        took = await connect_ms(settings.host, settings.port, settings.timeout, self._monotonic)
        if isinstance(took, str):
            return {"type": "health.pinged", "check": "port", "up": False, "problem": took}
        return {
            "type": "health.pinged",
            "check": "port",
            "up": True,
            "response_ms": {"min": took, "avg": took, "max": took},
        }

    async def close(self) -> None:
        """Nothing is kept open."""


async def connect_ms(host: str, port: int, timeout: float, monotonic: Callable[[], float]) -> float | str:
    """How long a TCP connection took to be made, names looked up included; or why there is none."""
    began = monotonic()
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no connection within {timeout:g} s"
    except OSError as error:
        return said(error)
    took = (monotonic() - began) * 1000
    writer.transport.abort()  # nothing was sent, so nothing is waited for
    return round(took, 3)


def said(error: OSError) -> str:
    """What the system says, without addresses, so that the same trouble reads the same."""
    # asyncio words a refused connection as "Connect call failed (address)"; a name that is none has a negative number.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__
