"""Every kind of probe: its settings, and what builds it. A new one is a file and two lines here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, assert_never, get_args

from monitors.connections import ConnectionsProbe, ConnectionsSettings
from monitors.healthz import HealthzProbe, HealthzSettings
from monitors.page import PageProbe, PageSettings
from monitors.ping import PingProbe, PingSettings
from monitors.port import PortProbe, PortSettings
from monitors.probe import Probe, ProbeSettings, Surroundings
from monitors.queue import QueueProbe, QueueSettings

#: ``kind`` of a ``[[probe]]`` chooses among these.
AnyProbeSettings: TypeAlias = (
    PingSettings | PageSettings | HealthzSettings | PortSettings | ConnectionsSettings | QueueSettings
)

#: Each by its word in the configuration.
KINDS: Mapping[str, type[ProbeSettings]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(AnyProbeSettings)
}


def build(settings: AnyProbeSettings, surroundings: Surroundings) -> Probe:
    """A new probe. Raises ``SettingsError``."""
    match settings:
        case PingSettings():
            return PingProbe(settings, surroundings)
        case PageSettings():
            return PageProbe(settings, surroundings)
        case HealthzSettings():
            return HealthzProbe(settings, surroundings)
        case PortSettings():
            return PortProbe(settings, surroundings)
        case ConnectionsSettings():
            return ConnectionsProbe(settings, surroundings)
        case QueueSettings():
            return QueueProbe(settings, surroundings)
        case _:
            assert_never(settings)
