"""What eventsink takes from RabbitMQ and gives to it, beside what others do on the same broker."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.broker import EXCHANGE, QUEUE, StreamLog, empty, hundreds, running_node, singles
from bench.contest import Contestant, Outcome, ratio, rounds, run
from bench.folding import BUSY
from bench.load import LENGTH, canonical_events
from cli.tables import print_table
from tests.servers.mongo import StandIn
from topology.log import JSON, Outgoing
from topology.rabbitmq.reader import ACKS_PER_PREFETCH, ReaderLimits
from topology.uuid7 import uuid7

ROUNDS = 3
#: How many are published at a time, and how many there are then to read: publishing one by one takes its time.
SINGLES = {1: 20_000, 5: 50_000, 1000: 100_000}
#: Slow readers read the beginning of the same log; a reader is no faster or slower at its end.
MOST_FOR_SLOW = 20_000
HISTORY_EVENTS = 100_000
HUNDREDS_EVENTS = 400_000
ARCHIVED = 10_000
PUBLISHED = 50_000
PUBLISHED_ONE_BY_ONE = 5_000
LATENCY_EVENTS = 1_000
LATENCY_WARM_UP = 50
LATENCY_EVERY_S = 0.01

C = "C"
WORKER = "worker"
FASTSTREAM = "FastStream"
AIO_PIKA = "aio-pika"
HISTORY = "worker, history"
HUNDREDS = "worker, 100 events a message"
HUNDREDS_HISTORY = "worker, 100 events a message, history"

COLUMNS = ("", "events/s", "from", "to", "CPU µs an event", "broker's CPU µs a message", "MiB at most")
RATIO_COLUMNS = ("", "demanded", "measured", "met")


def reading() -> None:
    """Group `rollups` as users run it beside three other readers: single events, published one by one, a few and many
    at a time; then a hundred events a message.

    Times pass as when so many events really come. `history` is the sample's own pace, eight events a minute, read at
    full speed: nearly every event then has a row of its own in the window of a minute.
    """
    with running_node() as node, _c_program() as program:
        contestants = []
        for together, count in SINGLES.items():
            stream = singles(node, count, BUSY, together)
            contestants += [
                Contestant(_named(C, together), _c_command(program, stream), count, count),
                _worker(_named(WORKER, together), stream, "rollups"),
                _other(_named(FASTSTREAM, together), "faststream", stream),
                _other(_named(AIO_PIKA, together), "aio-pika", stream),
            ]
        contestants += [
            _worker(HISTORY, singles(node, HISTORY_EVENTS, LENGTH), "rollups"),
            _worker(HUNDREDS, hundreds(node, HUNDREDS_EVENTS, BUSY), "rollups"),
            _worker(HUNDREDS_HISTORY, hundreds(node, HISTORY_EVENTS, LENGTH), "rollups"),
        ]
        found = rounds(contestants, node.pid, ROUNDS)
    _print_outcomes("Reading a stream", contestants, found)
    demands = []
    for together in SINGLES:
        ours = found[_named(WORKER, together)]
        for other, demanded in ((C, 1), (FASTSTREAM, 4), (AIO_PIKA, 2.5)):
            measured = ratio(ours, found[_named(other, together)])
            demands.append(_at_least(f"{_named(WORKER, together)} ÷ {other}", demanded, measured))
    rate = statistics.median(outcome.rate for outcome in found[HUNDREDS])
    demands.append(_at_least(f"{HUNDREDS}, events/s", 150_000, rate))
    for together in SINGLES:
        other = _named(FASTSTREAM, together)
        demands.append(_at_least(f"{HUNDREDS} ÷ {other}", 20, ratio(found[HUNDREDS], found[other])))
    _print_ratios(demands)


def _named(who: str, together: int) -> str:
    return f"{who}, published {together} at a time"


def archive() -> None:
    """Group `archive` with MongoDB, or what stands in for it here."""
    folder = Path(tempfile.mkdtemp(prefix="eventsink-bench-mongo-"))
    mongo = StandIn(folder)
    try:
        mongo.start()
        with running_node() as node:
            contestants = [
                _worker(
                    "worker, archive",
                    singles(node, ARCHIVED, BUSY),
                    "archive",
                    EVENTSINK_MONGO_URL=f"mongodb://127.0.0.1:{mongo.port}/",
                    EVENTSINK_STATE_URL=f"mongodb://127.0.0.1:{mongo.port}/",
                )
            ]
            found = rounds(contestants, node.pid, 1)
    finally:
        mongo.kill()
        shutil.rmtree(folder, ignore_errors=True)
    _print_outcomes("Archiving into MongoDB (nx-27017 stands in for it)", contestants, found)


def publishing() -> None:
    """Single events with confirms."""
    with running_node() as node:
        contestants = [
            _publisher("eventsink, 1000 messages a call", "eventsink", empty(node), PUBLISHED),
            _publisher("aio-pika, one by one", "aio-pika", empty(node), PUBLISHED_ONE_BY_ONE),
        ]
        found = rounds(contestants, node.pid, ROUNDS)
    _print_outcomes("Publishing with confirms", contestants, found)
    ours, theirs = found.values()
    _print_ratios([_at_least("publishing: eventsink ÷ aio-pika", 3, ratio(ours, theirs))])


def latency() -> None:
    """100 events a second into an idle log, each a message: from the call of `publish` in another process until the
    slowest of the group's agents has folded it."""
    sent: list[float] = []
    with running_node() as node:
        stream = empty(node)._replace(events=LATENCY_EVENTS + LATENCY_WARM_UP)
        worker = _worker("worker, 100 events/s", stream, "rollups")._replace(
            ready="running", meanwhile=lambda: sent.extend(asyncio.run(_publish_evenly(stream)))
        )
        outcome = run(worker, node.pid)
    moments, through = outcome.more
    took_ms: list[float] = []
    at = 0
    for number, moment in enumerate(sent):
        while through[at] < number + 1:
            at += 1
        took_ms.append((moments[at] - moment) * 1000)
    ranks = statistics.quantiles(took_ms[LATENCY_WARM_UP:], n=100, method="inclusive")
    print(f"\nFrom publish to folded, {LATENCY_EVENTS} events, 100 a second, ms\n")
    print_table(
        ("p50", "p90", "p99", "longest"),
        [(ranks[49], ranks[89], ranks[98], max(took_ms[LATENCY_WARM_UP:]))],
        right=frozenset({"p50", "p90", "p99", "longest"}),
    )
    met = "yes" if ranks[98] < 50 else "NO"
    _print_ratios([("p99, ms", "< 50", f"{ranks[98]:.1f}", met)])


async def _publish_evenly(stream: StreamLog) -> list[float]:
    """The moments at which each was handed over. Sent on schedule, whether the last one was confirmed or not."""
    loop = asyncio.get_running_loop()
    log = stream.log()
    await log.open()
    sent: list[float] = []
    try:
        begin = loop.time() + 1
        async with asyncio.TaskGroup() as tasks:
            for number, event in enumerate(canonical_events(stream.events)):
                await asyncio.sleep(max(0, begin + number * LATENCY_EVERY_S - loop.time()))
                now_ms = time.time_ns() // 1_000_000
                body = msgspec.json.encode(msgspec.structs.replace(event, time=now_ms))
                sent.append(time.monotonic())
                tasks.create_task(log.publish([Outgoing(body, JSON, uuid7(now_ms), now_ms)]))
    finally:
        await log.close()
    return sent


# -- contestants --


@contextmanager
def _c_program() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="eventsink-bench-c-") as folder:
        program = Path(folder) / "stream_reader"
        source = Path(__file__).with_name("stream_reader.c")
        subprocess.run(["gcc", "-O2", "-Wall", "-o", program, source, "-lrabbitmq"], check=True)
        yield program


def _c_command(program: Path, stream: StreamLog) -> list[str]:
    where = ["127.0.0.1", str(stream.node.port), "guest", "guest", stream.vhost]
    prefetch = ReaderLimits().prefetch
    credit = [str(prefetch), str(prefetch // ACKS_PER_PREFETCH)]
    return [str(program), *where, QUEUE, str(stream.messages), *credit]


def _worker(name: str, stream: StreamLog, group: str, **settings: str) -> Contestant:
    # Each run has a data folder of its own: it begins at the first event.
    return Contestant(
        name,
        [
            *(sys.executable, "-m", "bench.worker", str(stream.events)),
            *("worker", "--groups", group, "--port", "0"),
        ],
        stream.events,
        stream.messages,
        environment={
            "EVENTSINK_BROKER_URL": stream.url,
            "EVENTSINK_EXCHANGE": EXCHANGE,
            "EVENTSINK_LOG_QUEUE": QUEUE,
            "EVENTSINK_KEEP": "36500d",
            **settings,
        },
        folder_setting="EVENTSINK_DATA",
        result_lists=2,
    )


def _other(name: str, library: str, stream: StreamLog) -> Contestant:
    count, prefetch = min(MOST_FOR_SLOW, stream.messages), ReaderLimits().prefetch
    command = [*_module("readers"), library, stream.url, QUEUE, str(count), str(prefetch)]
    return Contestant(name, command, count, count)


def _publisher(name: str, library: str, stream: StreamLog, count: int) -> Contestant:
    command = [*_module("publishers"), library, stream.url, EXCHANGE, QUEUE, str(count)]
    return Contestant(name, command, count, count)


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"bench.{name}"]


# -- tables --


def _print_outcomes(title: str, contestants: Sequence[Contestant], found: dict[str, list[Outcome]]) -> None:
    rows = []
    for contestant in contestants:
        outcomes = found[contestant.name]
        rates = [outcome.rate for outcome in outcomes]
        rows.append(
            (
                contestant.name,
                round(statistics.median(rates)),
                round(min(rates)),
                round(max(rates)),
                round(statistics.median(each.cpu_s / each.events for each in outcomes) * 1e6, 1),
                round(
                    statistics.median(each.broker_cpu_s for each in outcomes) / contestant.messages * 1e6, 1
                ),
                round(max(outcome.peak_kib for outcome in outcomes) / 1024),
            )
        )
    print(f"\n{title}\n")
    print_table(COLUMNS, rows, right=frozenset(COLUMNS[1:]))


def _at_least(what: str, demanded: float, measured: float) -> tuple[str, str, str, str]:
    shown = f"{measured:,.0f}" if demanded > 1000 else f"{measured:.2f}"
    return what, f">= {demanded:,}", shown, "yes" if measured >= demanded else "NO"


def _print_ratios(rows: Sequence[tuple[str, str, str, str]]) -> None:
    print()
    print_table(RATIO_COLUMNS, rows, right=frozenset({"demanded", "measured"}))
    sys.stdout.flush()
