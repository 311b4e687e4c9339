"""Maintenance that the configuration knows before: an event at either end of each window."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, timedelta
from hashlib import sha256
from typing import NamedTuple

from monitors.config import Maintenance, MonitorConfig

#: A monitor that was away while a window began or ended says so when it is back; by then the rest has been said often.
SAID_FOR = timedelta(days=7)
#: A wall clock may be set while one sleeps.
LOOK_EVERY_S = 30.0


class Said(NamedTuple):
    """An event, and when it is due."""

    at_ms: int
    event: Mapping[str, object]


def said_of(config: MonitorConfig) -> list[Said]:
    """Both ends of every window, in order of time. Their ids are the same whenever and however often they are sent."""
    return sorted(each for window in config.maintenance for each in _ends(window, config.installation))


def _ends(window: Maintenance, source: str) -> Iterator[Said]:
    for word, at in (("started", window.since), ("ended", window.until)):
        at_ms = int(at.timestamp() * 1000)
        name = f"{window.service}\0{window.since.astimezone(UTC).isoformat()}\0{word}"
        event: dict[str, object] = {
            "source": source,
            "id": f"maintenance-{sha256(name.encode()).hexdigest()[:32]}",
            "time": at_ms,
            "type": f"health.maintenance_{word}",
            "service": window.service,
        }
        if window.reason is not None:
            event["reason"] = window.reason
        yield Said(at_ms, event)


async def announce(
    config: MonitorConfig,
    report: Callable[[Mapping[str, object]], Awaitable[None]],
    *,
    wall_ms: Callable[[], int],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Report each end when it is due. Ends after the last one."""
    for each in said_of(config):
        if each.at_ms < wall_ms() - SAID_FOR / timedelta(milliseconds=1):
            continue
        while (left_ms := each.at_ms - wall_ms()) > 0:
            await sleep(min(left_ms / 1000, LOOK_EVERY_S))
        await report(each.event)


async def announce_past(
    config: MonitorConfig,
    report: Callable[[Mapping[str, object]], Awaitable[None]],
    *,
    wall_ms: Callable[[], int],
) -> None:
    """Report what was due in the last days, and wait for nothing: for a monitor that runs now and then."""
    now_ms = wall_ms()
    for each in said_of(config):
        if now_ms - SAID_FOR / timedelta(milliseconds=1) <= each.at_ms <= now_ms:
            await report(each.event)
