"""Input of any length, made from the sample: each repetition six hours after the one before, the last one as it is, so
that no event is from the future."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from schemas.events import Event
from schemas.reading import Refusal, read

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "clowder-6h.jsonl"
LENGTH = timedelta(hours=6)


def lines(count: int) -> Iterator[bytes]:
    """``count`` lines; times advance as they would in life."""
    sample = [json.loads(line) for line in SAMPLE.read_bytes().splitlines()]
    given = 0
    repetition = 1 - -(-count // len(sample))
    while True:
        for event in sample:
            if given == count:
                return
            yield json.dumps(_later(event, repetition * LENGTH), ensure_ascii=False).encode()
            given += 1
        repetition += 1


def _later(event: dict[str, object], by: timedelta) -> dict[str, object]:
    name = "created" if "created" in event else "time"
    time = event[name]
    if isinstance(time, str):
        later: object = (datetime.fromisoformat(time) + by).isoformat()
    elif isinstance(time, int):
        later = time + by // timedelta(milliseconds=1)
    else:
        raise TypeError(f"the sample has no time of type {type(time).__name__}")
    return event | {name: later}


def canonical_events(count: int) -> Iterator[Event]:
    """The same events as our own producers would send them."""
    for line in lines(count):
        event = read(line)
        if isinstance(event, Refusal):
            raise TypeError(f"the sample holds what is no event: {event.reason}")
        yield event


def canonical_lines(count: int) -> Iterator[bytes]:
    """Those in JSON, with times in integer milliseconds."""
    return map(msgspec.json.encode, canonical_events(count))
