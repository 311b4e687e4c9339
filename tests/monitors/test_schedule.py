"""When a probe is asked, and what its answer means. Time is injected: nothing here waits, but for what hangs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence

import pytest
from prometheus_client import CollectorRegistry

from monitors.blocking import Names
from monitors.port import PortSettings
from monitors.probe import Measured, Outcome, Probe, Progress, Read, Unknown
from monitors.reference import Reference
from monitors.schedule import Clocks, Reporting, Schedule, valid_for_s
from tests.monitors.targets import port_without_listener, silence, speaking
from topology.errors import SettingsError, Unavailable
from topology.metrics import MonitorMetrics

UP: Measured = {"type": "health.pinged", "check": "port", "up": True}
DOWN: Measured = {"type": "health.pinged", "check": "port", "up": False, "problem": "refused"}
HANGS = asyncio.Event
Answer = Outcome | BaseException | type[asyncio.Event]


class Scripted:
    """A probe that answers as it is told; the last answer again and again."""

    def __init__(self, answers: list[Answer], took_s: float, time: Time) -> None:
        self._answers = answers
        self._took_s = took_s
        self._time = time
        self.closed = 0
        self.close_hangs = False

    async def check(self) -> Outcome:
        self._time.now_s += self._took_s
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, type):
            while True:  # not even cancelling ends it
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if self.closed:
                        raise
        return answer

    async def close(self) -> None:
        self.closed += 1
        if self.close_hangs:
            await asyncio.Event().wait()


class Time:
    """Moves when somebody sleeps. ``slept``: each time, how long."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    def clocks(self, chance: float = 0.5) -> Clocks:
        return Clocks(
            wall_ms=lambda: round(self.now_s * 1000),
            monotonic=lambda: self.now_s,
            sleep=self.sleep,
            chance=lambda: chance,
        )


class Scheduled:
    """A schedule over scripted probes. ``sent`` is what was reported, ``made`` the probes that were built."""

    def __init__(
        self,
        *answers: Answer,
        took_s: float = 0.0,
        chance: float = 0.5,
        retries: int = 2,
        reference: Sequence[str] = (),
        reference_within_s: float = 0.2,
        grace_s: float = 0.05,
    ) -> None:
        self.time = Time()
        self.sent: list[Mapping[str, object]] = []
        self.reported: list[Measured | Read] = []
        self.made: list[Scripted] = []
        self.registry = CollectorRegistry()
        self._answers = list(answers)
        self._took_s = took_s
        self._enough = asyncio.Event()
        self._wanted = 0
        self.build_fails: Exception | None = None
        settings = PortSettings(
            service="clowder", host="x", port=1, interval=60.0, timeout=0.01, retries=retries, retry_delay=3.0
        )
        self.schedule = Schedule(
            settings,
            self._build,
            Reporting(
                region="eu",
                source="monitor-eu",
                report=self._report,
                metrics=MonitorMetrics(self.registry),
                reference=Reference(reference, timeout=reference_within_s, names=Names()),
            ),
            self.time.clocks(chance),
            valid_for=90,
            grace_s=grace_s,
        )

    def _build(self) -> Probe:
        if self.build_fails is not None:
            raise self.build_fails
        self.made.append(Scripted(self._answers, self._took_s, self.time))
        return self.made[-1]

    async def _report(self, result: Measured | Read) -> None:
        self.reported.append(result)
        event = result.result if isinstance(result, Read) else result
        if not isinstance(event, Unknown):
            self.sent.append(event)
        if len(self.sent) == self._wanted:
            self._enough.set()

    async def runs_until(self, count: int) -> None:
        """Until so many events were reported."""
        self._wanted = count
        await self.schedule.run(self._enough)

    def counted(self, result: str) -> float:
        labels = {"kind": "port", "service": "clowder", "result": result}
        return self.registry.get_sample_value("eventsink_monitor_checks_total", labels) or 0.0

    def restarts(self, why: str) -> float:
        labels = {"kind": "port", "service": "clowder", "why": why}
        return self.registry.get_sample_value("eventsink_monitor_probe_restarts_total", labels) or 0.0


async def test_a_result_is_stamped_with_the_time_at_which_its_check_began() -> None:
    one = Scheduled(DOWN, DOWN, UP, took_s=1.0)
    await one.schedule.check()
    (event,) = one.sent
    assert len(str(event.pop("id") if isinstance(event, dict) else "")) == 36
    assert event == {
        **UP,
        "service": "clowder",
        "region": "eu",
        "source": "monitor-eu",
        "time": 1_000_000,
        "valid_for_s": 90,
    }


async def test_retries_are_one_check_and_only_the_last_one_counts() -> None:
    one = Scheduled(DOWN, Unknown("no"), UP)
    await one.schedule.check()
    assert [event["up"] for event in one.sent] == [True]
    assert one.time.slept == [3.0, 3.0]
    assert (one.counted("up"), one.counted("down"), one.counted("unknown")) == (1, 0, 0)


async def test_down_is_down_once_all_retries_say_so() -> None:
    one = Scheduled(DOWN)
    await one.schedule.check()
    assert [event["up"] for event in one.sent] == [False]
    assert one.time.slept == [3.0, 3.0]
    assert one.counted("down") == 1


@pytest.mark.parametrize(("chance", "interval"), [(0.0, 54.0), (0.5, 60.0), (1.0, 66.0)])
async def test_checks_begin_an_interval_apart_however_long_they_take(chance: float, interval: float) -> None:
    one = Scheduled(UP, took_s=20.0, chance=chance)
    await one.runs_until(3)
    times = [int(str(event["time"])) for event in one.sent]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [interval * 1000] * 2
    assert one.made[0].closed == 1


async def test_a_check_longer_than_the_interval_is_followed_at_once() -> None:
    one = Scheduled(UP, took_s=90.0)
    await one.runs_until(2)
    assert one.time.slept[1:] == [0.0, 0.0]


def test_a_result_holds_until_the_next_one_must_have_come() -> None:
    settings = PortSettings(service="c", host="x", port=1, interval=60, timeout=10, retries=2, retry_delay=1)
    # interval with jitter 66, three attempts of 10 + 2, two pauses of 1, reference 3, rounded up by 2
    assert valid_for_s(settings, reference_s=3.0) == 66 + 36 + 2 + 3 + 2
    rare = PortSettings(service="c", host="x", port=1, interval=3600)
    assert valid_for_s(rare, reference_s=0) == 3600


async def test_an_unknown_result_is_counted_and_not_sent() -> None:
    one = Scheduled(Unknown("no permission"))
    await one.schedule.check()
    assert one.sent == []
    assert one.counted("unknown") == 1


async def test_a_probe_that_crashes_is_built_anew_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    one = Scheduled(ZeroDivisionError(), ZeroDivisionError(), UP)
    await one.schedule.check()
    assert [event["up"] for event in one.sent] == [True]
    assert one.restarts("crashed") == 2
    assert [probe.closed for probe in one.made] == [1, 1, 0]
    assert "ZeroDivisionError" in caplog.text


async def test_a_check_that_was_cancelled_from_within_is_a_crash_and_does_not_end_the_schedule() -> None:
    one = Scheduled(asyncio.CancelledError(), UP)
    await one.schedule.check()
    assert [event["up"] for event in one.sent] == [True]
    assert one.restarts("crashed") == 1


async def test_progress_is_reported_with_its_result_and_also_where_there_is_nothing_to_send() -> None:
    progress = Progress("log", None, b"1")
    one = Scheduled(Read(Unknown("counting begins"), progress), Read(UP, progress))
    await one.schedule.check()  # not tried again: what was read is read
    await one.schedule.check()
    begun, read = one.reported
    assert begun == Read(Unknown("counting begins"), progress)
    assert isinstance(read, Read)
    assert read.progress == progress
    assert one.sent[0] is read.result
    assert one.sent[0]["source"] == "monitor-eu"


async def test_what_is_unknown_for_another_reason_is_said_again(caplog: pytest.LogCaptureFixture) -> None:
    one = Scheduled(Unknown("begins"), Unknown("no permission"), Unknown("no permission"), retries=0)
    for _ in range(3):
        await one.schedule.check()
    assert [record.getMessage() for record in caplog.records] == [
        "port clowder is unknown: begins",
        "port clowder is unknown: no permission",
    ]


async def test_a_probe_that_hangs_and_heeds_no_cancelling_is_let_go_and_counted() -> None:
    one = Scheduled(HANGS, UP)
    await one.schedule.check()
    assert [event["up"] for event in one.sent] == [True]
    assert one.restarts("hung") == 1
    assert [probe.closed for probe in one.made] == [1, 0]


async def test_an_error_of_ours_is_unknown_and_no_crash() -> None:
    one = Scheduled(Unavailable("the disk is full"))
    await one.schedule.check()
    assert (one.sent, one.restarts("crashed"), one.counted("unknown")) == ([], 0, 1)


async def test_a_probe_that_cannot_be_built_again_leaves_the_old_one() -> None:
    one = Scheduled(ZeroDivisionError(), retries=0)
    one.build_fails = SettingsError("the secret is gone")
    await one.schedule.check()
    await one.schedule.check()
    assert (one.sent, one.counted("unknown"), len(one.made)) == ([], 2, 1)


async def test_the_end_comes_after_the_check_in_hand() -> None:
    one = Scheduled(UP)
    ending = asyncio.Event()
    ending.set()
    await one.schedule.run(ending)
    assert (one.sent, one.made[0].closed) == ([], 1)


async def test_a_probe_that_does_not_close_holds_up_no_end() -> None:
    one = Scheduled(UP)
    one.made[0].close_hangs = True
    await one.schedule.once()
    assert len(one.sent) == 1


# -- reference addresses --


async def test_down_while_no_reference_address_answers_is_unknown() -> None:
    one = Scheduled(DOWN, reference=["nobody.invalid:53", "..:443", f"{'x' * 64}.invalid:1"])
    await one.schedule.check()
    assert one.sent == []
    assert one.counted("unknown") == 1


async def test_one_reference_address_that_answers_is_enough_and_a_refusal_is_an_answer() -> None:
    async with speaking(silence) as port:
        for address in (f"127.0.0.1:{port}", f"[::1]:{port_without_listener()}"):
            one = Scheduled(DOWN, reference=["nobody.invalid:53", address], reference_within_s=30.0)
            await one.schedule.check()
            assert [event["up"] for event in one.sent] == [False]


async def test_reference_addresses_are_asked_once_for_all_who_ask_together() -> None:
    asked = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()

    async with speaking(counting) as port:
        reference = Reference([f"127.0.0.1:{port}"], timeout=30.0, names=Names())
        answers = await asyncio.gather(*(reference.network_gone() for _ in range(20)))
        assert answers == [False] * 20
        assert await reference.network_gone() is False
    assert asked <= 2


async def test_the_days_of_a_certificate_are_exported_and_stay_when_the_next_check_tells_of_none() -> None:
    one = Scheduled({**UP, "certificate_days_left": 9}, DOWN)
    labels = {"kind": "port", "service": "clowder"}
    for _ in range(2):
        await one.schedule.check()
        assert one.registry.get_sample_value("eventsink_monitor_certificate_days_left", labels) == 9
    assert one.registry.get_sample_value("eventsink_monitor_service_up", labels) == 0
