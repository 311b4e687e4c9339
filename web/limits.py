"""How much one client may ask for: token buckets, in memory that is bounded whoever asks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """``per_s`` requests a second for as long as one likes, and ``burst`` of them at once after a rest."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if not (0 < self.per_s < math.inf and self.burst >= 1):
            raise ValueError(f"a rate is above 0 and its burst at least 1, got {self.per_s} and {self.burst}")


#: Of one key, unless a setting says otherwise.
KEY_RATE = Rate(per_s=100, burst=200)
#: Failed attempts of one address: a person who mistypes never notices, a program that keeps trying is told to wait.
#: Not more is needed of it, there is no guessing 190 random bits (docs/decisions/0028).
FAILED_ATTEMPTS_RATE = Rate(per_s=1 / 3, burst=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the application takes from whom. ``trusted_proxies``: whose X-Forwarded-For is believed. ``cors_origins``:
    whose pages may ask. ``monotonic``: the clock of the rates, in seconds."""

    key_rate: Rate = KEY_RATE
    failed_attempts_rate: Rate = FAILED_ATTEMPTS_RATE
    trusted_proxies: Sequence[Network] = ()
    cors_origins: Collection[str] = ()
    monotonic: Callable[[], float] = time.monotonic


#: Buckets kept at once, a hundred bytes each.
AT_MOST = 10_000


class TokenBuckets:
    """A bucket for each key or address, all of one rate. ``monotonic`` in seconds.

    A bucket that is full again is as good as none, so what is kept of each is one number: when it will be full
    (the "theoretical arrival time" of GCRA, which gives the answers of a token bucket). Where there are more than
    ``at_most``, the one that was used least recently is forgotten.
    """

    def __init__(
        self, rate: Rate, *, monotonic: Callable[[], float] = time.monotonic, at_most: int = AT_MOST
    ) -> None:
        self.rate = rate
        self._interval_s = 1 / rate.per_s
        self._room_s = (rate.burst - 1) * self._interval_s
        self._monotonic = monotonic
        self._at_most = at_most
        self._full_at: dict[str, float] = {}

    def take(self, who: str) -> float:
        """Take one token. 0.0: it was there; else the seconds after which one will be, and nothing was taken."""
        now = self._monotonic()
        # Taken out and put in again: a dict keeps the order, so the first is the least recently used.
        full_at = self._full_at.pop(who, now)
        wait = max(full_at - now - self._room_s, 0.0)
        if full_at < now:
            full_at = now
        self._full_at[who] = full_at if wait else full_at + self._interval_s
        if len(self._full_at) > self._at_most:
            del self._full_at[next(iter(self._full_at))]
        return wait

    def __len__(self) -> int:
        return len(self._full_at)
