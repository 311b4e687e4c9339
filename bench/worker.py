"""`eventsink worker` as a user starts it, with two calls listened in on: the reader's first messages, and the count of
what became of each event, which every agent of the group gives after every batch.

    python -m bench.worker EVENTS ARGUMENTS-OF-EVENTSINK...

Once each agent has EVENTS events behind it the result is printed: the span, then the moments at which the slowest
agent was done with a batch, then how many events it was through with at each of them. It goes on running.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta

from agents import AGENTS
from bench.spans import Span
from cli.main import main
from topology.flow import agents_of
from topology.log import Message
from topology.rabbitmq.reader import RabbitReader
from topology.views import View


class Listening:
    """Both calls, and what they tell."""

    def __init__(self, events: int, agents: Sequence[str]) -> None:
        self._events = events
        self._span = Span()
        self._done = dict.fromkeys(agents, 0)
        self._moments: list[float] = []
        self._through: list[int] = []
        self._fetch = RabbitReader.fetch
        self._counted = View.count

    def begin(self) -> None:
        """Take the place of both."""
        listening = self

        async def fetch(
            self: RabbitReader, *, limit: int, max_bytes: int, timeout: timedelta
        ) -> Sequence[Message]:
            messages = await listening._fetch(self, limit=limit, max_bytes=max_bytes, timeout=timeout)
            if messages:
                listening._span.begin()
            return messages

        def count(self: View, group: str) -> None:
            listening._counted(self, group)
            listening._count(self._agent.name, self._batch.received)

        RabbitReader.fetch = fetch  # type: ignore[method-assign] # listened in on
        View.count = count  # type: ignore[method-assign] # listened in on

    def _count(self, agent: str, events: int) -> None:
        before = min(self._done.values())
        self._done[agent] += events
        through = min(self._done.values())
        if through > before:
            self._moments.append(time.monotonic())
            self._through.append(through)
            if through >= self._events > before:
                self._span.end(self._moments, self._through)


if __name__ == "__main__":
    groups = sys.argv[sys.argv.index("--groups") + 1].split(",")
    Listening(int(sys.argv[1]), [agent.name for agent in agents_of(AGENTS, groups)]).begin()
    sys.argv[1:] = sys.argv[2:]
    main()
