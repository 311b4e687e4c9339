"""One forwarder in the embedded engine, against the vendors' stand-in. Its time runs a hundred times as fast: 30 s of a
throttled user are 0.3 s here."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from agents import FORWARDERS
from agents.amplitude import Amplitude
from agents.google import Google
from agents.webhook import Webhook
from tests.servers.vendors import (
    AMPLITUDE_KEY,
    GA_ID,
    GA_SECRET,
    WEBHOOK_SECRET,
    Vendors,
)
from tests.topology.engine import NOW_MS, Engine
from tests.topology.stores import Stores
from topology.forwarding.breaker import Pace
from topology.forwarding.forwarder import Forwarding
from topology.forwarding.selection import Selection
from topology.forwarding.vendor import Vendor

FASTER = 100.0
PATIENCE_S = 40.0


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(seconds / FASTER)


FAST = Pace(lambda: time.monotonic() * FASTER, _sleep)


def limited(vendor: Any, **limits: Any) -> Any:
    """The vendor with other limits."""
    vendor.limits = dataclasses.replace(vendor.limits, **limits)
    return vendor


def amplitude(vendors: Vendors, path: str = "", key: str = AMPLITUDE_KEY, **limits: Any) -> Vendor:
    made: Vendor = limited(Amplitude(key, vendors.url + path), **limits)
    return made


def google(vendors: Vendors, *, validate: bool = False, **limits: Any) -> Vendor:
    made: Vendor = limited(Google(GA_ID, GA_SECRET, vendors.url, validate=validate), **limits)
    return made


def webhook(vendors: Vendors, **limits: Any) -> Vendor:
    made: Vendor = limited(Webhook(f"{vendors.url}/hook?token=webhook-token", WEBHOOK_SECRET), **limits)
    return made


@asynccontextmanager
async def forwarding(
    stores: Stores, vendor: Vendor, selection: Selection | None = None
) -> AsyncIterator[Engine]:
    """Its agent runs until the block ends."""
    name = type(vendor).__name__.lower()
    made = Forwarding(vendor=vendor, selection=selection or Selection(), pace=FAST)
    engine = Engine(stores, by_hand=True, groups=(), forwardings={name: made})
    engine._by_hand = [agent for agent in FORWARDERS if agent.name == name]
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def settled(engine: Engine) -> None:
    """Wait until the position is at the end of the log."""
    async with asyncio.timeout(PATIENCE_S):
        await engine.folded()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


def user_id(number: int) -> str:
    """As Clowder makes them."""
    return f"5f3a{number:020x}"


def event(number: int, user: str | None = None, **members: Any) -> dict[str, Any]:
    """A view of the dataset with this number."""
    return {
        "type": "traffic.resource_viewed",
        "time": NOW_MS + number,
        "resource_type": "dataset",
        "resource_id": f"{number:024x}",
        "user_id": user_id(number % 50) if user is None else user,
        **members,
    }


def sample(stores: Stores, name: str, **labels: str) -> float:
    """A metric; 0 where there is none."""
    return stores.registry.get_sample_value(f"eventsink_{name}", labels) or 0.0


def outcomes(stores: Stores, agent: str) -> Mapping[str, int]:
    """Those that there are, of an agent whose ledger balances."""
    kinds = ("folded", "ignored", "duplicate", "late", "dead")
    found = {
        kind: int(sample(stores, "events_total", group=agent, agent=agent, outcome=kind)) for kind in kinds
    }
    assert sum(found.values()) == sample(stores, "events_received_total", group=agent)
    assert sample(stores, "ledger_imbalance_events", agent=agent) == 0
    return {kind: count for kind, count in found.items() if count}
