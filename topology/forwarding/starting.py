"""The forwarders of a group, made of its parts and started."""

from __future__ import annotations

from collections.abc import Callable, Collection

from topology.forwarding.forwarder import Forwarder
from topology.forwarding.reservations import Reservations
from topology.forwarding.settling import Surroundings
from topology.parts import GroupParts


async def started_forwarders(
    group: str,
    agents: Collection[str],
    generation: int,
    parts: GroupParts,
    fail: Callable[[BaseException], None],
) -> dict[str, Forwarder]:
    """By agent; of those of these agents for which a vendor is set. Waits while the store of rows is away."""
    around = Surroundings(
        dead_letters=parts.dead_letters,
        outages=parts.outages,
        metrics=parts.metrics,
        clock_ms=parts.clock_ms,
        fail=fail,
    )
    found: dict[str, Forwarder] = {}
    for agent, forwarding in parts.forwardings.items():
        if agent not in agents:
            continue
        reservations = None
        if not forwarding.vendor.repeatable:
            reservations = Reservations(group, agent, generation, parts.store, parts.outages)
        found[agent] = Forwarder(agent, forwarding, around, reservations)
        await found[agent].start()
    return found
