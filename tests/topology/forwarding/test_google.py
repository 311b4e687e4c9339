"""Google Analytics knows nothing again: nothing is sent twice that may have arrived, and nothing is lost in silence."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from agents.google import name
from tests.servers.vendors import (
    GA_ID,
    GA_SECRET,
    Script,
    Vendors,
    answers,
    resets,
    said,
    slow,
    takes_and_breaks_off,
    takes_and_resets,
)
from tests.topology.engine import NOW_MS, publish
from tests.topology.forwarding.running import (
    event,
    forwarding,
    google,
    outcomes,
    sample,
    settled,
    until,
    user_id,
)
from tests.topology.stores import Stores

HOUR_MS = 3_600_000


def hits(vendors: Vendors) -> Counter[int]:
    """How often each event counts there."""
    return Counter(int(hit["events"][0]["params"]["resource_id"], 16) for hit in vendors.hits)


async def test_events_arrive_in_its_shape(vendors: Vendors, stores: Stores) -> None:
    await publish(stores, [event(7, user="5f3a1c2b9d8e7f6a5b4c3d2e", source="s" * 200)])
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    [(path, _, document)] = vendors.requests
    assert path == f"/mp/collect?measurement_id={GA_ID}&api_secret={GA_SECRET}"
    assert document["user_id"] == "5f3a1c2b9d8e7f6a5b4c3d2e"
    assert document["timestamp_micros"] == (NOW_MS + 7) * 1000
    [sent] = document["events"]
    assert sent["name"] == "traffic_resource_viewed"
    assert sent["params"]["installation"] == "s" * 100
    assert sent["params"]["session_id"].isdigit()
    assert sent["params"]["engagement_time_msec"] > 0
    assert outcomes(stores, "google") == {"folded": 1}


async def test_a_request_is_of_one_client_and_a_client_stays_the_same(
    vendors: Vendors, stores: Stores
) -> None:
    same = {"time": NOW_MS}
    await publish(stores, [event(n, user=user_id(n % 3), **same) for n in range(90)])
    await publish(stores, [event(100, user="0" * 24)])
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    clients: dict[str | None, str] = {}
    for _, _, document in vendors.requests:
        assert len(document["events"]) <= 25
        assert clients.setdefault(document.get("user_id"), document["client_id"]) == document["client_id"]
    assert set(clients) == {user_id(0), user_id(1), user_id(2), None}
    assert len(set(clients.values())) == 4
    assert len(vendors.requests) <= 10  # those of one client go together


async def test_what_is_older_than_72_hours_is_counted_and_not_sent(vendors: Vendors, stores: Stores) -> None:
    await publish(stores, [event(1, time=NOW_MS - 73 * HOUR_MS), event(2, time=NOW_MS - 71 * HOUR_MS)])
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    assert hits(vendors) == {2: 1}
    assert outcomes(stores, "google") == {"folded": 1, "ignored": 1}
    assert sample(stores, "forward_ignored_events_total", agent="google", reason="too_old") == 1


async def test_what_grows_too_old_while_the_vendor_is_away_is_not_sent(
    vendors: Vendors, stores: Stores
) -> None:
    url, vendors.url = vendors.url, "http://127.0.0.1:1"
    vendor: Any = google(vendors)
    await publish(stores, [event(1)])
    async with forwarding(stores, vendor) as engine:
        await until(lambda: sample(stores, "forward_requests_total", agent="google", verdict="later") > 1)
        engine.now_ms += 73 * HOUR_MS
        vendor.where = f"{url}/mp/collect"
        await settled(engine)
    assert not vendors.hits
    assert outcomes(stores, "google") == {"ignored": 1}


async def test_what_was_not_sent_is_tried_again(vendors: Vendors, stores: Stores) -> None:
    url, vendors.url = vendors.url, "http://127.0.0.1:1"
    vendor: Any = google(vendors)
    await publish(stores, [event(n) for n in range(5)])
    async with forwarding(stores, vendor) as engine:
        await until(lambda: sample(stores, "forward_breaker_open", agent="google") == 1)
        vendor.where = f"{url}/mp/collect"
        await settled(engine)
        assert sample(stores, "forward_breaker_open", agent="google") == 0
    assert hits(vendors) == dict.fromkeys(range(5), 1)
    assert sample(stores, "forwarded_events_total", agent="google", result="doubtful") == 0


@pytest.mark.parametrize(
    ("fault", "arrived"),
    [
        (answers(500), False),
        (answers(429, headers={"Retry-After": "1"}), False),
        (answers(400), False),
        (resets, False),
        (takes_and_resets, True),
        (slow(3.0), True),
    ],
)
async def test_what_may_have_arrived_is_not_sent_again_and_counted_as_doubtful(
    vendors: Vendors, stores: Stores, fault: Script, arrived: bool
) -> None:
    vendors.script.append(fault)
    await publish(stores, [event(0), event(1)])
    async with forwarding(stores, google(vendors, in_flight=1, timeout_s=1.0)) as engine:
        await settled(engine)
    assert sorted(hits(vendors).items()) == ([(0, 1), (1, 1)] if arrived else [(1, 1)])
    assert len(vendors.requests) == 2
    assert sample(stores, "forwarded_events_total", agent="google", result="doubtful") == 1
    assert outcomes(stores, "google") == {"folded": 2}


async def test_a_request_that_is_reset_in_its_middle_is_not_sent_again(
    vendors: Vendors, stores: Stores
) -> None:
    vendors.cuts = 1
    await publish(stores, [event(0), event(1)])
    async with forwarding(stores, google(vendors, in_flight=1)) as engine:
        await settled(engine)
    assert hits(vendors) == {1: 1}
    assert sample(stores, "forwarded_events_total", agent="google", result="doubtful") == 1


async def test_an_answer_that_breaks_off_is_an_answer(vendors: Vendors, stores: Stores) -> None:
    vendors.script.append(takes_and_breaks_off)
    await publish(stores, [event(0)])
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    assert hits(vendors) == {0: 1}
    assert sample(stores, "forwarded_events_total", agent="google", result="sent") == 1


async def test_what_was_on_its_way_at_a_crash_is_not_sent_again(vendors: Vendors, stores: Stores) -> None:
    await publish(stores, [event(n) for n in range(20)])
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
        engine.give_up()
        # A kill leaves the reservation as it was; an end in good order would mend it.
        for forwarder in engine.groups[0]._forwarders.values():
            forwarder._reservations = None
    await publish(stores, [event(n) for n in range(20, 25)])
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    assert hits(vendors) == dict.fromkeys(range(25), 1)
    assert sample(stores, "forwarded_events_total", agent="google", result="doubtful") == 20


async def test_an_end_in_good_order_sends_the_rest_later_and_leaves_nothing_in_doubt(
    vendors: Vendors, stores: Stores
) -> None:
    url, vendors.url = vendors.url, "http://127.0.0.1:1"
    await publish(stores, [event(n) for n in range(5)])
    async with forwarding(stores, google(vendors)) as engine:
        await until(lambda: sample(stores, "forward_requests_total", agent="google", verdict="later") > 0)
        assert engine.groups[0].reading.lowest == -1
    vendors.url = url
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    assert hits(vendors) == dict.fromkeys(range(5), 1)
    assert sample(stores, "forwarded_events_total", agent="google", result="doubtful") == 0


async def test_every_shape_is_validated_at_the_start(vendors: Vendors, stores: Stores) -> None:
    await publish(stores, [event(0)])
    async with forwarding(stores, google(vendors, validate=True)) as engine:
        await settled(engine)
        assert not engine.groups[0].stopped
    tried = [document for path, _, document in vendors.requests if path.startswith("/debug/")]
    assert len(tried) == 17  # every type but health
    assert hits(vendors) == {0: 1}


async def test_a_shape_that_is_refused_stops_the_agent(vendors: Vendors, stores: Stores) -> None:
    vendors.script.append(
        answers(200, validationMessages=[{"fieldPath": "events", "description": "no", "validationCode": "X"}])
    )
    await publish(stores, [event(0)])
    async with forwarding(stores, google(vendors, validate=True)) as engine:
        await until(lambda: bool(engine.groups[0].stopped))
        assert "events: no" in engine.groups[0].stopped["google"]
    assert not vendors.hits


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("traffic.resource_viewed", "traffic_resource_viewed"),
        ("session_start", "es_session_start"),
        ("ga_x", "es_ga_x"),
        ("_x", "es__x"),
        ("1x", "es_1x"),
        ("gtag.x", "es_gtag_x"),
        ("x" * 50, "x" * 40),
    ],
)
def test_names_are_made_valid(given: str, made: str) -> None:
    assert name(given) == made


@pytest.mark.timeout(240)
async def test_ten_thousand_events_under_random_faults_none_twice_none_lost_in_silence(
    vendors: Vendors, stores: Stores
) -> None:
    chance = random.Random(11)
    faults = [answers(500), answers(503), resets, takes_and_resets, takes_and_breaks_off, slow(0.002)]

    async def fate(served: Vendors, request: Any, events: list[dict[str, Any]]) -> Any:
        if chance.random() < 0.05:
            return await chance.choice(faults)(served, request, events)
        return None

    vendors.always = fate
    for first in range(0, 10_000, 2000):
        await publish(
            stores,
            [event(n, user=f"someone-{n // 20}", time=NOW_MS + n // 20) for n in range(first, first + 2000)],
        )
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    counted = hits(vendors)
    assert set(counted.values()) == {1}
    sent = sum(len(document["events"]) for _, _, document in vendors.requests)
    assert sent == 10_000
    doubtful = sample(stores, "forwarded_events_total", agent="google", result="doubtful")
    surely = sample(stores, "forwarded_events_total", agent="google", result="sent")
    assert doubtful + surely == 10_000
    assert 10_000 - len(counted) <= doubtful
    assert outcomes(stores, "google") == {"folded": 10_000}


async def test_a_refusal_of_everything_stops_the_agent_and_keeps_what_was_answered(
    vendors: Vendors, stores: Stores
) -> None:
    async def forbidden(_: Vendors, __: Any, events: list[dict[str, Any]]) -> Any:
        return said(403)

    vendors.always = forbidden
    await publish(stores, [event(n) for n in range(3)])
    async with forwarding(stores, google(vendors, in_flight=1)) as engine:
        await until(lambda: bool(engine.groups[0].stopped))
        await until(lambda: len(vendors.requests) >= 1)
    vendors.always = None
    kept = await stores.dead_letters.count()
    async with forwarding(stores, google(vendors)) as engine:
        await settled(engine)
    assert len(hits(vendors)) + kept == 3
