"""What is so at this moment: agents, latest events, dead letters, readiness."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from topology.metrics import Outcome
from topology.position import NOWHERE, Position, place
from topology.sinks import DeadLetters, RawEvents
from topology.state import GroupState
from web.documents import event_document
from web.overview.shapes import AgentState, Dead, Letter
from web.problems import encoded

LATEST_EVENTS = 12
LATEST_LETTERS = 5
#: Of one event so many fields, and of a text so many characters, are shown; all of it is at /v1/events.
SHOWN_FIELDS = 8
SHOWN_CHARACTERS = 160
_ALWAYS = ("position", "received", "type", "time")

_OUTCOMES: Sequence[str] = get_args(Outcome)
_METRICS = (
    "eventsink_agent_up",
    "eventsink_agent_lag_events",
    "eventsink_agent_lag_seconds",
    "eventsink_watermark_seconds",
    "eventsink_events_total",
)


#: A worker saves where its groups are at least once a minute, also while nothing comes.
SIGN_OF_LIFE_MS = 150_000


class Progress(NamedTuple):
    """What groups have saved, and the offset at which the log ends."""

    groups: Mapping[str, GroupState]
    end: int


async def agents(
    registry: CollectorRegistry, progress: Callable[[], Awaitable[Progress]] | None, now_ms: int
) -> list[AgentState]:
    """The agents of this process, as its metrics tell of them; where none runs in it, those of other processes, as far
    as what they have saved tells."""
    here = agents_here(registry)
    if here or progress is None:
        return here
    groups, end = await progress()
    return [
        _elsewhere(agent, position, state.watermark, end, now_ms)
        for _, state in sorted(groups.items())
        for agent, position in state.positions.items()
    ]


def _elsewhere(agent: str, at: Position, watermark: int | None, end: int, now_ms: int) -> AgentState:
    lag = end if at == NOWHERE else max(0, end - place(at).offset - 1)
    recent = watermark is not None and now_ms - watermark < SIGN_OF_LIFE_MS
    return AgentState(
        agent=agent,
        # Who is behind may be reading what is old, and gives no sign by it.
        up=True if recent else None if lag else False,
        # Of what waits only the number of messages is known. A watermark says how far the agent got, not how old what
        # waits is: it follows the clock where nothing comes, and stands still where no worker runs.
        lag_events=None if lag else 0,
        lag_seconds=None if lag else 0.0,
        lag_messages=lag,
        watermark=None if watermark is None else watermark // 1000,
        outcomes={},
    )


def agents_here(registry: CollectorRegistry) -> list[AgentState]:
    """The agents that run in this process, as its metrics tell of them."""
    found: dict[str, AgentState] = {}

    def state(agent: str) -> AgentState:
        nothing = dict.fromkeys(_OUTCOMES, 0)
        return found.setdefault(
            agent,
            AgentState(
                agent=agent, up=None, lag_events=None, lag_seconds=None, watermark=None, outcomes=nothing
            ),
        )

    for sample in _samples(registry.restricted_registry(_METRICS).collect()):
        of = state(sample.labels["agent"])
        match sample.name:
            case "eventsink_agent_up":
                of.up = sample.value == 1
            case "eventsink_agent_lag_events":
                of.lag_events = int(sample.value)
            case "eventsink_agent_lag_seconds":
                of.lag_seconds = round(sample.value, 1)
            case "eventsink_watermark_seconds":
                of.watermark = int(sample.value)
            case "eventsink_events_total":
                of.outcomes[sample.labels["outcome"]] = int(sample.value)
    return list(found.values())


def _samples(metrics: Iterable[Metric]) -> Iterable[Any]:
    return (sample for metric in metrics for sample in metric.samples)


async def events(archive: RawEvents) -> list[dict[str, Any]]:
    """The latest, each with its first fields."""
    latest = await archive.query(since=None, until=None, type=None, limit=LATEST_EVENTS)
    return [_shortened(event_document(event)) for event in latest]


def _shortened(event: dict[str, Any]) -> dict[str, Any]:
    always = {name: event[name] for name in _ALWAYS if name in event}
    others = {name: value for name, value in event.items() if name not in _ALWAYS}
    return always | {_cut(name): _plain(value) for name, value in list(others.items())[:SHOWN_FIELDS]}


def _plain(value: Any) -> Any:
    """A number, or text: what is nested is shown as JSON."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(value if isinstance(value, str) else encoded(value).decode())


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


async def dead(letters: DeadLetters) -> Dead:
    """How many, and the latest."""
    count = await letters.count()
    latest = await letters.list(limit=LATEST_LETTERS) if count else []
    return Dead(
        count=count,
        latest=[
            Letter(
                id=letter.id,
                received=letter.received,
                agent=letter.agent,
                reason=_cut(letter.reason),
                pointer=_cut(letter.pointer),
            )
            for letter in latest
        ],
    )
