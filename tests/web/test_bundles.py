"""What comes at the same time is one message, and everybody is told what became of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from schemas.events import FileUploaded
from schemas.reading import read_lines
from tests.web.serving import NOW_MS, PING, UPLOAD, Served
from topology.errors import Refused, Unavailable
from topology.log import JSON, NDJSON, Outgoing
from web.bundles import ARRIVED_WITHIN_MS, AT_ONCE, BUNDLE_BYTES, Bundles
from web.delivery import Durable


class Gate:
    """A delivery that takes nothing until it is told what becomes of a message."""

    durable: Durable = "broker"
    spooling = None

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []
        self._told: list[asyncio.Future[Durable]] = []

    async def deliver(self, message: Outgoing) -> Durable:
        self.messages.append(message)
        self._told.append(asyncio.get_running_loop().create_future())
        return await self._told[-1]

    def keep(self, number: int, where: Durable = "broker") -> None:
        self._told[number].set_result(where)

    def fail(self, number: int, error: Exception) -> None:
        self._told[number].set_exception(error)

    @property
    def bodies(self) -> Sequence[bytes]:
        return [message.body for message in self.messages]


class Clock:
    now = NOW_MS

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bundles(gate: Gate, clock: Clock) -> Bundles:
    return Bundles(gate, clock=clock)


async def turns() -> None:
    """Let everything that is ready go on."""
    for _ in range(10):
        await asyncio.sleep(0)


def comes(bundles: Bundles, *bodies: bytes, kind: str = JSON) -> list[asyncio.Task[Durable]]:
    return [asyncio.create_task(bundles.deliver(body, kind)) for body in bodies]


async def test_a_request_alone_is_a_message_in_its_bytes(bundles: Bundles, gate: Gate) -> None:
    (request,) = comes(bundles, UPLOAD)
    await turns()
    (message,) = gate.messages
    assert (message.body, message.content_type, message.received_ms) == (UPLOAD, JSON, NOW_MS)
    assert not request.done()
    gate.keep(0, "spool")
    assert await request == "spool"


async def test_requests_of_one_turn_are_one_message_and_are_answered_when_that_is_durable(
    bundles: Bundles, gate: Gate
) -> None:
    requests = comes(bundles, UPLOAD, PING) + comes(bundles, PING + b"\n" + UPLOAD, kind=NDJSON)
    await turns()
    (message,) = gate.messages
    assert message.body.split(b"\n") == [UPLOAD, PING, PING, UPLOAD]
    assert message.content_type == NDJSON
    assert not any(request.done() for request in requests)
    gate.keep(0)
    assert await asyncio.gather(*requests) == ["broker"] * 3


async def test_who_comes_while_enough_is_on_its_way_is_gathered_until_some_of_it_is_durable(
    bundles: Bundles, gate: Gate
) -> None:
    for _ in range(AT_ONCE):
        comes(bundles, UPLOAD)
        await turns()
    waiting = []
    for _ in range(3):
        waiting += comes(bundles, PING)
        await turns()
    assert gate.bodies == [UPLOAD] * AT_ONCE
    gate.keep(0)
    await turns()
    assert gate.bodies[AT_ONCE:] == [b"\n".join([PING] * 3)]
    gate.keep(1)
    gate.keep(AT_ONCE, "spool")
    assert await asyncio.gather(*waiting) == ["spool"] * 3


async def test_every_message_has_a_stamp_of_its_own(bundles: Bundles, gate: Gate) -> None:
    for _ in range(AT_ONCE):
        comes(bundles, UPLOAD)
        await turns()
    assert len({message.event_id for message in gate.messages}) == AT_ONCE


async def test_what_has_come_at_another_time_is_another_message(
    bundles: Bundles, gate: Gate, clock: Clock
) -> None:
    # in flight: as much as there may be    10 ms later: the same time    11 ms: another one
    for _ in range(AT_ONCE):
        comes(bundles, UPLOAD)
        await turns()
    comes(bundles, PING)
    await turns()
    clock.now += ARRIVED_WITHIN_MS
    comes(bundles, PING)
    await turns()
    assert len(gate.messages) == AT_ONCE
    clock.now += 1
    comes(bundles, UPLOAD)
    await turns()
    assert gate.messages[AT_ONCE][:2] == (PING + b"\n" + PING, NDJSON)
    assert gate.messages[AT_ONCE].received_ms == NOW_MS
    gate.keep(0)
    gate.keep(1)
    await turns()
    assert gate.messages[AT_ONCE + 1].received_ms == clock.now


async def test_much_is_not_gathered_but_handed_on_at_once(bundles: Bundles, gate: Gate) -> None:
    # So what waits in memory is within the bounds of the delivery.
    large = b"x" * BUNDLE_BYTES
    for _ in range(AT_ONCE + 5):
        comes(bundles, large)
        await turns()
    assert gate.bodies == [large] * (AT_ONCE + 5)


async def test_an_event_on_several_lines_is_a_message_by_itself(bundles: Bundles, gate: Gate) -> None:
    spread = UPLOAD.replace(b",", b",\n")
    comes(bundles, UPLOAD, spread, PING)
    await turns()
    assert sorted(message[:2] for message in gate.messages) == sorted(
        [(spread, JSON), (UPLOAD + b"\n" + PING, NDJSON)]
    )


async def test_of_what_is_refused_together_each_is_tried_by_itself(bundles: Bundles, gate: Gate) -> None:
    first, second = comes(bundles, UPLOAD, PING)
    await turns()
    gate.fail(0, Refused("the broker takes no message of 150 bytes: send at most 80"))
    await turns()
    assert gate.bodies[1:] == [UPLOAD, PING]
    assert len({message.event_id for message in gate.messages}) == 3
    gate.keep(1)
    gate.fail(2, Refused("the broker takes no message of 90 bytes: send at most 80"))
    assert await first == "broker"
    with pytest.raises(Refused, match="90 bytes"):
        await second


async def test_what_cannot_be_kept_is_said_to_everybody_who_waits(bundles: Bundles, gate: Gate) -> None:
    requests = comes(bundles, UPLOAD, PING)
    await turns()
    gate.fail(0, Unavailable("the spool is full"))
    said = await asyncio.gather(*requests, return_exceptions=True)
    assert [str(each) for each in said] == ["the spool is full"] * 2
    comes(bundles, UPLOAD)
    await turns()
    assert len(gate.messages) == 2


async def test_a_request_that_goes_takes_no_other_with_it(bundles: Bundles, gate: Gate) -> None:
    gone, stays = comes(bundles, UPLOAD, PING)
    await turns()
    gone.cancel()
    await turns()
    gate.keep(0)
    assert await stays == "broker"
    assert gone.cancelled()


async def test_of_many_requests_at_once_every_event_is_in_the_log_once(app: Served) -> None:
    sent = [f"f{number}" for number in range(200)]
    bodies = [b'{"type":"storage.file_uploaded","file_id":"%b","bytes":7}' % name.encode() for name in sent]
    answers = await asyncio.gather(*[app.post(body) for body in bodies])
    assert {answer.status for answer in answers} == {202}
    messages = await app.published()
    events = [event for message in messages for _, event in read_lines(message.body)]
    came = [event.file_id for event in events if isinstance(event, FileUploaded)]
    assert Counter(came) == Counter(sent)
    assert len(events) == len(sent)
    assert len(messages) < len(sent)
