"""Posts what is in the outbox to ``/v1/events``, in order, for as long as it takes.

1. the oldest events are read, as many as one request takes
2. they are posted
3. what the endpoint answered decides: taken (or refused item by item): forgotten; else kept, and tried again

An answer counts only if it is the ingest's own and accounts for every event: a portal that says 200 to everything has
taken nothing. Between 2 and 3 anything may die: the events are posted again, and ``source``, ``id`` and ``time`` make
them count once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, TypeAlias

import aiohttp
import msgspec
from msgspec import Meta
from yarl import URL

from monitors.fetching import said_by_client
from monitors.outbox import Outbox, Waiting
from monitors.words import counted
from topology.errors import Unavailable
from topology.metrics import MonitorMetrics

log = logging.getLogger(__name__)

#: The ingest takes 1000 events and 1 MiB.
MOST_EVENTS = 500
MOST_BYTES = 512 << 10
ANSWER_WITHIN_S = 30.0
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
LONGEST_RETRY_AFTER_S = 3600.0
#: Another process may have put something in.
LOOK_EVERY_S = 5.0
#: The ingest's answer to the most events, each refused with a reason, is far below it.
MOST_ANSWER_BYTES = 4 << 20
#: Of an answer that is not ours, in a log.
MOST_SAID_CHARACTERS = 200

_NDJSON = "application/x-ndjson"
_PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where events go. ``key`` is a secret and is written nowhere."""

    url: URL
    key: str | None

    @property
    def events(self) -> URL:
        return self.url / "v1" / "events"


class NotTaken(Exception):
    """The endpoint took nothing; what was to be posted is kept. ``too_much``: fewer at once may pass. ``for_good``: it
    is the ingest's own word, so that one event alone will never pass."""

    def __init__(
        self,
        message: str,
        *,
        too_much: bool = False,
        for_good: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.too_much = too_much
        self.for_good = for_good
        self.retry_after_s = retry_after_s


#: Events that will never be taken, with the reasons; and of how many that were posted.
Refusals: TypeAlias = Mapping[bytes, str]


def log_refusals(refusals: Refusals, posted: int) -> None:
    """The first one stands for all."""
    body, why = next(iter(refusals.items()))
    log.error(
        "the endpoint will never take %d of %s, dropped; the first, %s: %s",
        len(refusals),
        counted(posted, "result"),
        body.decode(errors="replace")[:MOST_SAID_CHARACTERS],
        why,
    )


class Poster:
    """One at a time for an outbox is best, several are harmless. ``sleep`` and ``jitter`` (0 to 1) are injected."""

    def __init__(
        self,
        outbox: Outbox,
        endpoint: Endpoint,
        session: aiohttp.ClientSession,
        metrics: MonitorMetrics,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        tell_refused: Callable[[Refusals, int], None] = log_refusals,
    ) -> None:
        self._outbox = outbox
        self._endpoint = endpoint
        self._session = session
        self._metrics = metrics
        self._sleep = sleep
        self._jitter = jitter
        self._tell_refused = tell_refused
        self._at_once = MOST_EVENTS
        self._something = asyncio.Event()
        #: Why nothing is taken at present; None while all is well.
        self.away: str | None = None

    def wake(self) -> None:
        """There is something in the outbox."""
        self._something.set()

    async def run(self) -> None:
        """Post whatever comes, until cancelled."""
        delay = FIRST_DELAY_S
        while True:
            self._something.clear()
            try:
                await self.post_all()
            except NotTaken as error:
                if self.away is None:
                    log.warning("results are kept until the endpoint takes them: %s", error)
                self.away = str(error)
                # Half to the whole of it: the monitors of many regions must not come back in step.
                await self._sleep(_longer(delay * (1 + self._jitter()) / 2, error.retry_after_s))
                delay = min(delay * 2, LONGEST_DELAY_S)
                continue
            except Unavailable as error:
                log.warning("%s", error)
            else:
                if self.away is not None:
                    log.warning("the endpoint takes results again")
                self.away = None
            delay = FIRST_DELAY_S
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._something.wait()
            except TimeoutError:
                pass

    async def post_all(self) -> None:
        """Post until the outbox is empty. Raises ``NotTaken``, or ``Unavailable`` where the disk is away."""
        while await self._post_some():
            pass

    async def _post_some(self) -> bool:
        waiting = await self._outbox.first(limit=self._at_once, max_bytes=MOST_BYTES)
        if not waiting:
            return False
        try:
            refused = await self._post(waiting)
        except NotTaken as error:
            if not error.too_much:
                raise
            if len(waiting) > 1:
                self._at_once = len(waiting) // 2
                return True
            if not error.for_good:
                raise
            refused = {0: str(error)}
        else:
            self._at_once = MOST_EVENTS
        if refused:
            self._tell_refused({waiting[index].body: why for index, why in refused.items()}, len(waiting))
        await self._outbox.remove(waiting[-1].number, refused=len(refused))
        return True

    async def _post(self, waiting: Sequence[Waiting]) -> Mapping[int, str]:
        """The indices of what will never be taken, and why."""
        headers = {"Content-Type": _NDJSON}
        if self._endpoint.key is not None:
            headers["Authorization"] = f"Bearer {self._endpoint.key}"
        try:
            async with self._session.post(
                self._endpoint.events,
                data=b"\n".join(each.body for each in waiting),
                headers=headers,
                allow_redirects=False,  # the key is for the endpoint alone
                timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S),
            ) as answer:
                self._metrics.monitor_posts(code=str(answer.status)).inc()
                return _refused(answer, await _body(answer), len(waiting))
        except TimeoutError:
            self._metrics.monitor_posts(code="none").inc()
            raise NotTaken(f"{self._endpoint.url}: no answer within {ANSWER_WITHIN_S:g} s") from None
        except aiohttp.ClientError as error:
            self._metrics.monitor_posts(code="none").inc()
            raise NotTaken(f"{self._endpoint.url}: {said_by_client(error)}") from error


class _Rejected(msgspec.Struct, frozen=True):
    index: Annotated[int, Meta(ge=0)]
    error: str


class _Answer(msgspec.Struct, frozen=True):
    rejected: list[_Rejected]
    accepted: Annotated[int, Meta(ge=0)] = 0


_ANSWER = msgspec.json.Decoder(_Answer)


def _refused(answer: aiohttp.ClientResponse, body: bytes, count: int) -> Mapping[int, str]:
    status = answer.status
    if status in {202, 422}:
        found = _rejected(body, count)
        if found is not None:
            return found
    words = _words(body)
    if status == 401:
        raise NotTaken(
            f"401, the key is not known there: put another where key_env or key_file says ({words})"
        )
    if status == 403:
        raise NotTaken(f"403, the key may not send health events: give it the scope health ({words})")
    if status in {400, 413, 415, 422}:
        raise NotTaken(f"{status}: {words}", too_much=True, for_good=answer.content_type == _PROBLEM)
    if status in {429, 503}:
        raise NotTaken(f"{status}: {words}", retry_after_s=_retry_after_s(answer.headers))
    if status < 300:
        raise NotTaken(f"{status}, but not from an eventsink: look at `endpoint` ({words})")
    if status < 500:
        raise NotTaken(f"{status}, no events are taken there: look at `endpoint` ({words})")
    raise NotTaken(f"{status}: {words}", retry_after_s=_retry_after_s(answer.headers))


def _rejected(body: bytes, count: int) -> Mapping[int, str] | None:
    """What an answer of the ingest rejects, by index; None where it does not account for every event."""
    try:
        answer = _ANSWER.decode(body)
    except (ValueError, RecursionError):
        return None
    rejected = {each.index: each.error for each in answer.rejected}
    inside = all(index < count for index in rejected)
    return rejected if inside and answer.accepted + len(rejected) == count else None


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """What it says, as far as anybody wants to hear it: who stands in the endpoint's place may go on for ever."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(64 << 10):
        body += chunk
        if len(body) > MOST_ANSWER_BYTES:
            break
    return bytes(body)


def _words(body: bytes) -> str:
    try:
        said: Any = msgspec.json.decode(body)
        words = said["detail"] if "detail" in said else said["title"]
    except (ValueError, TypeError, KeyError, RecursionError):
        words = body.decode(errors="replace")
    return " ".join(str(words).split())[:MOST_SAID_CHARACTERS] or "no reason given"


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds, or a date, which is compared with the server's own clock: no clock of ours needs to be right."""
    stated = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", stated):
        wish = float(stated)
    else:
        try:
            until = parsedate_to_datetime(stated) - parsedate_to_datetime(headers.get("Date", ""))
        except (ValueError, TypeError):
            return None
        wish = until / timedelta(seconds=1)
    return min(max(wish, 0.0), LONGEST_RETRY_AFTER_S)


def _longer(delay_s: float, retry_after_s: float | None) -> float:
    """Not before the endpoint wishes, and then not all at once."""
    return delay_s if retry_after_s is None else max(delay_s, retry_after_s)
