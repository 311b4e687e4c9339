"""One life of a delivery whose broker is a file, killed by SIGKILL at a step that it is told by name:
`python -m tests.web.dying_spool STEP FOLDER FIRST`. STEP is as in ``tests/dying.py``. It writes what was answered.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.dying import dies_at
from tests.web.spools import LARGEST, FileBroker, life, stamped

#: Of one life. Those that the broker never takes are among them.
MESSAGES = 60
NEVER_TAKEN = frozenset({7, 38})


async def lives(folder: Path, first: int) -> None:
    """Away, back, there, away, back: every way that a message can take."""
    broker = FileBroker(folder / "log")
    broker.away = True
    async with life(folder, broker) as lived:

        async def send(number: int) -> None:
            size = LARGEST + 1 if number % MESSAGES in NEVER_TAKEN else 0
            where = await lived.delivery.deliver(stamped(number, size=size))
            sys.stdout.write(f"{number} {where}\n")
            sys.stdout.flush()

        numbers = iter(range(first, first + MESSAGES))
        for away in (True, False, True, False):
            broker.away = away
            if away:
                await asyncio.gather(*(send(next(numbers)) for _ in range(10)))
                for _ in range(10):
                    await send(next(numbers))
            else:
                await lived.drained()
                await asyncio.gather(*(send(next(numbers)) for _ in range(10)))


if __name__ == "__main__":
    dies_at(sys.argv[1])
    asyncio.run(lives(Path(sys.argv[2]), int(sys.argv[3])))
