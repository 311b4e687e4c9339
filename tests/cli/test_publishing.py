from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

import pytest

from cli.publishing import Pace, checked, from_thread, last_time_ms, patiently, stamped
from schemas.reading import MAX_BODY_BYTES
from topology.errors import Unavailable
from topology.log import NDJSON

EVENT = b'{"type":"activity.logged_in","time":1795467600000}'


class Time:
    """A clock that only ``sleep`` moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def failing(times: int, retry_after: timedelta | None = None) -> Callable[[], Awaitable[None]]:
    left = times

    async def act() -> None:
        nonlocal left
        if left:
            left -= 1
            raise Unavailable("the broker is away", retry_after)

    return act


# -- packing --


def test_a_message_holds_up_to_a_hundred_lines_byte_for_byte() -> None:
    lines = [EVENT + b" " * (i % 3) for i in range(250)]
    (block,) = checked(io.BytesIO(b"\n".join(lines) + b"\n"), message_events=100, later_s=0)
    assert [each.events for each in block.packed] == [100, 100, 50]
    assert [each.first_line for each in block.packed] == [1, 101, 201]
    assert b"\n".join(each.body for each in block.packed).split(b"\n") == lines


def test_a_message_stays_under_the_size_at_which_it_would_be_a_dead_letter() -> None:
    long = EVENT[:-1] + b',"more":"' + b"x" * 400_000 + b'"}'
    packed = [
        each
        for block in checked(io.BytesIO(b"\n".join([long] * 5)), message_events=100, later_s=0)
        for each in block.packed
    ]
    assert sum(each.events for each in packed) == 5
    assert all(len(each.body) <= MAX_BODY_BYTES for each in packed)


def test_refused_lines_are_numbered_and_the_others_go_on() -> None:
    content = b"\n".join([EVENT, b"no json", b"", b"[]", EVENT, b"x" * (MAX_BODY_BYTES + 1)])
    found = list(checked(io.BytesIO(content), message_events=100, later_s=0))
    refused = [number for block in found for number, _ in block.refused]
    assert refused == [2, 4, 6]
    assert sum(each.events for block in found for each in block.packed) == 2


def test_each_message_is_stamped_with_an_id_of_its_own_and_its_arrival() -> None:
    (block,) = checked(io.BytesIO(b"\n".join([EVENT] * 3) + b"\n"), message_events=1, later_s=0)
    messages = stamped(block.packed, 1_795_467_600_000)
    assert len({message.event_id for message in messages}) == 3
    assert {(message.content_type, message.received_ms) for message in messages} == {
        (NDJSON, 1_795_467_600_000)
    }


def test_the_last_time_is_the_latest_not_that_of_the_last_line() -> None:
    lines = [EVENT.replace(b"600000", b"900000"), EVENT, b"nonsense", b'{"type":"activity.logged_in"}']
    assert last_time_ms(io.BytesIO(b"\n".join(lines))) == 1_795_467_900_000
    assert last_time_ms(io.BytesIO(b"nonsense")) is None


# -- patience --


async def test_a_log_that_comes_back_is_waited_for_with_growing_pauses() -> None:
    time = Time()
    told: list[Unavailable] = []
    await patiently(failing(6), waiting=told.append, sleep=time.sleep, clock=time)
    assert time.slept == [0.25, 0.5, 1, 2, 4, 4]
    assert len(told) == 1


async def test_patience_ends_after_thirty_seconds_with_the_last_error() -> None:
    time = Time()
    with pytest.raises(Unavailable, match="the broker is away"):
        await patiently(failing(10**6), waiting=lambda _: None, sleep=time.sleep, clock=time)
    assert time.now == 30


async def test_a_wish_of_the_server_is_honoured_within_patience() -> None:
    time = Time()
    await patiently(failing(1, timedelta(seconds=7)), waiting=lambda _: None, sleep=time.sleep, clock=time)
    assert time.slept == [7]
    time = Time()
    await patiently(failing(1, timedelta(hours=1)), waiting=lambda _: None, sleep=time.sleep, clock=time)
    assert time.slept == [30]


# -- pace --


async def test_the_rate_holds_over_the_whole_run() -> None:
    # 10 events at 4/s: the last of five pairs is due when eight went before it, after 2 s.
    time = Time()
    pace = Pace(4, sleep=time.sleep, clock=time)
    for _ in range(5):
        await pace.before(2)
    assert time.now == pytest.approx(2.0)


async def test_a_pause_elsewhere_is_not_added_to_the_waiting() -> None:
    time = Time()
    pace = Pace(1, sleep=time.sleep, clock=time)
    await pace.before(1)
    time.now += 0.75
    await pace.before(1)
    assert time.slept == [pytest.approx(0.25)]


# -- the thread --


async def test_items_come_in_order_and_errors_too() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    made = from_thread(items())
    assert [await anext(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="the disk is gone"):
        await anext(made)


async def test_no_more_than_two_items_are_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    async for item in from_thread(items()):
        await asyncio.sleep(0)
        assert len(made) <= item + 4
