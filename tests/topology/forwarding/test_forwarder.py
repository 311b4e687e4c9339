"""What holds for every vendor: memory, restarts, readings that begin anew, faults of our own."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tests.servers.vendors import Vendors, answers, said, slow
from tests.topology.engine import publish
from tests.topology.forwarding.running import (
    amplitude,
    event,
    forwarding,
    google,
    outcomes,
    sample,
    settled,
    until,
    webhook,
)
from tests.topology.stores import Stores
from topology.errors import Conflict
from topology.forwarding import forwarder, sending, settling
from topology.forwarding.posting import NotSent
from topology.forwarding.reservations import Reservations
from topology.position import Position

PING = {"type": "health.pinged", "service": "s", "region": "r", "up": True}
AWAY = "http://127.0.0.1:1"


async def test_what_is_not_sent_does_not_pile_up_behind_what_waits(
    vendors: Vendors, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The vendor is away, one event waits for it, and monitors go on for days.
    monkeypatch.setattr(settling, "MOST_BATCHES", 5)
    url, vendors.url = vendors.url, AWAY
    vendor: Any = amplitude(vendors)
    await publish(stores, [event(0)])
    async with forwarding(stores, vendor) as engine:
        consignments = engine.groups[0]._forwarders["amplitude"]._settling.consignments
        reading = engine.groups[0].reading
        await until(lambda: reading.read_up_to >= 0)
        for _ in range(4):
            read = reading.read_up_to
            await publish(stores, [PING])
            await until(lambda read=read: reading.read_up_to > read)  # type: ignore[misc] # bound now
        await until(lambda: len(consignments) == 5)
        # What was looked at is not kept.
        for each in consignments._all:
            assert each._then is None or not each._then.args[1]._batch.events  # type: ignore[attr-defined] # partial
        for _ in range(10):
            await publish(stores, [PING])
            await engine.tick()
            assert len(consignments) <= 5
        vendor.where = f"{url}/batch"
        await settled(engine)
    assert outcomes(stores, "amplitude") == {"folded": 1, "ignored": 14}


async def test_large_events_on_their_way_are_bounded_by_their_bytes(
    vendors: Vendors, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "MOST_BYTES_ON_THE_WAY", 10_000)
    monkeypatch.setattr(forwarder, "LOOKED_AT_A_TIME", 1)
    url, vendors.url = vendors.url, AWAY
    vendor: Any = amplitude(vendors)
    await publish(stores, [event(number, remark="x" * 4000) for number in range(20)])
    async with forwarding(stores, vendor) as engine:
        await until(lambda: sample(stores, "forward_requests_total", agent="amplitude", verdict="later") > 1)
        assert sample(stores, "forward_pending_events", agent="amplitude") == 3
        vendor.where = f"{url}/batch"
        await settled(engine)
    assert len(vendors.events) == 20


async def test_little_is_in_doubt_where_the_vendor_cannot_tell_repeats(
    vendors: Vendors, stores: Stores
) -> None:
    vendors.url = AWAY
    await publish(stores, [event(number) for number in range(2000)])
    async with forwarding(stores, google(vendors)) as engine:

        def pending() -> float:
            return sample(stores, "forward_pending_events", agent="google")

        await until(lambda: pending() >= 1000)
        for _ in range(20):
            await engine.tick()
        assert pending() == 1000


async def test_a_throttling_that_names_none_of_ours_is_a_pause_not_a_loop(
    vendors: Vendors, stores: Stores
) -> None:
    asked: list[float] = []

    async def names_others(_: Vendors, __: Any, events: list[dict[str, Any]]) -> Any:
        asked.append(asyncio.get_running_loop().time())
        if len(asked) <= 2:
            return said(
                429, code=429, error="x", throttled_users={"nobody-of-ours": 9}, throttled_events=[77]
            )
        return None

    vendors.always = names_others
    await publish(stores, [event(0)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert len(asked) == 3
    assert all(later - earlier >= 0.3 for earlier, later in itertools.pairwise(asked))  # 30 s here


async def test_halves_wait_like_everything_else(vendors: Vendors, stores: Stores) -> None:
    asked: list[float] = []

    async def large_then_busy(_: Vendors, __: Any, events: list[dict[str, Any]]) -> Any:
        asked.append(asyncio.get_running_loop().time())
        if len(asked) == 1:
            return said(413)
        return said(503, headers={"Retry-After": "40"}) if len(asked) == 2 else None

    vendors.always = large_then_busy
    await publish(stores, [event(number) for number in range(4)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert asked[2] - asked[1] >= 0.4
    assert len(vendors.events) == 4


@pytest.mark.parametrize("method", ["request", "verdict"])
async def test_a_fault_of_ours_stops_the_agent_not_the_process(
    vendors: Vendors, stores: Stores, method: str
) -> None:
    def breaks(*_: Any) -> Any:
        raise KeyError("a fault")

    vendor: Any = webhook(vendors)
    setattr(vendor, method, breaks)
    await publish(stores, [event(0)])
    async with forwarding(stores, vendor) as engine:
        await until(lambda: bool(engine.groups[0].stopped))
        assert "KeyError" in engine.groups[0].stopped["webhook"]
        failed = engine.groups[0].failed
        assert failed is not None
        assert not failed.done()
        assert engine.groups[0].reading.lowest == -1
    vendors.hooked.clear()
    async with forwarding(stores, webhook(vendors)) as engine:
        await settled(engine)
    assert len(vendors.hooked) == 1


async def test_a_request_that_is_cut_off_by_a_stop_is_in_doubt_at_the_next_start(
    vendors: Vendors, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "LAST_ANSWERS_S", 0.05)

    async def for_ever(_: Vendors, __: Any, events: list[dict[str, Any]]) -> Any:
        await asyncio.get_running_loop().create_future()

    vendors.script.append(for_ever)
    await publish(stores, [event(0), event(1)])
    async with forwarding(stores, google(vendors, in_flight=1)) as engine:
        await until(lambda: bool(vendors.requests))
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    assert len(vendors.requests) == 2  # the first never again, the second once
    assert sample(stores, "forwarded_events_total", agent="google", result="doubtful") == 1
    assert sample(stores, "forwarded_events_total", agent="google", result="sent") == 1


async def test_what_was_not_sent_goes_although_the_group_reads_again_meanwhile(
    vendors: Vendors, stores: Stores
) -> None:
    async with forwarding(stores, google(vendors)) as engine:
        group = engine.groups[0]
        poster: Any = group._forwarders["google"]._sending._poster
        real, under_way, refused = poster.post, asyncio.Event(), asyncio.Event()

        async def post(request: Any) -> Any:
            poster.post = real
            under_way.set()
            await refused.wait()
            return NotSent("connection refused")

        poster.post = post
        await publish(stores, [event(0)])
        await under_way.wait()
        await group._start_over(Conflict(["a row"]))
        await publish(stores, [event(1)])  # the reader wakes up, and begins anew
        await until(lambda: group.reading.read_up_to > 0)
        for _ in range(20):
            await engine.tick()
        refused.set()
        await settled(engine)
    assert len(vendors.hits) == 2
    assert sample(stores, "forwarded_events_total", agent="google", result="doubtful") == 0


async def test_a_worker_that_was_taken_over_ends_in_good_order(vendors: Vendors, stores: Stores) -> None:
    async with forwarding(stores, google(vendors)) as engine:
        await publish(stores, [event(0)])
        await settled(engine)
        later = Reservations("google", "google", 9, stores.state, stores.outages)
        await later.load()
        await later.reserve([Position(99)])
    assert len(vendors.hits) == 1


async def test_a_vendor_that_refuses_everything_is_told_of_in_few_lines(
    vendors: Vendors, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    vendors.always = answers(422)
    await publish(stores, [event(number) for number in range(64)])
    async with forwarding(stores, webhook(vendors)) as engine:
        await settled(engine)
    assert outcomes(stores, "webhook") == {"dead": 64}
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 1


async def test_what_a_killed_process_left_in_doubt_is_told_of_in_few_lines(
    vendors: Vendors, stores: Stores, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "LAST_ANSWERS_S", 0.05)
    await publish(stores, [event(number) for number in range(200)])
    vendors.always = slow(60)
    async with forwarding(stores, google(vendors)) as engine:
        await until(lambda: len(vendors.requests) == 16)
        engine.give_up()
        for each in engine.groups[0]._forwarders.values():
            each._reservations = None  # a kill leaves it as it was
    vendors.always = None
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    assert sample(stores, "forwarded_events_total", agent="google", result="doubtful") == 200
    assert len([each for each in caplog.records if "may or may not" in each.getMessage()]) < 5
