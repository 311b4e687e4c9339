"""NGINX: requests and distinct clients in each period, of the access log; connections that are open, of `stub_status`.

The event's ``connections`` is one of these numbers (docs/decisions/0034); all that were measured stand beside it, as
``requests``, ``clients`` and ``active``. Addresses of clients are in no event and in no message.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from pathlib import Path
from typing import Literal, NamedTuple

from monitors.access_log import Counted, LogFormat
from monitors.fetching import Fetched, Fetcher, tls_context, wrong_request
from monitors.following import Following
from monitors.probe import Measured, Name, ProbeSettings, Retries, Surroundings, Unknown
from topology.errors import Unavailable

log = logging.getLogger(__name__)

#: https://nginx.org/en/docs/http/ngx_http_stub_status_module.html
_STATUS = re.compile(rb"\s*Active connections: *([0-9]{1,15})\s")


class ConnectionsSettings(
    ProbeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="connections"
):
    """``[[probe]] kind = "connections"``. ``format`` is ``combined``, the text of a ``log_format``, or the directive
    as it stands in NGINX's configuration; ``client`` is the variable in it that tells clients apart. ``count`` is what
    the event's ``connections`` is where there is a log; without one it is what is open now."""

    access_log: Name | None = None
    format: str = "combined"
    client: str = "$remote_addr"
    status_url: str | None = None
    ca_file: str | None = None
    count: Literal["requests", "clients"] | None = None
    #: A second look at a log a moment later is another period.
    retries: Retries = 0

    def __post_init__(self) -> None:
        if self.access_log is None and self.status_url is None:
            raise ValueError("needs access_log, status_url, or both")
        if self.access_log is None and self.count is not None:
            raise ValueError(f'count = "{self.count}" needs access_log')
        if self.status_url is not None and (wrong := wrong_request(self.status_url, {})) is not None:
            raise ValueError(wrong)

    def fetcher(self, surroundings: Surroundings, url: str) -> Fetcher:
        """Of `stub_status`. Raises ``SettingsError`` for an authority that is not there."""
        return Fetcher(
            url,
            {},
            tls_context(self.ca_file),
            secret=False,
            timeout=self.timeout,
            monotonic=surroundings.monotonic,
        )


class _Period(NamedTuple):
    """What was counted, and in how many seconds; ``left`` bytes of the log were not read yet."""

    counted: Counted
    seconds: float | None
    left: int


class ConnectionsProbe:
    """Counts from the last check on; after a restart, from the last one of the process before."""

    def __init__(self, settings: ConnectionsSettings, surroundings: Surroundings) -> None:
        """Raises ``SettingsError``."""
        self._settings = settings
        self._monotonic = surroundings.monotonic
        self._status = (
            None if settings.status_url is None else settings.fetcher(surroundings, settings.status_url)
        )
        self._format: LogFormat | None = None
        self._following: Following | None = None
        if settings.access_log is not None:
            self._format = LogFormat.of(settings.format, client=settings.client.removeprefix("$").strip("{}"))
            path = Path(settings.access_log).absolute()
            self._following = Following(path, surroundings.folder / _position_file(settings, path))
        self._looked_at: float | None = None
        #: A check that was cancelled leaves its look to the next one: a thread cannot be cancelled.
        self._looking: asyncio.Future[_Period] | None = None

    async def check(self) -> Measured | Unknown:
        event: dict[str, object] = {"type": "health.connections_counted"}
        if self._status is not None:
            active = _active(await self._status.fetch())
            if isinstance(active, int):
                event |= {"connections": active, "active": active}
            elif self._following is None:
                return Unknown(active)
            else:
                log.warning("%s: %s; the log is counted without it", self._settings.service, active)
        if self._following is None:
            return event
        try:
            period = await self._period()
        except Unavailable as error:
            return Unknown(str(error))
        self._tell(period)
        if period.seconds is None:
            return Unknown("counting begins now: the first period ends with the next check")
        requests, clients = period.counted.requests, period.counted.clients
        event |= {
            "connections": clients if self._settings.count == "clients" else requests,
            "period_s": round(period.seconds, 3),
            "requests": requests,
            "clients": clients,
        }
        if period.counted.unreadable:
            event["unreadable"] = period.counted.unreadable
        return event

    async def close(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            await asyncio.wait({looking})
            if not looking.cancelled():
                looking.exception()  # what became of it concerns nobody any more
        if self._following is not None:
            self._following.close()

    def _tell(self, period: _Period) -> None:
        """Numbers only: what the lines hold is personal."""
        settings = self._settings
        if period.counted.unreadable:
            log.warning(
                "%s: %d lines of %s are not of the format",
                settings.service,
                period.counted.unreadable,
                settings.access_log,
            )
        if period.left:
            log.warning("%s: %d bytes are left for the next check", settings.access_log, period.left)

    async def _period(self) -> _Period:
        looking = self._looking
        if looking is None:
            looking = self._looking = asyncio.ensure_future(asyncio.to_thread(self._look))
        try:
            return await asyncio.shield(looking)
        finally:
            if looking.done():
                self._looking = None

    def _look(self) -> _Period:
        following, log_format = self._following, self._format
        assert following is not None  # noqa: S101 - it is asked only where there is a log
        assert log_format is not None  # noqa: S101 - it comes with the log
        counted, before = Counted(), following.looked
        now = self._monotonic()
        left = following.look(lambda lines: counted.add(log_format, lines))
        if self._looked_at is not None:
            seconds: float | None = now - self._looked_at
        else:
            seconds = None if before is None else following.since(before)
        self._looked_at = now
        return _Period(counted, seconds, left)


def _position_file(settings: ConnectionsSettings, path: Path) -> str:
    """Two probes of one log, for two services say, have a position each."""
    told = "\n".join((settings.service, str(path), settings.format, settings.client, settings.count or ""))
    return f"access-log-{hashlib.sha256(told.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.json"


def _active(fetched: Fetched) -> int | str:
    """Open connections, the monitor's own among them; or why they are not known."""
    if fetched.problem is not None:
        return f"stub_status: {fetched.problem}"
    if fetched.status != 200:
        return f"stub_status: status {fetched.status}"
    found = _STATUS.match(fetched.body)
    return int(found[1]) if found is not None else "stub_status: something else answers there"
