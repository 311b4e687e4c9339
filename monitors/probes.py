"""Every kind of probe: its settings, and what builds it. A new one is a file and two lines here."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from monitors.port import PortProbe, PortSettings
from monitors.probe import Probe, Surroundings

#: ``kind`` of a ``[[probe]]`` chooses among these.
AnyProbeSettings: TypeAlias = PortSettings


def build(settings: AnyProbeSettings, surroundings: Surroundings) -> Probe:
    """A new probe. Raises ``SettingsError``."""
    match settings:
        case PortSettings():
            return PortProbe(settings, surroundings)
        case _:
            assert_never(settings)
