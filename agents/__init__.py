"""The agents: one file each, what is aggregated or forwarded, and nothing about how."""

from __future__ import annotations

from collections.abc import Mapping

from agents.activity import activity
from agents.amplitude import amplitude
from agents.archive import archive
from agents.extractions import extractions
from agents.google import google
from agents.storage import storage
from agents.traffic import traffic
from agents.uptime import uptime
from agents.webhook import webhook
from topology.agents import Agent
from topology.rollups.operators import AnyRollup

AGENTS: tuple[Agent, ...] = (storage, extractions, uptime, traffic, activity, archive)

#: Each runs where its vendor is set.
FORWARDERS: tuple[Agent, ...] = (amplitude, google, webhook)

ROLLUPS: Mapping[str, AnyRollup] = {rollup.name: rollup for agent in AGENTS for rollup in agent.rollups}

__all__ = ["AGENTS", "FORWARDERS", "ROLLUPS"]
