"""Where messages go while the broker comes and goes: kept, in order, and published with their own stamps."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

import web.delivery
import web.draining
from tests.web.spools import LARGEST, NOW_MS, PATIENCE_S, Broker, Life, life, stamped
from topology.errors import Refused, Unavailable
from topology.metrics import SpoolMetrics
from topology.uuid7 import uuid7
from web.draining import DrainRight
from web.metrics import show_spool
from web.spool import Spool


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that hangs is waited for only a moment, and looks are taken all the time. A moment is longer than what a
    busy machine lets a broker that does not hang wait for its turn."""
    moment = timedelta(milliseconds=300)
    monkeypatch.setattr(web.delivery, "CONFIRMED_WITHIN", moment)
    monkeypatch.setattr(web.draining, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(web.draining, "DRAINED_WITHIN_S", 0.2)
    monkeypatch.setattr(web.draining, "MISHAP_PAUSE_S", 0.01)


# -- which way a message goes --


async def test_a_broker_that_confirms_gets_everything_and_the_spool_nothing(
    tmp_path: Path, broker: Broker
) -> None:
    async with life(tmp_path, broker) as lived:
        answers = await asyncio.gather(*(lived.delivery.deliver(stamped(n)) for n in range(50)))
        assert set(answers) == {"broker"}
        assert broker.took == [stamped(n) for n in range(50)]
        assert lived.spool.held.messages == 0
        assert lived.delivery.spooling is None
        # Those that came at once were published at once.
        assert broker.calls == [50]


async def test_a_broker_that_is_away_leaves_messages_to_the_spool_and_gets_them_in_order_later(
    tmp_path: Path, broker: Broker
) -> None:
    async with life(tmp_path, broker) as lived:
        broker.away = True
        assert await lived.delivery.deliver(stamped(0)) == "spool"
        for n in range(1, 30):
            assert await lived.delivery.deliver(stamped(n)) == "spool"
        assert lived.delivery.spooling == "the broker is stopped"
        assert lived.delivery.durable == "spool"
        await lived.delivery.prove()
        broker.away = False
        await lived.drained()
        # Id and arrival as they were accepted.
        assert broker.took == [stamped(n) for n in range(30)]
        assert await lived.delivery.deliver(stamped(30)) == "broker"


async def test_a_broker_that_hangs_is_waited_for_once(
    tmp_path: Path, broker: Broker, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with life(tmp_path, broker) as lived:
        broker.hang()
        assert await lived.delivery.deliver(stamped(0)) == "spool"
        asked = len(broker.calls)
        for n in range(1, 20):
            assert await lived.delivery.deliver(stamped(n)) == "spool"
        # The drainer alone waits for it now.
        assert len(broker.calls) <= asked + 1
        assert sum("events go into the spool" in record.getMessage() for record in caplog.records) == 1
        broker.lets_go.set()
        await lived.drained()
        assert list(dict.fromkeys(broker.ids)) == [f"id-{n}" for n in range(20)]


async def test_a_broker_that_says_that_it_takes_nothing_is_not_waited_for_at_all(
    tmp_path: Path, broker: Broker
) -> None:
    async with life(tmp_path, broker) as lived:
        lived.blocked = "low on memory"
        for n in range(3):
            assert await lived.delivery.deliver(stamped(n)) == "spool"
        assert not broker.calls
        assert lived.delivery.spooling == "low on memory"
        lived.blocked = None
        await lived.drained()
        assert broker.ids == ["id-0", "id-1", "id-2"]


async def test_a_web_process_that_starts_without_a_broker_takes_events(
    tmp_path: Path, broker: Broker
) -> None:
    broker.away = True
    async with life(tmp_path, broker) as lived:
        assert await lived.delivery.deliver(stamped(0)) == "spool"
        assert lived.delivery.spooling == "the broker is stopped"
    async with life(tmp_path, broker) as lived:
        assert lived.spool.held.messages == 1
        broker.away = False
        await lived.drained()
        assert broker.ids == ["id-0"]


async def test_who_comes_while_the_last_of_the_spool_is_published_goes_behind_it(
    tmp_path: Path, broker: Broker
) -> None:
    # A spool into which somebody always puts something comes to its end all the same, and in order.
    async with life(tmp_path, broker) as lived:
        broker.away = True
        sent = await sends_until(lived, lambda number: number == 250)
        broker.away = False
        sent += await sends_until(lived, lambda number: lived.drainer.direct, first=len(sent))
        assert len(broker.took) == len(set(broker.ids))
        assert broker.ids == [f"id-{n}" for n in range(len(sent))]


async def sends_until(lived: Life, enough: Any, first: int = 0, size: int = 0) -> list[str]:
    """Where each went, of messages that are sent one after the other until it is enough."""
    answers: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while not enough(first + len(answers)):
            answers.append(await lived.delivery.deliver(stamped(first + len(answers), size=size)))
    return answers


async def test_a_slow_broker_gets_everything_by_way_of_the_spool(tmp_path: Path, broker: Broker) -> None:
    now = 0.0

    def slow() -> float:
        nonlocal now
        now += 2.0
        return now

    lived = Life(tmp_path, broker)
    lived.drainer._monotonic = slow
    await lived.delivery.open()
    for n in range(5):
        assert await lived.delivery.deliver(stamped(n)) == "spool"
    await lived.until(lambda: len(broker.took) == 5)
    assert not lived.drainer.direct
    lived.drainer._monotonic = time.monotonic
    await lived.delivery.deliver(stamped(5))
    await lived.drained()
    await lived.delivery.close()


# -- the disk --


async def test_a_full_spool_is_unavailable_while_the_broker_is_away_and_no_longer_when_it_answers(
    tmp_path: Path, broker: Broker
) -> None:
    async with life(tmp_path, broker, max_bytes=100_000) as lived:
        broker.away = True
        with pytest.raises(Unavailable, match="the spool is full"):
            await sends_until(lived, lambda number: number == 10_000, size=9_000)
        with pytest.raises(Unavailable, match="the spool is full"):
            await lived.delivery.prove()
        kept = lived.spool.held.messages
        broker.away = False
        await lived.drained()
        assert broker.ids == [f"id-{n}" for n in range(kept)] != []
        assert await lived.delivery.deliver(stamped(kept)) == "broker"


async def test_a_disk_that_takes_nothing_does_not_matter_while_the_broker_answers(
    tmp_path: Path, broker: Broker, impatient: None
) -> None:
    async with life(tmp_path / "missing", broker) as lived:
        await lived.drained()
        assert await lived.delivery.deliver(stamped(0)) == "broker"
        broker.away = True
        with pytest.raises(Unavailable):
            await lived.delivery.deliver(stamped(1))
        broker.away = False
        await lived.drained()
        assert await lived.delivery.deliver(stamped(2)) == "broker"
        assert broker.ids == ["id-0", "id-2"]


async def test_what_cannot_be_removed_is_not_published_again_and_again(
    tmp_path: Path, broker: Broker, impatient: None
) -> None:
    async with life(tmp_path, broker) as lived:
        broker.away = True
        await sends_until(lived, lambda number: number == 10)
        await lived.spool._database.read(lambda file: file.execute("PRAGMA query_only = ON"))
        broker.away = False
        await lived.until(lambda: "the spool" in lived.outages.away)
        # Kept goes before in order: the broker answers, and the disk does not.
        assert await lived.delivery.deliver(stamped(10)) == "broker"
        await asyncio.sleep(0.05)
        assert broker.ids == [f"id-{n}" for n in range(11)]
        await lived.spool._database.read(lambda file: file.execute("PRAGMA query_only = OFF"))
        await lived.drained()
        assert broker.ids == [f"id-{n}" for n in range(11)]


# -- what the broker will never take --


async def test_a_message_that_the_broker_never_takes_is_refused_and_harms_no_other(
    tmp_path: Path, broker: Broker
) -> None:
    async with life(tmp_path, broker) as lived:
        messages = [stamped(n, size=LARGEST + 1 if n == 3 else 0) for n in range(6)]
        answers = await asyncio.gather(*map(lived.delivery.deliver, messages), return_exceptions=True)
        assert [answer for answer in answers if answer != "broker"] == [answers[3]]
        assert isinstance(answers[3], Refused)
        assert sorted(map(str, broker.ids)) == [f"id-{n}" for n in range(6) if n != 3]
        assert lived.drainer.direct


async def test_a_spooled_message_that_the_broker_never_takes_is_put_aside_until_the_next_start(
    tmp_path: Path, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.away = True
    async with life(tmp_path, broker) as lived:
        for n in range(6):
            await lived.delivery.deliver(stamped(n, size=LARGEST + 1 if n in {0, 3} else 0))
        broker.away = False
        await lived.until(lambda: lived.spool.empty)
        assert list(dict.fromkeys(broker.ids)) == ["id-1", "id-2", "id-4", "id-5"]
        assert lived.spool.held.refused_events == 2
        told = [r for r in caplog.records if "will never take a message" in r.getMessage()]
        assert [record.levelno for record in told] == [logging.WARNING] * 2
        await lived.delivery.deliver(stamped(6))
    broker.took.clear()
    broker.publish = functools.partial(takes_everything, broker)  # type: ignore[method-assign]
    async with life(tmp_path, broker) as lived:
        await lived.until(lambda: len(broker.took) == 2)
        await lived.drained()
        assert broker.ids == ["id-0", "id-3"]
        assert lived.spool.held.refused_events == 0


async def takes_everything(broker: Broker, messages: Any) -> None:
    broker.took += messages


# -- the end of a process --


async def test_a_process_that_ends_drains_what_it_can(tmp_path: Path, broker: Broker) -> None:
    lived = Life(tmp_path, broker)
    broker.away = True
    await lived.delivery.open()
    await asyncio.gather(*(lived.delivery.deliver(stamped(n)) for n in range(3000)))
    broker.away = False
    await lived.until(lambda: not lived.outages.away)
    await lived.delivery.close()
    assert list(dict.fromkeys(broker.ids)) == [f"id-{n}" for n in range(3000)]


async def test_a_process_that_ends_while_the_broker_is_away_waits_for_nothing(
    tmp_path: Path, broker: Broker
) -> None:
    broker.away = True
    async with life(tmp_path, broker) as lived:
        await sends_until(lived, lambda number: number == 10)
        begun = time.monotonic()
        await lived.delivery.close()
        assert time.monotonic() - begun < web.draining.DRAINED_WITHIN_S
    spool = Spool(tmp_path / "spool.db", max_bytes=1 << 20)
    assert (await spool.look()).messages == 10
    await spool.close()


async def test_of_two_processes_on_one_folder_one_drains_and_the_other_takes_over(
    tmp_path: Path, broker: Broker, impatient: None
) -> None:
    broker.away = True
    first, second = Life(tmp_path, broker), Life(tmp_path, broker)
    await first.delivery.open()
    await second.delivery.open()
    answers = await asyncio.gather(
        *(lived.delivery.deliver(stamped(n)) for n, lived in enumerate([first, second] * 20))
    )
    assert set(answers) == {"spool"}
    broker.away = False
    await first.drained()
    await second.drained()
    # By one of them, so each once.
    assert sorted(map(str, broker.ids)) == sorted(f"id-{n}" for n in range(40))
    drains = first if first.drainer._right._lock is not None else second
    other = second if drains is first else first
    await drains.delivery.close()
    broker.away = True
    await other.delivery.deliver(stamped(40))
    broker.away = False
    await other.drained()
    assert broker.ids[-1] == "id-40"
    await other.delivery.close()


def test_the_right_to_drain_is_held_once(tmp_path: Path) -> None:
    one, two = (DrainRight(tmp_path / "spool.lock") for _ in range(2))
    assert one.take()
    assert one.take()
    assert not two.take()
    one.release()
    assert two.take()
    two.release()
    with pytest.raises(Unavailable):
        DrainRight(tmp_path / "missing" / "spool.lock").take()


# -- what is shown --


async def test_the_metrics_show_what_waits(tmp_path: Path, broker: Broker) -> None:
    registry = CollectorRegistry()
    async with life(tmp_path, broker) as lived:
        show_spool(
            SpoolMetrics(registry),
            lambda: lived.delivery.held,
            max_bytes=1 << 20,
            clock=lambda: NOW_MS + 61_000,
        )

        def shown() -> list[float | None]:
            names = ("events", "oldest_seconds", "refused_events")
            return [registry.get_sample_value(f"eventsink_spool_{name}") for name in names]

        assert shown() == [0, 0, 0]
        broker.away = True
        await lived.delivery.deliver(stamped(1000, events=7))
        await lived.delivery.deliver(stamped(2000))
        assert shown() == [8, 60, 0]
        assert registry.get_sample_value("eventsink_spool_bytes") == lived.spool.held.bytes > 0
        assert registry.get_sample_value("eventsink_spool_limit_bytes") == 1 << 20
        broker.away = False
        await lived.drained()
        assert shown() == [0, 0, 0]


# -- laws --

#: What can happen, in any order. A death leaves everything where it is, as SIGKILL does: nothing is closed, and
#: whatever was under way comes to nothing.
HAPPENINGS = st.lists(
    st.sampled_from(
        ["send", "send", "three at once", "away", "hangs", "back", "a while", "drained", "death"]
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(happenings=HAPPENINGS)
async def test_whatever_happens_nothing_is_lost_and_the_spool_keeps_its_order(
    happenings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    broker = Broker()
    lived = Life(folder, broker)
    await lived.delivery.open()
    kept: dict[str, str] = {}
    numbers = iter(range(10_000))

    async def send() -> None:
        number = next(numbers)
        message = stamped(number)
        kept[f"id-{number}"] = await lived.delivery.deliver(message)

    for happening in happenings:
        match happening:
            case "send":
                await asyncio.wait_for(send(), PATIENCE_S)
            case "three at once":
                await asyncio.wait_for(asyncio.gather(send(), send(), send()), PATIENCE_S)
            case "away":
                broker.away = True
                broker.lets_go.set()
            case "hangs":
                # So that nobody waits a second, it was noticed before.
                lived.drainer.broker_failed("it hangs")
                broker.hang()
            case "back":
                broker.away = False
                broker.lets_go.set()
            case "a while":
                await asyncio.sleep(0.002)
            case "drained" if not broker.away and broker.lets_go.is_set():
                await lived.drained()
            case "death":
                lived = await died(lived, folder)
    broker.away = False
    broker.lets_go.set()
    await lived.drained()
    assert await lived.spool.look() == lived.spool.held
    assert lived.spool.empty
    await lived.delivery.close()
    firsts = list(dict.fromkeys(map(str, broker.ids)))
    assert set(firsts) >= set(kept)
    spooled = [each for each in firsts if kept.get(each) == "spool"]
    assert spooled == sorted(spooled, key=lambda each: int(each.removeprefix("id-")))
    by_id = {message.event_id: message for message in broker.took}
    assert all(by_id[each] == stamped(int(each.removeprefix("id-"))) for each in kept)


async def died(lived: Life, folder: Path) -> Life:
    """The next life after a death of this one: what is on disk stays, and the kernel lets go of the lock."""
    running = lived.drainer._running
    assert running is not None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    lived.drainer._right.release()
    await lived.spool.close()
    following = Life(folder, lived.broker)
    await following.delivery.open()
    return following


def test_stamps_of_our_own_are_ones_that_a_broker_carries() -> None:
    # A message is refused as a ValueError by nothing that the ingest makes.
    from topology.rabbitmq.messages import content_header

    for events in (1, 2):
        message = stamped(1, events=events)._replace(event_id=str(uuid7(NOW_MS)))
        assert content_header(message)
