from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.servers.vendors import WEBHOOK_SECRET, Vendors, answers, resets, serving, takes_and_resets
from tests.topology.engine import publish, unsynced
from tests.topology.forwarding.running import event, forwarding, outcomes, settled, until, webhook
from tests.topology.stores import Stores, opened


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with serving() as served:
        yield served


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as made:
        await unsynced(made)
        yield made


async def test_what_is_sent_is_signed_and_comes_again_under_the_same_id(
    vendors: Vendors, stores: Stores
) -> None:
    vendors.script.extend([answers(503), resets, takes_and_resets])
    await publish(stores, [event(n) for n in range(10)])
    async with forwarding(stores, webhook(vendors)) as engine:
        await settled(engine)
    assert sorted(vendors.hooked) == sorted(f"0/{n}/0" for n in range(10))
    for body, signature in vendors.bodies:
        made = hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
        assert signature == f"sha256={made}"
    assert vendors.bodies
    assert outcomes(stores, "webhook") == {"folded": 10}


async def test_a_receiver_that_knows_nothing_of_it_stops_the_agent(vendors: Vendors, stores: Stores) -> None:
    vendors.always = answers(401)
    await publish(stores, [event(0)])
    async with forwarding(stores, webhook(vendors)) as engine:
        await until(lambda: bool(engine.groups[0].stopped))
        assert "EVENTSINK_WEBHOOK_SECRET" in engine.groups[0].stopped["webhook"]
        assert "webhook-token" not in engine.groups[0].stopped["webhook"]


async def test_what_it_never_takes_is_a_dead_letter(vendors: Vendors, stores: Stores) -> None:
    vendors.script.append(answers(422))
    await publish(stores, [event(0)])
    async with forwarding(stores, webhook(vendors)) as engine:
        await settled(engine)
    assert outcomes(stores, "webhook") == {"dead": 1}
