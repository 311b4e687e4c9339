"""Rollups as the sink writes them, of a platform of which every number is known."""

from __future__ import annotations

from collections.abc import Iterator

from agents import ROLLUPS
from tests.grafana.reading import NOW_S, UNIT_S
from topology.integers import is_integer_field
from topology.sinks import Point, Value

#: Windows of each size that lie in what every dashboard shows.
WINDOWS = 5
SPACES = ("s1", "s2", "s3")
SERVICES = ("clowder", "rabbitmq")
REGIONS = ("all", "eu", "us")
#: For how long a window's service was down, as a share of the window; seen alike by all.
DOWN = {"clowder": 0.25, "rabbitmq": 0.0}

_TAGS: dict[str, tuple[str, ...]] = {
    "space_id": SPACES,
    "extractor": ("ncsa.image", "ncsa.pdf"),
    "service": SERVICES,
    "region": REGIONS,
    "queue": ("clowder.extractors",),
    "resource_type": ("file", "dataset"),
}
_ACTIONS = {
    "resource_traffic": ("viewed", "downloaded", "page_viewed"),
    "user_activity": ("logged_in", "signed_up"),
}


def starts(window: str) -> list[int]:
    """Beginnings of the last windows of a size, the present one last."""
    size = UNIT_S[window[1]]
    last = NOW_S // size * size
    return [last - size * back for back in reversed(range(WINDOWS))]


def points() -> list[Point]:
    """Every rollup in every window. In the oldest window services are unknown, and an old ratio of 0 is left there;
    extractors have no run that ended, and an old longest one is left there."""
    return [
        Point(name, window, start, tags, _fields(name, window, dict(tags), stale=start == starts(window)[0]))
        for name, rollup in ROLLUPS.items()
        for window in ("1m", "1h", "1d")
        for start in starts(window)
        for tags in _keys(name, rollup.key)
    ]


def _keys(rollup: str, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, str], ...]]:
    if not key:
        yield ()
        return
    for rest in _keys(rollup, key[:-1]):
        for value in _ACTIONS[rollup] if key[-1] == "action" else _TAGS[key[-1]]:
            yield (*rest, (key[-1], value))


def _fields(rollup: str, window: str, tags: dict[str, str], *, stale: bool) -> dict[str, Value]:
    fields: dict[str, Value] = {
        name: 7 if is_integer_field(rollup, name) else 2.5 for name in ROLLUPS[rollup].fields
    }
    match rollup:
        case "space_storage":  # s3 grows fastest, s1 shrinks
            fields |= {"bytes_added": 1000 * int(tags["space_id"][1]), "bytes_removed": 1500}
        case "extractor_runtime":
            fields |= {"succeeded": 9, "failed": 1, "skipped": 0, "submitted": 12}
            if stale:
                fields |= {"runtime_s_count": 0, "runtime_s_sum": 0.0, "runtime_s_max": 9000.0}
        case "service_uptime":
            size = float(UNIT_S[window[1]])
            down = DOWN[tags["service"]] * size
            fields |= {"up_s": size - down, "down_s": down, "unknown_s": 0.0, "maintenance_s": 0.0}
            fields |= {"uptime_ratio": 1 - down / size, "coverage": 1.0}
            if stale:
                fields |= {
                    "up_s": 0.0,
                    "down_s": 0.0,
                    "unknown_s": size,
                    "coverage": 0.0,
                    "uptime_ratio": 0.0,
                }
    return fields
