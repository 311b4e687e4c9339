"""What Faust's sensors see of our agents (docs/decisions/0041)."""

from __future__ import annotations

import logging
import time
from typing import Any

from faust.sensors.base import Sensor

from topology.metrics import Metrics


class AgentSensor(Sensor):
    """Times each batch in the hands of its agent, and counts how often one has no room for more. Faust tells nothing of
    messages that nobody acknowledges (``acks=False``), which ours are."""

    logger = logging.getLogger("faust.sensors")  # with Faust's own services

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics
        #: A stream knows its topic, which several agents read, and not its agent.
        self._agents: dict[Any, str] = {}

    def reads(self, stream: Any, agent: str) -> None:
        """This stream is this agent's."""
        self._agents[stream] = agent

    def on_topic_buffer_full(self, tp: Any) -> None:
        """An agent of the group has enough waiting."""
        self._metrics.group_buffer_full(group=tp.topic).inc()

    def on_stream_event_in(self, tp: Any, offset: int, stream: Any, event: Any) -> dict[str, float] | None:
        """An agent takes a batch."""
        return {"since": time.monotonic()}

    def on_stream_event_out(
        self, tp: Any, offset: int, stream: Any, event: Any, state: dict[str, float] | None = None
    ) -> None:
        """An agent is done with it."""
        agent = self._agents.get(stream)
        if state is not None and agent is not None:
            self._metrics.agent_batch_seconds(agent=agent).observe(time.monotonic() - state["since"])
