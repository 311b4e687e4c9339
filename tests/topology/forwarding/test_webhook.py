from __future__ import annotations

import hashlib
import hmac

import pytest

from agents.webhook import Webhook
from tests.servers.vendors import WEBHOOK_SECRET, Vendors, answers, resets, takes_and_resets
from tests.topology.engine import publish
from tests.topology.forwarding.running import event, forwarding, outcomes, settled, until, webhook
from tests.topology.stores import Stores
from topology.forwarding.posting import Poster


async def test_what_is_sent_is_signed_and_comes_again_under_the_same_id(
    vendors: Vendors, stores: Stores
) -> None:
    vendors.script.extend([answers(503), resets, takes_and_resets])
    await publish(stores, [event(n) for n in range(10)])
    async with forwarding(stores, webhook(vendors)) as engine:
        await settled(engine)
    assert sorted(vendors.hooked) == sorted(f"0/{n}/0-{event(n)['time']}" for n in range(10))
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


async def test_a_token_is_seen_nowhere_although_the_receiver_repeats_it(
    vendors: Vendors, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    path, query, password = "hook-0123456789abcdef", "query%2Ftoken", "pass-word"
    url = vendors.url.replace("://", f"://someone:{password}@") + f"/{path}?token={query}"
    vendor = Webhook(url, WEBHOOK_SECRET)
    assert path not in vendor.where
    async with forwarding(stores, vendor) as engine:
        await publish(stores, [event(0)])
        await until(lambda: bool(engine.groups[0].stopped))  # there is nothing: 404
        said = engine.groups[0].stopped["webhook"]
    repeated = f"404: no hook {path}, token query/token or {query} of {password}"
    answer = Poster(vendor.limits, vendor.secrets, lambda: 0)
    try:
        cleaned = answer._clean(ValueError(repeated))
    finally:
        await answer.close()
    for secret in (path, query, "query/token", password):
        assert secret not in vendor.where + said + cleaned + caplog.text
