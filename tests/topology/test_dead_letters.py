"""What every store of dead letters does, whatever keeps it."""

from __future__ import annotations

import pytest

from tests.topology.keeping import Kept, until_answered
from topology.errors import Unavailable
from topology.position import MAX_EPOCH, MAX_INDEX, MAX_OFFSET, NOWHERE, Position, position
from topology.sinks import DeadLetter

NOON = 1_771_243_200_000
LAST_POSITION = position(MAX_EPOCH, MAX_OFFSET, MAX_INDEX)


def letter(
    number: int,
    *,
    agent: str = "storage",
    at: Position | None = None,
    body: bytes = b"not JSON",
    length: int = 8,
) -> DeadLetter:
    at = position(1, number) if at is None else at
    return DeadLetter(
        id=f"{at}:{agent}",
        position=at,
        received=NOON + number,
        agent=agent,
        reason='malformed: "é" is not\n JSON',
        pointer="/bytes",
        body=body,
        length=length,
        sha256="ab" * 32,
    )


BODIES = {
    "text": b'{"bytes":-1}',
    "latin-1": '{"name":"é"}'.encode("latin-1"),
    "any bytes": bytes(range(256)),
    "empty": b"",
    "1 MiB": b"x" * (1 << 20),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_letter_comes_back_as_it_was_put(kept: Kept, body: bytes) -> None:
    put = letter(1, at=LAST_POSITION, agent="", body=body, length=5_000_000)
    await (await kept.dead_letters()).put([put])
    assert await (await kept.dead_letters()).get(put.id) == put


async def test_a_letter_that_is_not_there_is_none(kept: Kept) -> None:
    assert await (await kept.dead_letters()).get("0:storage") is None


async def test_a_letter_is_kept_once_and_as_it_was_first(kept: Kept) -> None:
    letters, other = await kept.dead_letters(), await kept.dead_letters()
    await letters.put([letter(1), letter(2)])
    again = letter(2)._replace(reason="seen again, a release later")
    await other.put([again, letter(3), again])
    await other.put([again])
    assert await letters.list(limit=10) == [letter(3), letter(2), letter(1)]
    assert await letters.count() == 3


async def test_two_agents_may_reject_the_same_event(kept: Kept) -> None:
    letters = await kept.dead_letters()
    both = [letter(1, agent="traffic"), letter(1, agent="storage")]
    await letters.put(both)
    assert await letters.list(limit=10) == both


async def test_the_newest_come_first_up_to_the_limit(kept: Kept) -> None:
    letters = await kept.dead_letters()
    positions = [position(0, 7), position(1, 3), LAST_POSITION, position(0, 7, 1), position(0, 30)]
    await letters.put([letter(number, at=at) for number, at in enumerate(positions)])
    newest = [found.position for found in await letters.list(limit=4)]
    assert newest == [LAST_POSITION, position(1, 3), position(0, 30), position(0, 7, 1)]
    assert await letters.count() == 5


async def test_page_after_page_shows_each_letter_once(kept: Kept) -> None:
    letters = await kept.dead_letters()
    # Points that a sink refused have no position, and one agent: only their ids tell them apart.
    points = [letter(0, at=NOWHERE, agent="influxdb")._replace(id=f"influxdb:{name}") for name in "cab"]
    events = [letter(2, agent="traffic"), letter(2, agent="storage"), letter(1, agent="traffic")]
    await letters.put([*points, *events])
    newest_first = [*events, points[0], points[2], points[1]]
    for limit in (1, 2, 4):
        seen: list[DeadLetter] = []
        while page := await letters.list(
            limit=limit, before=(seen[-1].position, seen[-1].agent, seen[-1].id) if seen else None
        ):
            seen += page
        assert seen == newest_first


async def test_what_is_removed_is_gone_and_nothing_else(kept: Kept) -> None:
    letters = await kept.dead_letters()
    await letters.put([letter(number) for number in range(4)])
    assert await letters.remove([letter(1).id, letter(3).id, "nobody"]) == 2
    assert await letters.remove([letter(1).id]) == 0
    assert await letters.remove([]) == 0
    assert await (await kept.dead_letters()).list(limit=10) == [letter(2), letter(0)]
    await letters.put([letter(1)])
    assert await letters.count() == 3


async def test_there_are_none_at_first(kept: Kept) -> None:
    letters = await kept.dead_letters()
    await letters.put([])
    assert await letters.list(limit=10) == []
    assert await letters.count() == 0


@pytest.mark.servers
async def test_away_and_back_with_a_lost_answer_each_letter_is_there_once(on_mongo: Kept) -> None:
    mongo = on_mongo.mongo
    assert mongo is not None
    letters = await until_answered(on_mongo.dead_letters)
    mongo.lose_answer("insert")
    with pytest.raises(Unavailable):
        await letters.put([letter(1)])
    mongo.stop()
    for call in (
        lambda: letters.put([letter(2)]),
        lambda: letters.list(limit=1),
        lambda: letters.get("1"),
        lambda: letters.remove(["1"]),
        letters.count,
    ):
        with pytest.raises(Unavailable):
            await call()
    mongo.start()
    await until_answered(lambda: letters.put([letter(1), letter(2)]))
    assert await letters.list(limit=10) == [letter(2), letter(1)]
