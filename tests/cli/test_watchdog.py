"""A loop that is blocked is told of by another thread, once, with the place."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cli import watchdog
from cli.watchdog import BLOCKED_AFTER_S, LOOK_EVERY_S, Watchdog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_is_told_once_at_the_second_look(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog(threading.get_ident(), clock)
    clock.now += BLOCKED_AFTER_S
    dog.look()
    assert not caplog.records
    clock.now += LOOK_EVERY_S
    dog.look()
    dog.look()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "test_it_is_told_once_at_the_second_look" in vars(record)["stack"]
    dog.ticked()
    assert caplog.records[-1].getMessage() == "the event loop turns again"


def test_a_loop_that_turns_is_not_told_of(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog(threading.get_ident(), clock)
    for _ in range(20):
        clock.now += LOOK_EVERY_S
        dog.ticked()
        dog.look()
    # The machine slept, and this thread is awake first.
    clock.now += 3600
    dog.look()
    dog.ticked()
    dog.look()
    assert not caplog.records


def test_it_is_told_of_within_a_minute() -> None:
    assert BLOCKED_AFTER_S + 2 * LOOK_EVERY_S < 60


async def test_the_loop_of_a_process_is_watched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watchdog, "BLOCKED_AFTER_S", 0.05)
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(watchdog, "TICK_EVERY_S", 0.001)
    blocked = threading.Event()

    def told() -> bool:
        return any(" hang" in vars(record).get("stack", "") for record in caplog.records)

    with watchdog.watched(asyncio.get_running_loop()):
        await asyncio.sleep(0.005)

        def hang() -> None:
            # Until the thread has told of it; then the loop may go on.
            deadline = 500
            while not told() and deadline:
                deadline -= 1
                blocked.wait(0.01)

        while not told():
            # A busy machine stops the loop, too; and who was told of one stop is not told of the next until it turns.
            hang()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            while "turns again" not in caplog.text:
                await asyncio.sleep(0.001)
