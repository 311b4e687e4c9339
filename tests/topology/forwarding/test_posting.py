from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.servers.vendors import Vendors, said
from topology.forwarding import posting
from topology.forwarding.posting import NotSent, Poster, Unanswered
from topology.forwarding.vendor import Answer, Limits, Request

LIMITS = Limits(events=1, bytes=1000, timeout_s=30.0)
#: For those who do not answer: nobody else is to be asked with it, as a busy machine takes longer now and then.
IMPATIENT = Limits(events=1, bytes=1000, timeout_s=0.2)


@asynccontextmanager
async def posting_to_vendors(*secrets: str, limits: Limits = LIMITS) -> AsyncIterator[Poster]:
    poster = Poster(limits, secrets, lambda: 7)
    try:
        yield poster
    finally:
        await poster.close()


def request(url: str) -> Request:
    return Request(url=url, body=b'{"events":[]}', headers={"Content-Type": "application/json"})


async def test_a_name_that_takes_too_long_to_look_up_was_not_sent() -> None:
    url = "http://vendor.invalid/"
    async with posting_to_vendors(limits=IMPATIENT) as poster:
        resolver: Any = poster._session.connector
        resolver._resolve_host = _for_ever
        assert isinstance(await poster.post(request(url)), NotSent)


async def test_an_answer_that_does_not_come_was_sent_all_the_same(vendors: Vendors) -> None:
    vendors.always = _for_ever
    async with posting_to_vendors(limits=Limits(events=1, bytes=1000, timeout_s=1.0)) as poster:
        assert isinstance(await poster.post(request(f"{vendors.url}/hook")), Unanswered)


async def test_an_answer_without_an_end_is_read_in_part(
    vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def long(_: Vendors, __: Any, events: list[dict[str, Any]]) -> Any:
        return said(500, error="x" * 1_000_000)

    monkeypatch.setattr(posting, "MAX_ANSWER_BYTES", 1000)
    vendors.always = long
    async with posting_to_vendors() as poster:
        answer = await poster.post(request(f"{vendors.url}/hook"))
    assert isinstance(answer, Answer)
    assert len(answer.body) == 1000
    assert (answer.status, answer.received_ms) == (500, 7)


async def test_a_secret_that_is_answered_is_not_seen(vendors: Vendors) -> None:
    async def repeats(_: Vendors, __: Any, events: list[dict[str, Any]]) -> Any:
        return said(400, error="who is a-secret-key?")

    vendors.always = repeats
    async with posting_to_vendors("a-secret-key") as poster:
        answer = await poster.post(request(f"{vendors.url}/hook"))
    assert isinstance(answer, Answer)
    assert answer.words == "400 (who is ***?)"


async def _for_ever(*_: Any, **__: Any) -> Any:
    await asyncio.get_running_loop().create_future()
