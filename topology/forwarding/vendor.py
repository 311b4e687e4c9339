"""What is to be known of a vendor. Nothing here sends: a vendor maps events to its shape, and reads its answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Protocol

from topology.batch import LogEvent
from topology.forwarding.outcomes import Verdict

#: A vendor that asks for more than this is wrong about itself.
LONGEST_RETRY_AFTER_S = 3600.0
_MAX_WORDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one request: ``events`` and ``bytes`` (of the mapped events, without what stands around them). ``in_flight``:
    requests at once. ``linger_s``: how long a request waits until it is full. ``max_age_ms``: older events are not
    sent (None: all are)."""

    events: int
    bytes: int
    in_flight: int = 4
    linger_s: float = 0.2
    timeout_s: float = 10.0
    max_age_ms: int | None = None


class Parcel(NamedTuple):
    """An event in the vendor's shape, as JSON. ``ids``: by which the vendor may hold it back. Only parcels with the
    same ``together`` share a request."""

    body: bytes
    ids: tuple[str, ...] = ()
    together: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A POST. ``url`` may hold a secret: it is shown to nobody."""

    url: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``whole`` is False where the connection was lost in the middle of the body; header names in small letters.
    ``received_ms``: when it came, by the wall clock."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_ms: int
    whole: bool = True

    def document(self) -> Mapping[str, Any]:
        """The JSON object in it; empty where there is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def retry_after_s(self) -> float | None:
        """What ``Retry-After`` asks for, a number or a date, in seconds from the answer on; None: nothing."""
        stated = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]+", stated):
            asked = float(stated)
        elif (until := _date(stated)) is not None:
            # By the clock that the date was read from, where it is told: ours may be another.
            since = _date(self.headers.get("date", "")) or datetime.fromtimestamp(
                self.received_ms / 1000, UTC
            )
            asked = max(0.0, (until - since).total_seconds())
        else:
            return None
        return min(asked, LONGEST_RETRY_AFTER_S)

    @property
    def words(self) -> str:
        """The status and the beginning of the body, in one line."""
        said = self.document().get("error")
        text = " ".join((said if isinstance(said, str) else self.body.decode(errors="replace")).split())
        text = "".join(each if each.isprintable() else "?" for each in text[: _MAX_WORDS + 1])
        text = text if len(text) <= _MAX_WORDS else text[:_MAX_WORDS] + "…"
        return f"{self.status} ({text})" if text else str(self.status)


def _date(text: str) -> datetime | None:
    """A date of HTTP, in each of its three forms."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


class Trial(NamedTuple):
    """A request that proves a shape without counting anything."""

    shape: str
    request: Request


class Vendor(Protocol):
    """One vendor, in one file of ``agents/``. Every method is quick, does no I/O and does not raise; a ``parcel`` that
    raises all the same makes a dead letter of the event."""

    @property
    def where(self) -> str:
        """Its address as people may see it."""

    @property
    def limits(self) -> Limits:
        """What one request may hold."""

    @property
    def repeatable(self) -> bool:
        """Whether the vendor knows again what it was sent before. If not, nothing is sent twice that may have
        arrived, not even after a crash."""

    @property
    def secrets(self) -> Sequence[str]:
        """What must not be seen in any message."""

    def parcel(self, event: LogEvent) -> Parcel | None:
        """The event as the vendor wants it; None: there is no such thing there."""

    def request(self, parcels: Sequence[Parcel]) -> Request:
        """One request with these, within the limits."""

    def verdict(self, answer: Answer, parcels: Sequence[Parcel]) -> Verdict:
        """What an answer means. One that is not whole comes here only where the vendor is not ``repeatable``."""

    def trials(self, at_ms: int) -> Sequence[Trial]:
        """What is to be proved at the start, which is now; nothing for most."""

    def fault(self, answer: Answer) -> str | None:
        """What the answer to a trial finds wrong with the shape; None: nothing. Only called for 2xx."""
