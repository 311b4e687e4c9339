"""What is kept of a service: its results by minute, and one row of everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from topology.rollups.combining import MEANS, QUANTILES, Combining, Ratio
from topology.rollups.measures import EventType
from topology.rollups.quantiles import EMPTY, Sketch, merged, quantile, sketch
from topology.services.time_in_state import ALL, Result, UpDown
from topology.sinks import Value
from topology.windows import DAY, WINDOWS, Tumbling

#: A row ends so long after the last result.
KEPT_GOING_MS = DAY.seconds * 1000

#: What the sink is told of a window, in this order; the quorum has no checks of its own.
FIELDS = (
    "uptime_ratio",
    "coverage",
    "up_s",
    "down_s",
    "unknown_s",
    "maintenance_s",
    "checks",
    "failures",
    "response_ms_mean",
    "response_ms_max",
    "response_ms_p95",
)


_UP, _DOWN, _UNKNOWN, _MAINTENANCE = "up_s", "down_s", "unknown_s", "maintenance_s"

COMBINING: Mapping[str, Combining] = {
    "uptime_ratio": Ratio((_UP,), (_UP, _DOWN)),
    "coverage": Ratio((_UP, _DOWN, _MAINTENANCE), (_UP, _DOWN, _UNKNOWN, _MAINTENANCE)),
    **dict.fromkeys((_UP, _DOWN, _UNKNOWN, _MAINTENANCE, "checks", "failures"), "sum"),
    "response_ms_mean": MEANS,
    "response_ms_max": "max",
    "response_ms_p95": QUANTILES,
}


class UptimeRollup:
    """A declaration: which events are results (``response`` of those that have times), and which maintenance. The key
    is service and region, the measures are always the same (``FIELDS``)."""

    #: Whether what a window has counted can be taken back.
    retracts = False
    together: Mapping[str, str] = {"region": ALL}
    combining = COMBINING

    def __init__(
        self,
        name: str,
        *,
        pinged: EventType,
        fetched: EventType,
        maintenance_started: EventType,
        maintenance_ended: EventType,
    ) -> None:
        self.name = name
        self.key: tuple[str, ...] = ("service", "region")
        self.fields: tuple[str, ...] = FIELDS
        self.windows: Mapping[str, Tumbling] = {window.name: window for window in WINDOWS}
        self.budgeted = ["service", "region"]
        self.pinged = pinged
        self.results = frozenset((pinged, fetched))
        #: Whether the maintenance is over.
        self.maintenance: Mapping[EventType, bool] = {maintenance_started: False, maintenance_ended: True}
        self.types: frozenset[EventType] = self.results | frozenset(self.maintenance)
        #: Results by minute and service; the services themselves.
        self.minutes = f"{name}/1m"
        self.services = f"{name}/services"

    def result(self, event: Any, time_ms: int, region: str) -> Result:
        """The result that an event tells of."""
        average_us, most_ms, kind = -1, -1.0, "page"
        if type(event) is self.pinged:
            kind = f"ping {event.check or ''}"
            if (response := event.response_ms) is not None:
                average_us = -1 if response.avg is None else round(response.avg * 1000)
                most_ms = -1.0 if response.max is None else float(response.max)
        return Result(time_ms, region, kind, event.up, round(event.valid_for_s * 1000), average_us, most_ms)


class Service(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """``regions``: first and last result of each. ``turns``: when maintenance started (False) and ended (True).
    ``longest_ms``: no result held longer. ``owes``: the time whose values may have changed, while the row owes any. All
    in milliseconds."""

    regions: dict[str, tuple[int, int]] = {}
    turns: tuple[tuple[int, bool], ...] = ()
    longest_ms: int = 0
    owes: tuple[int, int] | None = None

    @property
    def first_ms(self) -> int | None:
        """The first result of any region."""
        return min((first for first, _ in self.regions.values()), default=None)

    @property
    def last_ms(self) -> int | None:
        """The last result of any region."""
        return max((last for _, last in self.regions.values()), default=None)

    @property
    def until_s(self) -> int:
        """The latest event (epoch seconds)."""
        turns = [at for at, _ in self.turns[-1:]]
        return max([last for _, last in self.regions.values()] + turns, default=0) // 1000

    def told_of(self, start_ms: int, end_ms: int) -> dict[str, tuple[int, int]]:
        """The regions that have a row in the window, ``ALL`` among them, with their first and last results."""
        if not self.regions:
            return {}
        first, last = self.first_ms, self.last_ms
        assert first is not None and last is not None  # noqa: S101, PT018 - of regions that there are
        return {
            region: span
            for region, span in {**self.regions, ALL: (first, last)}.items()
            if span[0] < end_ms and start_ms < span[1] + KEPT_GOING_MS
        }


NOBODY = Service()


class ServiceTable:
    """How services are stored."""

    _encode = msgspec.msgpack.Encoder(order="deterministic").encode
    _decode = msgspec.msgpack.Decoder(Service).decode

    def empty(self) -> Service:
        return NOBODY

    def pack(self, service: Service) -> bytes:
        return self._encode(service)

    def unpack(self, packed: bytes) -> Service:
        return self._decode(packed)

    def weight(self, service: Service) -> int:
        return 300 + 200 * len(service.regions) + 130 * len(service.turns)


class ResultTable:
    """How the results of a minute are stored."""

    _encode = msgspec.msgpack.Encoder().encode
    _decode = msgspec.msgpack.Decoder(tuple[Result, ...]).decode

    def empty(self) -> tuple[Result, ...]:
        return ()

    def pack(self, results: tuple[Result, ...]) -> bytes:
        return self._encode(results)

    def unpack(self, packed: bytes) -> tuple[Result, ...]:
        return self._decode(packed)

    def weight(self, results: tuple[Result, ...]) -> int:
        return 200 * len(results)


class Region(NamedTuple):
    """What a window of any size is told by, of one region."""

    up_ms: int = 0
    down_ms: int = 0
    checks: int = 0
    failures: int = 0
    averages: int = 0
    averages_us: int = 0
    most_ms: float = -1.0
    sketch: Sketch = EMPTY


#: By region; ``ALL`` has times alone.
Summary = Mapping[str, Region]


def summary(results: Iterable[Result], times: Mapping[str, UpDown]) -> Summary:
    """Of a minute: the results in it, and the time in state, which results of before may have a part in."""
    regions: dict[str, list[Result]] = {}
    for result in results:
        regions.setdefault(result.region, []).append(result)
    nothing = UpDown(0, 0)
    found: dict[str, Region] = {}
    for region in regions.keys() | times.keys():
        theirs = regions.get(region, ())
        averages = [each.average_us for each in theirs if each.average_us >= 0]
        found[region] = Region(
            *times.get(region, nothing),
            len(theirs),
            sum(not each.up for each in theirs),
            len(averages),
            sum(averages),
            max((each.most_ms for each in theirs), default=-1.0),
            sketch(us / 1000 for us in averages),
        )
    return found


def merge(many: Sequence[Summary]) -> Summary:
    """Of several."""
    found: dict[str, Region] = {}
    sketches: dict[str, list[Sketch]] = {}
    for each in many:
        for region, more in each.items():
            if more.sketch:
                sketches.setdefault(region, []).append(more.sketch)
            was = found.get(region)
            if was is None:
                found[region] = more
                continue
            found[region] = Region(
                was.up_ms + more.up_ms,
                was.down_ms + more.down_ms,
                was.checks + more.checks,
                was.failures + more.failures,
                was.averages + more.averages,
                was.averages_us + more.averages_us,
                max(was.most_ms, more.most_ms),
            )
    for region, theirs in sketches.items():
        found[region] = found[region]._replace(sketch=merged(theirs))
    return found


def fields(region: str, window: Region, passed_ms: int, maintenance_ms: int) -> Mapping[str, Value]:
    """What the sink is told of a window of which ``passed_ms`` have passed."""
    up, down = window.up_ms, window.down_ms
    told: dict[str, Value | None] = {
        "uptime_ratio": up / (up + down) if up + down else None,
        "coverage": (up + down + maintenance_ms) / passed_ms,
        "up_s": up / 1000,
        "down_s": down / 1000,
        "unknown_s": (passed_ms - up - down - maintenance_ms) / 1000,
        "maintenance_s": maintenance_ms / 1000,
    }
    if region != ALL:
        told |= {
            "checks": window.checks,
            "failures": window.failures,
            "response_ms_mean": window.averages_us / window.averages / 1000 if window.averages else None,
            "response_ms_max": window.most_ms if window.most_ms >= 0 else None,
            "response_ms_p95": quantile(window.sketch, 95),
        }
    return {name: value for name, value in told.items() if value is not None}
