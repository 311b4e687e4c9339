"""ICMP echo; where no ICMP is allowed, the time of a TCP connect, with a note that says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta

from monitors import icmp
from monitors.blocking import Names
from monitors.port import said
from monitors.probe import HostName, Measured, Port, ProbeSettings, Surroundings

log = logging.getLogger(__name__)


class PingSettings(ProbeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ping"):
    """``[[probe]] kind = "ping"``. ``tcp_port`` is connected to where ICMP is not allowed."""

    host: HostName
    count: Annotated[int, Meta(ge=1, le=20)] = 3
    tcp_port: Port = 443


class PingProbe:
    """Up when any request is answered."""

    def __init__(self, settings: PingSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._monotonic = surroundings.monotonic
        self._names = surroundings.names
        self._noted = False

    async def check(self) -> Measured:
        settings = self._settings
        try:
            echoes = await icmp.echo(
                settings.host,
                self._names,
                count=settings.count,
                timeout=settings.timeout,
                monotonic=self._monotonic,
            )
        except icmp.NotAllowed:
            return await self._by_tcp()
        return _event(echoes)

    async def _by_tcp(self) -> Measured:
        settings = self._settings
        note = f"ICMP is not allowed here: TCP connect to port {settings.tcp_port} instead"
        if not self._noted:
            log.warning("%s: %s; run as root, or set net.ipv4.ping_group_range", settings.host, note)
            self._noted = True
        echoes = await _connects(settings, self._names, self._monotonic)
        return {**_event(echoes), "note": note}

    async def close(self) -> None:
        """Every check has closed what it opened."""


async def _connects(settings: PingSettings, names: Names, monotonic: Callable[[], float]) -> icmp.Echoes:
    """As many connects as there would be requests. A refusal comes from the host, which so is there."""
    echoes = icmp.Echoes(sent=settings.count)
    for _ in range(settings.count):
        began = monotonic()
        try:
            async with asyncio.timeout(settings.timeout / settings.count):
                await names.connect(settings.host, settings.tcp_port)
        except ConnectionRefusedError:
            pass
        except TimeoutError:
            echoes.problem = f"no connection within {settings.timeout / settings.count:.3g} s"
            continue
        except OSError as error:
            echoes.problem = said(error)
            continue
        echoes.took_ms.append((monotonic() - began) * 1000)
    return echoes


def _event(echoes: icmp.Echoes) -> dict[str, object]:
    took = echoes.took_ms
    event: dict[str, object] = {
        "type": "health.pinged",
        "check": "ping",
        "up": bool(took),
        "loss": round(echoes.loss, 6),
    }
    if took:
        times = {"min": min(took), "avg": sum(took) / len(took), "max": max(took)}
        event["response_ms"] = {name: round(ms, 3) for name, ms in times.items()}
    elif echoes.problem is not None:
        event["problem"] = echoes.problem
    return event
