"""Input of any length, made from the sample: each repetition six hours after the one before, the last one as it is, so
that no event is from the future."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from schemas.events import Event
from schemas.reading import Refusal, read
from schemas.times import EPOCH

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "clowder-6h.jsonl"
#: The first of its events, and how long it lasts.
START = datetime(2026, 11, 23, 21, tzinfo=UTC)
LENGTH = timedelta(hours=6)


def lines(count: int, length: timedelta = LENGTH) -> Iterator[bytes]:
    """``count`` lines; times advance as they would in life, or as in a busier one, where the six hours of the sample
    pass in ``length``."""
    sample = [json.loads(line) for line in SAMPLE.read_bytes().splitlines()]
    given = 0
    repetition = 1 - -(-count // len(sample))
    while True:
        for event in sample:
            if given == count:
                return
            yield json.dumps(_moved(event, repetition, length), ensure_ascii=False).encode()
            given += 1
        repetition += 1


def _moved(event: dict[str, object], repetition: int, length: timedelta) -> dict[str, object]:
    name = "created" if "created" in event else "time"
    time = event[name]
    if isinstance(time, str):
        moved: object = _in_life(datetime.fromisoformat(time), repetition, length).isoformat()
    elif isinstance(time, int):
        at = datetime.fromtimestamp(time // 1000, UTC) + timedelta(milliseconds=time % 1000)
        moved = (_in_life(at, repetition, length) - EPOCH) // timedelta(milliseconds=1)
    else:
        raise TypeError(f"the sample has no time of type {type(time).__name__}")
    return event | {name: moved}


def _in_life(at: datetime, repetition: int, length: timedelta) -> datetime:
    return START + (at - START) * (length / LENGTH) + repetition * length


def canonical_events(count: int, length: timedelta = LENGTH) -> Iterator[Event]:
    """The same events as our own producers would send them."""
    for line in lines(count, length):
        event = read(line)
        if isinstance(event, Refusal):
            raise TypeError(f"the sample holds what is no event: {event.reason}")
        yield event


def canonical_lines(count: int) -> Iterator[bytes]:
    """Those in JSON, with times in integer milliseconds."""
    return map(msgspec.json.encode, canonical_events(count))
