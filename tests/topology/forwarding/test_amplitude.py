"""Amplitude's answers, each as its documentation has it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.servers.vendors import (
    Script,
    Vendors,
    answers,
    resets,
    said,
    slow,
    takes_and_breaks_off,
    takes_and_resets,
)
from tests.topology.engine import publish
from tests.topology.forwarding.running import (
    amplitude,
    event,
    forwarding,
    outcomes,
    sample,
    settled,
    until,
    user_id,
)
from tests.topology.stores import Stores, opened
from topology.forwarding.selection import Rule, Selection


def resources(vendors: Vendors) -> list[int]:
    """Numbers of the events that count, in order."""
    return sorted(int(each["event_properties"]["resource_id"], 16) for each in vendors.events.values())


async def test_events_arrive_in_its_shape(vendors: Vendors, stores: Stores) -> None:
    await publish(stores, [event(7, user="5f3a1c2b9d8e7f6a5b4c3d2e", bytes=3, space_id="s1", source="prod")])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    [(path, _, document)] = vendors.requests
    assert path == "/batch"
    assert document["options"] == {"min_id_length": 5}
    [sent] = document["events"]
    assert sent["device_id"].startswith("eventsink-")
    assert sent["insert_id"] == f"eventsink-0/0/0-{event(7)['time']}"
    assert sent["time"] == event(7)["time"]
    assert (sent["event_type"], sent["user_id"]) == ("traffic.resource_viewed", "5f3a1c2b9d8e7f6a5b4c3d2e")
    assert sent["event_properties"] == {
        "source": "prod",
        "resource_type": "dataset",
        "resource_id": f"{7:024x}",
        "space_id": "s1",
    }
    assert outcomes(stores, "amplitude") == {"folded": 1}


@pytest.mark.parametrize("user", ["0" * 24, "anonymous", "none", "0", "-1", "Unknown", ""])
async def test_whoever_is_not_known_is_a_device_of_ours(vendors: Vendors, stores: Stores, user: str) -> None:
    await publish(stores, [event(1, user=user)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    [sent] = vendors.events.values()
    assert "user_id" not in sent
    assert len(sent["device_id"]) >= 5


async def test_names_and_addresses_stay(vendors: Vendors, stores: Stores) -> None:
    view = {
        "category": "view_resource",
        "type": "dataset",
        "resource_id": "5f3a1c2b9d8e7f6a5b4c3d2e",
        "resource_name": "Secret Title",
        "author_name": "Ada Author",
        "author_id": "5f3a1c2b9d8e7f6a5b4c3d2f",
        "user_id": "ada@example.org",
        "user_name": "Ada Author",
        "created": event(0)["time"],
    }
    page = {
        "type": "traffic.page_viewed",
        "url": "https://clowder.example/users/ada/datasets/5f3a1c2b9d8e7f6a5b4c3d2e?q=Secret#Title",
    }
    named = event(1, user="Ada Author", resource_id="Secret Title.csv")
    await publish(stores, [view, page, named])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    sent = str([request[2] for request in vendors.requests]).lower()
    assert "ada" not in sent
    assert "secret" not in sent
    assert "title" not in sent
    assert "clowder.example/users/*/datasets/5f3a1c2b9d8e7f6a5b4c3d2e" in sent
    assert len(vendors.events) == 3


async def test_what_is_not_to_go_out_is_counted_by_its_reason(vendors: Vendors, stores: Stores) -> None:
    health = {"type": "health.pinged", "service": "s", "region": "r", "up": True}
    foreign = {"category": "user_activity", "type": "login", "user_id": "abcdef", "consent": False}
    await publish(
        stores,
        [
            health,
            event(1, consent=False),
            event(2, consent=True),
            foreign,
            *[event(number, user=f"person-{number}") for number in range(100, 300)],
        ],
    )
    selection = Selection((Rule("traffic.*", 0.5), Rule("activity.*")))
    async with forwarding(stores, amplitude(vendors), selection) as engine:
        await settled(engine)

    def ignored(reason: str) -> float:
        return sample(stores, "forward_ignored_events_total", agent="amplitude", reason=reason)

    assert (ignored("type"), ignored("consent")) == (1, 2)
    assert 60 < ignored("sample") < 140
    counts = outcomes(stores, "amplitude")
    assert counts["ignored"] == ignored("type") + ignored("consent") + ignored("sample")
    assert counts["folded"] == len(vendors.events)


async def test_only_those_that_are_listed_become_dead_letters(vendors: Vendors, stores: Stores) -> None:
    # The second answer shows that the first list was incomplete.
    vendors.script.extend(
        [
            answers(
                400,
                code=400,
                error="Request missing required field",
                events_with_invalid_fields={"time": [1]},
                events_with_missing_fields={"event_type": [2]},
                events_with_invalid_id_lengths={"user_id": [3]},
                silenced_events=[4],
            ),
            answers(400, code=400, error="x", events_with_invalid_fields={"time": [0]}),
        ]
    )
    await publish(stores, [event(number) for number in range(8)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert resources(vendors) == [5, 6, 7]
    letters = await stores.dead_letters.list(limit=10)
    assert sorted(letter.position >> 17 for letter in letters) == [0, 1, 2, 3, 4]
    assert {letter.agent for letter in letters} == {"amplitude"}
    assert outcomes(stores, "amplitude") == {"folded": 3, "dead": 5}


async def test_a_refusal_without_a_list_is_found_by_halving(vendors: Vendors, stores: Stores) -> None:
    async def hates_five(_: Vendors, __: Any, events: list[dict[str, Any]]) -> Any:
        if any(each["event_properties"]["resource_id"] == f"{5:024x}" for each in events):
            return said(400, code=400, error="Something is wrong")
        return None

    vendors.always = hates_five
    await publish(stores, [event(number) for number in range(8)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert resources(vendors) == [0, 1, 2, 3, 4, 6, 7]
    assert outcomes(stores, "amplitude") == {"folded": 7, "dead": 1}


async def test_what_is_too_large_is_halved_and_a_single_one_is_dead(vendors: Vendors, stores: Stores) -> None:
    vendors.max_bytes = 900
    await publish(stores, [*[event(number) for number in range(8)], event(8, space_id="s" * 250, job_id="j")])
    large = {"type": "extraction.submitted", "job_id": "j" * 256, "extractor": "e" * 256, "source": "s" * 256}
    await publish(stores, [large | {"resource_id": "r" * 256, "resource_type": "t" * 200}])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert resources(vendors) == list(range(9))
    assert outcomes(stores, "amplitude") == {"folded": 9, "dead": 1}


@pytest.mark.parametrize(
    "answer",
    [
        answers(400, code=400, error="Invalid API key"),
        answers(403, code=403, error="Forbidden"),
        answers(401),
    ],
)
async def test_a_wrong_key_stops_the_agent_and_keeps_the_events(
    vendors: Vendors, stores: Stores, answer: Script
) -> None:
    vendors.always = answer
    await publish(stores, [event(number) for number in range(3)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await until(lambda: bool(engine.groups[0].stopped))
        assert "EVENTSINK_AMPLITUDE_API_KEY" in engine.groups[0].stopped["amplitude"]
        assert sample(stores, "agent_up", agent="amplitude") == 0
        failed = engine.groups[0].failed
        assert failed is not None
        assert not failed.done()
        requests = len(vendors.requests)
        await publish(stores, [event(3)])
        await engine.checkpoint()
        assert len(vendors.requests) == requests
    vendors.always = None
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert resources(vendors) == [0, 1, 2, 3]


@pytest.mark.parametrize("status", [404, 405, 407, 410])
async def test_a_wrong_address_stops_the_agent_and_buries_nothing(
    vendors: Vendors, stores: Stores, status: int
) -> None:
    vendors.always = answers(status)
    await publish(stores, [event(number) for number in range(3)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await until(lambda: bool(engine.groups[0].stopped))
        assert "EVENTSINK_AMPLITUDE_URL" in engine.groups[0].stopped["amplitude"]
    assert await stores.dead_letters.count() == 0
    vendors.always = None
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert resources(vendors) == [0, 1, 2]


async def test_only_throttled_users_wait(vendors: Vendors, stores: Stores) -> None:
    vendors.script.append(
        answers(
            429,
            code=429,
            error="Too many requests for some devices and users",
            eps_threshold=1000,
            throttled_users={user_id(1): 1001},
            throttled_devices={},
            throttled_events=[3],
        )
    )
    await publish(stores, [event(0), event(1), event(2), event(3)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await until(lambda: len(vendors.events) == 2)
        assert resources(vendors) == [0, 2]
        # Of the next batch, too, only that user's wait.
        await publish(stores, [event(51), event(4)])
        await until(lambda: len(vendors.events) == 3)
        assert resources(vendors) == [0, 2, 4]
        assert engine.groups[0].reading.lowest == -1  # the position waits for the first that is held
        await settled(engine)
    assert resources(vendors) == [0, 1, 2, 3, 4, 51]
    assert outcomes(stores, "amplitude") == {"folded": 6}


async def test_users_over_their_daily_quota_wait(vendors: Vendors, stores: Stores) -> None:
    vendors.script.append(answers(429, code=429, error="x", exceeded_daily_quota_users={user_id(0): 5}))
    await publish(stores, [event(0), event(1)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await until(lambda: resources(vendors) == [1])
        await settled(engine)
    assert resources(vendors) == [0, 1]


@pytest.mark.parametrize(
    "fault",
    [
        answers(408),
        answers(500),
        answers(502, error="bad gateway"),
        answers(503, headers={"Retry-After": "3"}),
        answers(429, code=429, error="Too many requests"),
        answers(301, headers={"Location": "/elsewhere"}),
        answers(200, hello="a captive portal"),
        resets,
        takes_and_resets,
        takes_and_breaks_off,
        slow(0.5),
    ],
)
async def test_whatever_comes_between_each_event_counts_once(
    vendors: Vendors, stores: Stores, fault: Script
) -> None:
    vendors.script.extend([fault, fault])
    await publish(stores, [event(number) for number in range(20)])
    async with forwarding(stores, amplitude(vendors, events=7, timeout_s=0.2)) as engine:
        await settled(engine)
    assert resources(vendors) == list(range(20))
    assert outcomes(stores, "amplitude") == {"folded": 20}
    assert await stores.dead_letters.count() == 0


async def test_a_request_that_is_reset_in_its_middle_goes_again(vendors: Vendors, stores: Stores) -> None:
    vendors.cuts = 3
    await publish(stores, [event(number) for number in range(1500)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert vendors.cuts == 0
    assert resources(vendors) == list(range(1500))
    assert set(vendors.counted.values()) == {1}


async def test_events_of_a_log_that_begins_anew_are_not_taken_for_the_old_ones(
    vendors: Vendors, tmp_path: Path
) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        async with opened(tmp_path / str(number)) as stores:
            await publish(stores, [event(number, user=user_id(0))])
            async with forwarding(stores, amplitude(vendors)) as engine:
                await settled(engine)
    assert resources(vendors) == [1, 2]


async def test_retry_after_is_honoured(vendors: Vendors, stores: Stores) -> None:
    loop = asyncio.get_running_loop()
    asked: list[float] = []

    async def busy(_: Vendors, __: Any, events: list[dict[str, Any]]) -> Any:
        asked.append(loop.time())
        return said(503, headers={"Retry-After": "40"}) if len(asked) == 1 else None

    vendors.always = busy
    await publish(stores, [event(0)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert asked[1] - asked[0] >= 0.4  # a hundred times as fast


async def test_the_older_endpoint_is_sent_less_at_once(vendors: Vendors, stores: Stores) -> None:
    await publish(stores, [event(number) for number in range(2500)])
    async with forwarding(stores, amplitude(vendors, path="/2/httpapi")) as engine:
        await settled(engine)
    assert {path for path, _, _ in vendors.requests} == {"/2/httpapi"}
    assert max(len(document["events"]) for _, _, document in vendors.requests) <= 1000
    assert len(vendors.events) == 2500


async def test_no_more_requests_are_under_way_than_allowed(vendors: Vendors, stores: Stores) -> None:
    vendors.always = slow(0.02)
    await publish(stores, [event(number) for number in range(60)])
    async with forwarding(stores, amplitude(vendors, events=5, in_flight=3)) as engine:
        await settled(engine)
    assert vendors.most_at_once == 3


async def test_a_crash_sends_again_and_counts_once(vendors: Vendors, stores: Stores) -> None:
    await publish(stores, [event(number) for number in range(30)])
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
        await engine.crash()
    async with forwarding(stores, amplitude(vendors)) as engine:
        await settled(engine)
    assert sum(len(document["events"]) for _, _, document in vendors.requests) == 60
    assert resources(vendors) == list(range(30))
    assert set(vendors.counted.values()) == {1}


@pytest.mark.timeout(240)
async def test_ten_thousand_events_under_random_faults_count_once_each(
    vendors: Vendors, stores: Stores
) -> None:
    chance = random.Random(7)
    seen: Counter[str] = Counter()
    faults = [
        answers(500),
        answers(503, headers={"Retry-After": "1"}),
        answers(408),
        answers(413),
        resets,
        takes_and_resets,
        takes_and_breaks_off,
        slow(0.01),
    ]

    async def fate(served: Vendors, request: Any, events: list[dict[str, Any]]) -> Any:
        if chance.random() < 0.1:
            served.cuts += 1  # the next one, in its middle
        if chance.random() < 0.4:
            number = chance.randrange(len(faults) + 1)
            seen[str(number)] += 1
            if number == len(faults):
                user = events[0]["user_id"]
                return said(429, code=429, error="x", throttled_users={user: 2000}, throttled_events=[0])
            if faults[number] is not faults[3] or len(events) > 1:  # a single one would be dead
                return await faults[number](served, request, events)
        return None

    vendors.always = fate
    for first in range(0, 10_000, 2000):
        await publish(stores, [event(number) for number in range(first, first + 2000)])
    async with forwarding(stores, amplitude(vendors, events=200)) as engine:
        await settled(engine)
    assert resources(vendors) == list(range(10_000))
    assert set(vendors.counted.values()) == {1}
    assert outcomes(stores, "amplitude") == {"folded": 10_000}
    assert len(seen) == len(faults) + 1
