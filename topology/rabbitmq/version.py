"""What a broker says it is, and whether that is enough."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from topology.errors import SettingsError

#: Streams came with it.
OLDEST = (3, 9)
#: What brokers say they can, and is used here: a consumer is told when its queue is deleted, publishes are confirmed, a
#: broker that is short of memory or disk says so.
CAPABILITIES = ("consumer_cancel_notify", "publisher_confirms", "connection.blocked")


@dataclass(frozen=True, slots=True)
class Features:
    """What the broker said when the connection began."""

    product: str
    version: str
    cluster: str
    capabilities: frozenset[str]

    @property
    def missing(self) -> tuple[str, ...]:
        """What is used here and the broker does not have."""
        return tuple(name for name in CAPABILITIES if name not in self.capabilities)

    def demand(self) -> None:
        """Raise ``SettingsError`` where the broker cannot hold the log. A version that cannot be read is let by."""
        number = re.match(r"(\d+)\.(\d+)", self.version)
        if self.product != "RabbitMQ":
            raise SettingsError(
                f"{self.product or 'the broker'} {self.version} is not RabbitMQ: only RabbitMQ has streams"
            )
        if number is not None and (int(number[1]), int(number[2])) < OLDEST:
            raise SettingsError(f"RabbitMQ {self.version} has no streams: 3.9 or later is needed")

    def __str__(self) -> str:
        what = f"{self.product} {self.version}"
        if self.cluster:
            what += f" (cluster {self.cluster})"
        has = [name for name in CAPABILITIES if name in self.capabilities]
        what += f" with {', '.join(['streams', *has])}"
        return f"{what}, without {', '.join(self.missing)}" if self.missing else what


def features(properties: Mapping[str, object]) -> Features:
    """From the server properties of AMQP's ``connection.start``."""
    capabilities = properties.get("capabilities")
    return Features(
        _text(properties.get("product")),
        _text(properties.get("version")),
        _text(properties.get("cluster_name")),
        frozenset(name for name, can in capabilities.items() if can)
        if isinstance(capabilities, Mapping)
        else frozenset(),
    )


def _text(said: object) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return " ".join(text.split()) if isinstance(text, str) else ""
