"""Forwarding: the embedded log to a stand-in of Amplitude in another process, through the whole engine.

Timed from the start of the agent until every event is settled. Limit: at least 5000 events a second on two cores, of
which the stand-in, which reads every event, has its part.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from yarl import URL

from agents import FORWARDERS
from agents.amplitude import Amplitude
from bench.load import canonical_lines
from tests.servers.vendors import AMPLITUDE_KEY, serving
from tests.topology.engine import Engine, unsynced
from tests.topology.stores import Stores, opened
from topology.flow import Flow
from topology.forwarding.forwarder import Forwarding
from topology.log import NDJSON, Outgoing

LEAST_PER_S = 5000
EVENTS_A_MESSAGE = 100


def main(count: int = 100_000) -> float:
    """Measure and print; returns events sent a second."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    vendor = context.Process(target=_stand_in, args=(theirs,), daemon=True)
    vendor.start()
    try:
        took, sent = asyncio.run(_measured(count, ours.recv(), ours))
    finally:
        ours.close()
        vendor.terminate()
        vendor.join()
    per_s = sent / took
    print(
        f"forwarding, {count} events, {sent} of them selected: {took:.1f} s, "
        f"{per_s:.0f} events/s into a local Amplitude (at least {LEAST_PER_S})"
    )
    if per_s < LEAST_PER_S:
        raise SystemExit(f"bench: forwarding is slower than {LEAST_PER_S} events/s")
    return per_s


async def _measured(count: int, url: str, stand_in: Connection) -> tuple[float, int]:
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-") as folder:
        async with opened(Path(folder)) as stores:
            await unsynced(stores)
            await _filled(stores, count)
            vendor = Forwarding(vendor=Amplitude(AMPLITUDE_KEY, url))
            engine = Engine(stores, forwardings={"amplitude": vendor})
            engine.flow = Flow(URL("sqlite:///unused"), FORWARDERS[:1], engine.parts)
            await engine.flow.start()
            started = time.monotonic()
            await engine.folded()
            took = time.monotonic() - started
            await engine.flow.stop()
    stand_in.send("how many")
    sent = await asyncio.to_thread(stand_in.recv)
    return took, sent


async def _filled(stores: Stores, count: int) -> None:
    lines = list(canonical_lines(count))
    messages = [
        Outgoing(b"\n".join(lines[first : first + EVENTS_A_MESSAGE]), NDJSON, None, None)
        for first in range(0, len(lines), EVENTS_A_MESSAGE)
    ]
    await stores.log.publish(messages)


def _stand_in(pipe: Connection) -> None:
    async def run() -> None:
        async with serving() as vendors:
            pipe.send(vendors.url)
            await asyncio.to_thread(pipe.recv)
            pipe.send(len(vendors.events))

    asyncio.run(run())


if __name__ == "__main__":
    main()
