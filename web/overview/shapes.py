"""The document of ``GET /v1/overview``. A series has a value for each window of the range, the oldest first, and null
where there is none. What is null as a whole could not be had: ``away`` says why.

Sums are exact. Quantiles and distinct counts cannot be added up, so they are told by window, of the whole day, or as a
bound that is called one.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

Number: TypeAlias = int | float
Series: TypeAlias = list[Number | None]
Ratio = Annotated[float, Meta(ge=0, le=1)]


class Span(msgspec.Struct, kw_only=True):
    """Windows from ``since`` to before ``until``, epoch seconds; the last is the running one. ``now``: epoch
    milliseconds."""

    range: str
    window: str
    window_s: int
    since: int
    until: int
    now: int


class ServiceSeen(msgspec.Struct, kw_only=True):
    """A service from one region; ``all``: the quorum of regions. ``uptime_ratio`` is up_s ÷ (up_s + down_s), null where
    both are 0. ``states``: of each window the seconds up, down, in maintenance, unknown. Response times are
    milliseconds, those of a window each."""

    service: str
    region: str
    uptime_ratio: Ratio | None
    uptime_ratio_today: Annotated[Ratio | None, Meta(description="Of the UTC day.")]
    up_s: float
    down_s: float
    maintenance_s: float
    unknown_s: float
    checks: int
    failures: int
    states: list[tuple[float, float, float, float] | None]
    response_ms_mean: Series
    response_ms_p95: Series
    response_ms_max: Annotated[float | None, Meta(description="The longest of the range.")]


class Uptime(msgspec.Struct, kw_only=True):
    """Services, by name, region ``all`` first. ``left_out``: how many there are beyond those."""

    services: list[ServiceSeen]
    left_out: int


class SpaceBytes(msgspec.Struct, kw_only=True):
    """What was added to and removed from a space."""

    space_id: str
    bytes_added: Number
    bytes_removed: Number
    files_added: Number
    files_removed: Number


class Rest(msgspec.Struct, kw_only=True):
    """The others together; ``count`` is how many."""

    count: int
    totals: dict[str, Number]


class Storage(msgspec.Struct, kw_only=True):
    """Those spaces in which most was moved, added or removed, then the rest; and all together."""

    spaces: list[SpaceBytes]
    rest: Rest | None
    totals: dict[str, Number]


class ExtractorRuns(msgspec.Struct, kw_only=True):
    """Runs that ended in the range. ``mean_s`` and ``max_s`` are of the range; quantiles are of the UTC day."""

    extractor: str
    submitted: Number
    succeeded: Number
    failed: Number
    skipped: Number
    mean_s: float | None
    max_s: float | None
    p50_s_today: float | None
    p95_s_today: float | None


class Extractors(msgspec.Struct, kw_only=True):
    """Those that ran most, then the rest; how runs ended, by window."""

    extractors: list[ExtractorRuns]
    rest: Rest | None
    totals: dict[str, Number]
    series: dict[str, Series]


class ActionCounts(msgspec.Struct, kw_only=True):
    """What people did, by action. ``users_today``: different people in the UTC day. With ``users_at_least`` it is the
    most in any one space and kind of resource: people in several cannot be told apart from different people."""

    action: str
    events: Number
    bytes: Number
    items: Number
    users_today: Number | None
    users_at_least: bool
    series: Series
    users: Series


class Activity(msgspec.Struct, kw_only=True):
    """Traffic, and what people do beside it."""

    actions: list[ActionCounts]


class AgentState(msgspec.Struct, kw_only=True):
    """An agent. ``watermark``: epoch seconds of event time, up to which everything was seen. ``outcomes``: what became
    of events since it was started, empty where it runs in another process. ``lag_messages``: of one in another process,
    messages of the log beyond the position that it saved; how many events are in them, and of when, nobody here knows.
    Null: not known."""

    agent: str
    up: bool | None
    lag_events: int | None
    lag_seconds: float | None
    watermark: int | None
    outcomes: dict[str, int]
    lag_messages: int | None = None


class Letter(msgspec.Struct, kw_only=True):
    """A dead letter, without its body. ``received``: epoch milliseconds."""

    id: str
    received: int
    agent: str
    reason: str
    pointer: str


class Dead(msgspec.Struct, kw_only=True):
    """How many dead letters there are, and the latest of them."""

    count: int
    latest: list[Letter]


class Readiness(msgspec.Struct, kw_only=True):
    """Whether events are accepted, and what is wrong, by dependency: not everything that is wrong keeps events out."""

    accepting: bool
    wrong: dict[str, str]


class Overview(msgspec.Struct, kw_only=True):
    """Everything that the page shows."""

    span: Span
    uptime: Uptime | None
    storage: Storage | None
    extractors: Extractors | None
    activity: Activity | None
    agents: Annotated[
        list[AgentState] | None, Meta(description="Of this process; where none runs in it, of others.")
    ]
    events: list[dict[str, Any]] | None
    dead: Dead | None
    ready: Readiness | None
    away: Annotated[dict[str, str], Meta(description="By member that is null: why.")]
