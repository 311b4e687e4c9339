"""Whether the monitor's own network is gone: then a failed check says nothing about the service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from monitors.blocking import Names

#: All of them together are asked for no longer.
REFERENCE_WITHIN_S = 3.0


class Reference:
    """Addresses, ``HOST:PORT``, that answer as long as this machine's network works. None given: it always does."""

    def __init__(self, addresses: Sequence[str], *, timeout: float, names: Names) -> None:
        self._addresses = [address.rsplit(":", 1) for address in addresses]
        self._timeout = timeout
        self._names = names
        self._asking: asyncio.Task[bool] | None = None

    async def network_gone(self) -> bool:
        """True if none of them answers within ``timeout``. A refusal is an answer. Many may ask at once: the addresses
        are asked once."""
        if not self._addresses:
            return False
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="reference addresses")
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def _asked(self, _: object) -> None:
        self._asking = None

    async def _ask(self) -> bool:
        asked = [
            asyncio.create_task(self._answers(host.strip("[]"), int(port))) for host, port in self._addresses
        ]
        try:
            for first in asyncio.as_completed(asked):
                if await first:
                    return False
        finally:
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return True

    async def _answers(self, host: str, port: int) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                await self._names.connect(host, port)
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False
        return True
