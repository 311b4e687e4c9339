"""Ids: by time, and never the same one twice."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor

from topology.uuid7 import uuid7

MS = 1_700_000_000_123


def test_it_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    made = uuid.UUID(uuid7(MS))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == MS
    assert uuid7(MS) < uuid7(MS + 1)


def test_none_is_made_twice_by_threads_that_ask_at_the_same_time() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [
            each for some in pool.map(lambda _: [uuid7(MS) for _ in range(2000)], range(8)) for each in some
        ]
    assert len(set(made)) == 16_000


def test_a_forked_process_makes_others_than_its_parent() -> None:
    uuid7(MS)  # there is something left to be used again
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(uuid7(MS) for _ in range(100)).encode())
        os._exit(0)
    os.close(writing)
    ours = {uuid7(MS) for _ in range(300)}
    with os.fdopen(reading, "rb") as pipe:
        theirs = set(pipe.read().decode().split())
    os.waitpid(child, 0)
    assert len(theirs) == 100
    assert not ours & theirs
