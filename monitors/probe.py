"""What a probe is. Each is one file with its settings and the probe; ``probes`` has the list.

A probe measures and knows nothing else: when it is asked, how often again, whether the network is there, and what
becomes of the result is the business of ``schedule``, ``reference`` and ``outbox``.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol, TypeAlias

from msgspec import Meta

from monitors.blocking import Names
from monitors.faults import Table

#: Seconds, in settings.
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=3600)]
NotNegative: TypeAlias = Annotated[float, Meta(ge=0, le=3600)]
Retries: TypeAlias = Annotated[int, Meta(ge=0, le=10)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
ServiceName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256, examples=["clowder"])]
HostName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256, examples=["clowder.example"])]
Port: TypeAlias = Annotated[int, Meta(ge=1, le=65535, examples=[443])]
Url: TypeAlias = Annotated[str, Meta(examples=["https://clowder.example/"])]

#: The fields of a canonical event (CONTRACT of ``health.*``), ``type`` included. ``service``, ``region``, ``source``,
#: ``id``, ``time`` and ``valid_for_s`` are put in by the schedule. Never holds a secret.
Measured: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing could be measured, which says nothing about the service: not sent, counted with its reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a probe has read of what is there once, a log. ``name`` tells it from those of other probes. ``before``
    is where the reading began, None at the very first, and ``now`` where it ended, both as the probe writes them."""

    name: str
    before: bytes | None
    now: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """A result, and the progress that was made with it. They are kept in one transaction, or neither is: then the next
    check reads the same again (docs/decisions/0038)."""

    result: Measured | Unknown
    progress: Progress


#: What a check may come to.
Outcome: TypeAlias = Measured | Unknown | Read


async def _no_progress(name: str) -> bytes | None:
    return None


class ProbeSettings(Table, tag_field="kind", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every probe has. A kind adds its own: ``class PingSettings(ProbeSettings, ..., tag="ping")``.

    ``timeout`` is of one attempt. A result is bad if it says down or is ``Unknown``; then it is tried again up to
    ``retries`` times, ``retry_delay`` apart, and only the last one counts: retries are part of one check.
    """

    #: Whether a result says what is until the next one. A count says what was.
    holds: ClassVar[bool] = True

    service: ServiceName
    interval: Seconds = 60.0
    timeout: Seconds = 10.0
    retries: Retries = 2
    retry_delay: NotNegative = 1.0

    @property
    def kind(self) -> str:
        """The word of the configuration."""
        return str(type(self).__struct_config__.tag)

    @property
    def subject(self) -> tuple[str, ...]:
        """What results are told apart by. Two probes of one subject would contradict each other, and are refused."""
        return (self.kind, self.service)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a probe is given beside its settings. ``environment`` is where the variables named by ``*_env`` are;
    ``monotonic`` in seconds, for durations; ``progress`` tells what was kept last under a name, and raises
    ``Unavailable``; ``names`` looks up hosts."""

    environment: Mapping[str, str] = field(default_factory=dict)
    monotonic: Callable[[], float] = time.monotonic
    progress: Callable[[str], Awaitable[bytes | None]] = _no_progress
    names: Names = field(default_factory=Names)


class Probe(Protocol):
    """One measurement, again and again, never two at once.

    Made by its builder in ``probes`` at start, and again after it hung or crashed. The builder does no I/O but reading
    secrets, and raises ``SettingsError`` for what only shows there.
    """

    async def check(self) -> Outcome:
        """Measure once. Ends within ``timeout`` of the settings by itself, and may be cancelled at any await. Does not
        block: files are read in a thread (``blocking``). Whatever the target does wrong is a result (``up: False``),
        whatever this machine lacks is ``Unknown``; an exception is a fault of ours, counted as a crash."""
        ...

    async def close(self) -> None:
        """Let go of connections and files; idempotent."""
        ...
