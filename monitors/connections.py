"""NGINX: requests and distinct clients in each period, of the access log; connections that are open, of `stub_status`.

The event's ``connections`` is one of these numbers (docs/decisions/0034); all that were measured stand beside it, as
``requests``, ``clients`` and ``active``. Addresses of clients are in no event and in no message.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from monitors.access_log import Counted, LogFormat
from monitors.blocking import in_thread
from monitors.faults import Contradiction
from monitors.fetching import Fetched, Fetcher, tls_context, wrong_url
from monitors.following import Following
from monitors.log_file import Saved, decoded, encoded
from monitors.probe import (
    Name,
    Outcome,
    ProbeSettings,
    Progress,
    Read,
    Retries,
    Surroundings,
    Unknown,
)
from monitors.words import counted
from topology.errors import Unavailable

log = logging.getLogger(__name__)

#: A look ends after this part of the timeout, so that a long log is read in several, and none of them hangs.
LOOK_PART = 0.5
#: A period longer than so many intervals had a pause in it.
PAUSED_INTERVALS = 2.0

#: https://nginx.org/en/docs/http/ngx_http_stub_status_module.html
_STATUS = re.compile(rb"\s*Active connections: *([0-9]{1,15})\s")


class ConnectionsSettings(
    ProbeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="connections"
):
    """``[[probe]] kind = "connections"``. ``format`` is ``combined``, the text of a ``log_format``, or the directive
    as it stands in NGINX's configuration; ``client`` is the variable in it that tells clients apart. ``count`` is what
    the event's ``connections`` is where there is a log; without one it is what is open now."""

    holds: ClassVar[bool] = False

    access_log: Name | None = None
    format: str = "combined"
    client: str = "$remote_addr"
    status_url: str | None = None
    ca_file: str | None = None
    count: Literal["requests", "clients"] | None = None
    #: A second look at a log a moment later is another period.
    retries: Retries = 0

    def contradictions(self) -> Iterator[Contradiction]:
        if self.access_log is None and self.status_url is None:
            yield Contradiction((), "needs access_log, status_url, or both")
        if self.access_log is None and self.count is not None:
            yield Contradiction(("count", "access_log"), f'"{self.count}" needs access_log')
        if self.status_url is not None:
            yield from wrong_url("status_url", self.status_url, "without user and password")

    def fetcher(self, surroundings: Surroundings, url: str) -> Fetcher:
        """Of `stub_status`. Raises ``SettingsError`` for an authority that is not there."""
        return Fetcher(
            url,
            {},
            tls_context(self.ca_file),
            secret=False,
            timeout=self.timeout,
            monotonic=surroundings.monotonic,
            names=surroundings.names,
        )


class _Period(NamedTuple):
    """What was counted, and in how many seconds; ``left`` bytes of the log were not read yet."""

    counted: Counted
    seconds: float | None
    left: int
    progress: Progress


class ConnectionsProbe:
    """Counts from where the last result that was kept ends, also one of an earlier process."""

    def __init__(self, settings: ConnectionsSettings, surroundings: Surroundings) -> None:
        """Raises ``SettingsError``."""
        self._settings = settings
        self._monotonic = surroundings.monotonic
        self._progress = surroundings.progress
        self._status = (
            None if settings.status_url is None else settings.fetcher(surroundings, settings.status_url)
        )
        self._format: LogFormat | None = None
        self._following: Following | None = None
        if settings.access_log is not None:
            self._format = LogFormat.of(settings.format, client=settings.client.removeprefix("$").strip("{}"))
            self._following = Following(Path(settings.access_log).absolute())
        #: When the last look was, by both clocks.
        self._looked: tuple[float, float] | None = None
        #: A check that was cancelled leaves its look behind: a thread cannot be cancelled.
        self._looking: asyncio.Future[_Period] | None = None

    async def check(self) -> Outcome:
        event: dict[str, object] = {"type": "health.connections_counted"}
        if self._status is not None:
            active = _active(await self._status.fetch())
            if isinstance(active, int):
                event |= {"connections": active, "active": active}
            elif self._following is None:
                return Unknown(active)
            else:
                log.warning("%s: %s; the log is counted without it", self._settings.service, active)
        if self._following is None or self._format is None:
            return event
        try:
            period = await self._period(self._following, self._format)
        except Unavailable as error:
            return Unknown(str(error))
        self._tell(period)
        if period.seconds is None:
            begins = Unknown("counting begins now: the first period ends with the next check")
            return Read(begins, period.progress)
        requests, clients = period.counted.requests, period.counted.clients
        event |= {
            "connections": clients
            if self._settings.count == "clients"
            else self._in_an_interval(requests, period.seconds),
            "period_s": round(period.seconds, 3),
            "requests": requests,
            "clients": clients,
        }
        if period.counted.unreadable:
            event["unreadable"] = period.counted.unreadable
        return Read(event, period.progress)

    def _in_an_interval(self, requests: int, seconds: float) -> int:
        """After a pause, what an interval had on average: the mean and the maximum of a service compare periods, and
        that of a pause would be a peak that never was. Clients do not add up, so nothing can be said of them."""
        interval = self._settings.interval
        return requests if seconds <= PAUSED_INTERVALS * interval else round(requests * interval / seconds)

    async def close(self) -> None:
        await self._looked_out()
        if self._following is not None:
            self._following.close()

    def _tell(self, period: _Period) -> None:
        """Numbers only: what the lines hold is personal."""
        settings = self._settings
        if period.counted.unreadable:
            log.warning(
                "%s: %s of %s not of the format",
                settings.service,
                counted(period.counted.unreadable, "line"),
                settings.access_log,
            )
        if period.left:
            log.warning("%s: %s left for the next check", settings.access_log, counted(period.left, "byte"))

    async def _period(self, following: Following, log_format: LogFormat) -> _Period:
        await self._looked_out()
        name = _name_of_progress(self._settings, following.path)
        before = await self._progress(name)
        looking = self._looking = in_thread(lambda: self._look(following, log_format, name, before))
        return await asyncio.shield(looking)

    async def _looked_out(self) -> None:
        """Wait for a look that was left behind: two at once would share one open file. Nothing of it was kept, so what
        became of it concerns nobody. It is forgotten once it has ended, since who waits may be cancelled, too."""
        while (looking := self._looking) is not None:
            await asyncio.wait({looking})
            if not looking.cancelled():
                looking.exception()
            if self._looking is looking:
                self._looking = None

    def _look(self, following: Following, log_format: LogFormat, name: str, before: bytes | None) -> _Period:
        found = Counted()
        saved = None if before is None else decoded(before, following.path)
        now = self._monotonic()
        ends = now + self._settings.timeout * LOOK_PART
        look = following.look(
            saved, lambda lines: found.add(log_format, lines), enough=lambda: self._monotonic() >= ends
        )
        seconds = None if saved is None else self._seconds(saved, look.saved, now)
        self._looked = (look.saved.looked, now)
        return _Period(found, seconds, look.left, Progress(name, before, encoded(look.saved)))

    def _seconds(self, saved: Saved, after: Saved, now: float) -> float:
        """How long the period was; by the time of day where another process, or probe, began it."""
        if self._looked is not None and self._looked[0] == saved.looked:
            return now - self._looked[1]
        return max(0.0, after.looked - saved.looked)


def _name_of_progress(settings: ConnectionsSettings, path: Path) -> str:
    """Two probes of one log, for two services say, have a place each."""
    told = "\n".join((settings.service, str(path), settings.format, settings.client, settings.count or ""))
    return f"access-log-{hashlib.sha256(told.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def _active(fetched: Fetched) -> int | str:
    """Open connections, the monitor's own among them; or why they are not known."""
    if fetched.problem is not None:
        return f"stub_status: {fetched.problem}"
    if fetched.status != 200:
        return f"stub_status: status {fetched.status}"
    found = _STATUS.match(fetched.body)
    return int(found[1]) if found is not None else "stub_status: something else answers there"
