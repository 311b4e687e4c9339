"""Maintenance that the configuration knows before: an event at either end of each window."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from monitors.config import Maintenance, MonitorConfig

#: A monitor that was away while a window began or ended says so when it is back; by then the rest has been said often.
SAID_FOR_MS = 7 * 86_400_000
#: A wall clock may be set while one sleeps.
LOOK_EVERY_S = 30.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Said(NamedTuple):
    """An event, and when it is due."""

    at_ms: int
    event: Mapping[str, object]


def said_between(config: MonitorConfig, since_ms: int, until_ms: int) -> list[Said]:
    """The ends of windows in [since, until), in order of time, at one instant beginnings first. Their ids are
    the same whenever and however often they are sent."""
    found = [
        said
        for window in config.maintenance
        for said in _ends(window, config.installation, since_ms, until_ms)
        if since_ms <= said.at_ms < until_ms
    ]
    return sorted(found, key=lambda said: (said.at_ms, said.event["type"] == "health.maintenance_ended"))


def _ends(window: Maintenance, source: str, since_ms: int, until_ms: int) -> Iterator[Said]:
    """Both ends of each window that may have one there."""
    began = window.since.astimezone(UTC)
    lasts = window.until - window.since
    if window.period is None:
        yield from _both(window, source, began, began + lasts)
        return
    first = max(0, (_at(since_ms) - lasts - began) // window.period)
    last = (_at(until_ms) - began) // window.period
    for number in range(first, last + 1):
        since = began + number * window.period
        yield from _both(window, source, since, since + lasts)


def _both(window: Maintenance, source: str, since: datetime, until: datetime) -> Iterator[Said]:
    for word, at in (("started", since), ("ended", until)):
        at_ms = int(at.timestamp() * 1000)
        name = f"{window.service}\0{since.isoformat()}\0{word}"
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


def _at(epoch_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=epoch_ms)


def _said_since_ms(config: MonitorConfig, now_ms: int) -> int:
    """What a monitor says that starts now: of the last days, and each window that is open, however long."""
    now = _at(now_ms)
    began = [
        int(each.since.timestamp() * 1000) for each in config.maintenance if each.since <= now < each.until
    ]
    return min([now_ms - SAID_FOR_MS, *began])


async def announce(
    config: MonitorConfig,
    report: Callable[[Mapping[str, object]], Awaitable[None]],
    *,
    wall_ms: Callable[[], int],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Report each end when it is due, until cancelled."""
    said_until_ms = _said_since_ms(config, wall_ms())
    while True:
        now_ms = wall_ms()
        for each in said_between(config, said_until_ms, now_ms + 1):
            await report(each.event)
        said_until_ms = max(said_until_ms, now_ms + 1)
        soon = said_between(config, said_until_ms, said_until_ms + round(LOOK_EVERY_S * 1000))
        await sleep((soon[0].at_ms - now_ms) / 1000 if soon else LOOK_EVERY_S)


async def announce_past(
    config: MonitorConfig,
    report: Callable[[Mapping[str, object]], Awaitable[None]],
    *,
    wall_ms: Callable[[], int],
) -> None:
    """Report what was due in the last days, and wait for nothing: for a monitor that runs now and then."""
    now_ms = wall_ms()
    for each in said_between(config, _said_since_ms(config, now_ms), now_ms + 1):
        await report(each.event)
