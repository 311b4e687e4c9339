"""The agents: one file each, what is aggregated and nothing about how."""

from __future__ import annotations

from collections.abc import Mapping

from agents.activity import activity
from agents.archive import archive
from agents.extractions import extractions
from agents.storage import storage
from agents.traffic import traffic
from agents.uptime import uptime
from topology.agents import Agent
from topology.rollups.operators import AnyRollup

AGENTS: tuple[Agent, ...] = (storage, extractions, uptime, traffic, activity, archive)

ROLLUPS: Mapping[str, AnyRollup] = {rollup.name: rollup for agent in AGENTS for rollup in agent.rollups}

__all__ = ["AGENTS", "ROLLUPS"]
