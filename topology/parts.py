"""What the composition root hands to every group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from topology.forwarding.forwarder import Forwarding
from topology.log import Log, LogStart
from topology.metrics import Metrics
from topology.outages import Outages
from topology.sinks import DeadLetters, RawEvents, RollupSink
from topology.state import StateStore


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupParts:
    """Open parts, and how often and how long. ``clock_ms`` is the wall clock, epoch milliseconds;
    ``cache_bytes`` bounds the rows that a group holds in memory; ``log_start`` is where a group begins that has no
    saved position; ``key_budget`` bounds the distinct values a day of one key tag;
    ``doubled_downloads_once`` is the rule of ``doubles``; ``forwardings`` by the name of the agent."""

    log: Log
    store: StateStore
    rollup_sink: RollupSink
    raw_events: RawEvents
    dead_letters: DeadLetters
    metrics: Metrics
    outages: Outages
    clock_ms: Callable[[], int]
    checkpoint_every: timedelta
    keep: timedelta
    cache_bytes: int = 32 << 20
    log_start: LogStart = "first"
    key_budget: int = 10_000
    doubled_downloads_once: bool = False
    forwardings: Mapping[str, Forwarding] = field(default_factory=dict)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
