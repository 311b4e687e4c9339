"""What the rollups say of a range. All of it is asked of the sink, as ``GET /v1/rollups`` does: embedded and InfluxDB
answer alike.

    service_uptime                       rows, of the keys that are shown: every window of theirs counts
    space_storage, extractor_runtime,    totals, folded by the store itself: there may be thousands of keys, of which
    resource_traffic, user_activity      the page shows ten and the rest
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from topology.sinks import Point, RollupSink, Value
from topology.totals import Fold, MaxOf
from topology.windows import DAY, WINDOWS
from web.overview import spans
from web.overview.shapes import (
    ActionCounts,
    Activity,
    ExtractorRuns,
    Extractors,
    Number,
    Rest,
    Series,
    ServiceSeen,
    SpaceBytes,
    Span,
    Storage,
    Uptime,
)

#: Of what there may be thousands of, so many are shown; the others are summed up as the rest.
SHOWN = 10
#: Of services, each with its regions: beyond this the page would be no page.
MAX_SERVICES = 40

#: The quorum of regions, not a region.
ALL = "all"

_BYTES = ("bytes_added", "bytes_removed", "files_added", "files_removed")
_ENDS = ("succeeded", "failed", "skipped")
_STARTS = ("submitted",)
_SECONDS: Mapping[str, int] = {window.name: window.seconds for window in WINDOWS}
#: Rollups that count what people do, each by action.
_ACTIVITY = ("resource_traffic", "user_activity")


class Figures:
    """``rollups`` names those that there are: of others nothing is asked."""

    def __init__(self, sink: RollupSink, rollups: Collection[str]) -> None:
        self._sink = sink
        self._rollups = rollups

    # -- services --

    async def uptime(self, span: Span) -> Uptime:
        """How every service was, region by region."""
        if "service_uptime" not in self._rollups:
            return Uptime(services=[], left_out=0)
        # There may be more rows than can be read: which keys there are, their store tells.
        seen = await self._totals("service_uptime", span, by=["service", "region"], sums=["up_s"])
        keys = sorted(map(_key, seen), key=lambda key: (key[0], key[1] != ALL, key[1]))
        shown = keys[:MAX_SERVICES]
        day = spans.today(span)
        days = {
            key: points[0].fields
            for key, points in (await self._of_services(shown, DAY.name, day, windows=1)).items()
        }
        rows = await self._of_services(shown, span.window, span.since, windows=spans.length(span))
        return Uptime(
            services=[_service(span, key, rows.get(key, ()), days.get(key, {})) for key in shown],
            left_out=len(keys) - len(shown),
        )

    async def _of_services(
        self, keys: Sequence[tuple[str, str]], window: str, since: int, *, windows: int
    ) -> Mapping[tuple[str, str], Sequence[Point]]:
        """All rows of these services and regions in so many windows, by them; of others maybe some."""
        if not keys:
            return {}
        services, regions = (sorted(set(each)) for each in zip(*keys, strict=True))
        found: dict[tuple[str, str], list[Point]] = defaultdict(list)
        for point in await self._sink.query(
            "service_uptime",
            window,
            since=since,
            until=since + windows * _SECONDS[window],
            where={"service": services, "region": regions},
            # As many as there can be: what is cut off would be the newest, and nobody would see it.
            limit=len(services) * len(regions) * windows,
        ):
            found[_key(point)].append(point)
        return found

    # -- spaces --

    async def storage(self, span: Span) -> Storage:
        """Bytes and files by space."""
        if "space_storage" not in self._rollups:
            return Storage(spaces=[], rest=None, totals={})
        points = await self._totals("space_storage", span, by=["space_id"], sums=_BYTES)
        shown, rest = _most(points, _BYTES, lambda of: of["bytes_added"] + of["bytes_removed"])
        return Storage(
            spaces=[
                SpaceBytes(
                    space_id=_tag(point, "space_id"), **{field: point.fields[field] for field in _BYTES}
                )
                for point in shown
            ],
            rest=rest,
            totals=_summed(points, _BYTES),
        )

    # -- extractors --

    async def extractors(self, span: Span) -> Extractors:
        """How runs ended and how long they took."""
        if "extractor_runtime" not in self._rollups:
            return Extractors(extractors=[], rest=None, totals={}, series={})
        counts = (*_STARTS, *_ENDS)
        points = await self._totals(
            "extractor_runtime",
            span,
            by=["extractor"],
            sums=(*counts, "runtime_s_count", "runtime_s_sum"),
            maxima={"runtime_s_max": MaxOf("runtime_s_count")},
        )
        ended = await self._totals("extractor_runtime", span, by=[], sums=_ENDS, each_window=True)
        # A correction may have taken all back: zeros say nothing.
        points = [point for point in points if any(point.fields[field] for field in counts)]
        shown, rest = _most(points, counts, lambda of: sum(of[field] for field in _ENDS))
        days = await self._days_of(span, [_tag(point, "extractor") for point in shown])
        return Extractors(
            extractors=[_runs(point, days.get(_tag(point, "extractor"), {})) for point in shown],
            rest=rest,
            totals=_summed(points, counts),
            series={field: _series(span, ended, field, missing=0) for field in _ENDS},
        )

    async def _days_of(self, span: Span, extractors: Iterable[str]) -> Mapping[str, Mapping[str, Value]]:
        """Today's rows of these: at most ``SHOWN`` questions, each of one row."""
        day = spans.today(span)
        found: dict[str, Mapping[str, Value]] = {}
        for extractor in extractors:
            rows = await self._sink.query(
                "extractor_runtime",
                DAY.name,
                since=day,
                until=day + 1,
                where={"extractor": extractor},
                limit=1,
            )
            for row in rows:
                found[extractor] = row.fields
        return found

    # -- people --

    async def activity(self, span: Span) -> Activity:
        """Traffic, and what people do beside it, by action."""
        actions: list[ActionCounts] = []
        for rollup in _ACTIVITY:
            if rollup in self._rollups:
                actions += await self._actions(rollup, span, traffic=rollup == "resource_traffic")
        return Activity(actions=actions)

    async def _actions(self, rollup: str, span: Span, *, traffic: bool) -> Sequence[ActionCounts]:
        sums = ("events", "bytes", "items") if traffic else ("events",)
        windows = await self._totals(
            rollup, span, by=["action"], sums=sums, maxima={"unique_users": "max"}, each_window=True
        )
        day = spans.today(span)
        of_today = await self._sink.totals(
            rollup, DAY.name, since=day, until=day + 1, by=["action"], folds={"unique_users": "max"}
        )
        users = {_tag(point, "action"): point.fields.get("unique_users") for point in of_today}
        by_action: dict[str, list[Point]] = defaultdict(list)
        for point in windows:
            by_action[_tag(point, "action")].append(point)
        return [
            ActionCounts(
                action=action,
                **{"bytes": 0, "items": 0, **_summed(points, sums)},
                users_today=users.get(action),
                users_at_least=traffic,
                series=_series(span, points, "events", missing=0),
                users=_series(span, points, "unique_users", missing=0),
            )
            for action, points in sorted(by_action.items())
        ]

    async def _totals(
        self,
        rollup: str,
        span: Span,
        *,
        by: Sequence[str],
        sums: Iterable[str],
        maxima: Mapping[str, Fold] | None = None,
        each_window: bool = False,
    ) -> Sequence[Point]:
        folds: dict[str, Fold] = {**dict.fromkeys(sums, "sum"), **(maxima or {})}
        return await self._sink.totals(
            rollup,
            span.window,
            since=span.since,
            until=span.until,
            by=by,
            folds=folds,
            each_window=each_window,
        )


def _key(point: Point) -> tuple[str, str]:
    return _tag(point, "service"), _tag(point, "region")


def _tag(point: Point, name: str) -> str:
    return dict(point.tags).get(name, "unknown")


def _service(
    span: Span, key: tuple[str, str], points: Sequence[Point], today: Mapping[str, Value]
) -> ServiceSeen:
    seconds = _summed(points, ("up_s", "down_s", "maintenance_s", "unknown_s", "checks", "failures"))
    states: list[tuple[float, float, float, float] | None] = [None] * spans.length(span)
    for point in points:
        states[spans.place(span, point.time)] = (
            round(float(point.fields.get("up_s", 0)), 3),
            round(float(point.fields.get("down_s", 0)), 3),
            round(float(point.fields.get("maintenance_s", 0)), 3),
            round(float(point.fields.get("unknown_s", 0)), 3),
        )
    longest = [point.fields["response_ms_max"] for point in points if "response_ms_max" in point.fields]
    return ServiceSeen(
        service=key[0],
        region=key[1],
        uptime_ratio=_ratio(seconds),
        uptime_ratio_today=_ratio(today),
        up_s=round(seconds["up_s"], 3),
        down_s=round(seconds["down_s"], 3),
        maintenance_s=round(seconds["maintenance_s"], 3),
        unknown_s=round(seconds["unknown_s"], 3),
        checks=int(seconds["checks"]),
        failures=int(seconds["failures"]),
        states=states,
        response_ms_mean=_series(span, points, "response_ms_mean"),
        response_ms_p95=_series(span, points, "response_ms_p95"),
        response_ms_max=max(longest, default=None),
    )


def _ratio(of: Mapping[str, Value]) -> float | None:
    """Time up ÷ time known; never a mean of ratios, which would weigh a minute like a day."""
    up, down = of.get("up_s", 0), of.get("down_s", 0)
    return up / (up + down) if up + down > 0 else None


def _runs(point: Point, today: Mapping[str, Value]) -> ExtractorRuns:
    of = point.fields
    timed, timed_today = of["runtime_s_count"], today.get("runtime_s_count", 0)
    return ExtractorRuns(
        extractor=_tag(point, "extractor"),
        **{field: of[field] for field in (*_STARTS, *_ENDS)},
        mean_s=of["runtime_s_sum"] / timed if timed else None,
        max_s=of.get("runtime_s_max") if timed else None,
        p50_s_today=today.get("runtime_s_p50") if timed_today else None,
        p95_s_today=today.get("runtime_s_p95") if timed_today else None,
    )


def _most(
    points: Sequence[Point], fields: Sequence[str], weight: Callable[[Mapping[str, Value]], Value]
) -> tuple[Sequence[Point], Rest | None]:
    """Those that weigh most, the heaviest first, and the rest."""
    ordered = sorted(points, key=lambda point: (-weight(point.fields), point.tags))
    shown, others = ordered[:SHOWN], ordered[SHOWN:]
    return shown, Rest(count=len(others), totals=_summed(others, fields)) if others else None


def _summed(points: Iterable[Point], fields: Iterable[str]) -> dict[str, Number]:
    listed = list(points)
    return {field: sum(point.fields.get(field, 0) for point in listed) for field in fields}


def _series(span: Span, points: Iterable[Point], field: str, missing: Number | None = None) -> Series:
    series: Series = [missing] * spans.length(span)
    for point in points:
        if (value := point.fields.get(field)) is not None:
            series[spans.place(span, point.time)] = round(value, 3)
    return series
