"""What runs a rollup: for each kind of declaration, its rows and the operator that folds and values them.

    declaration                     rows                                        operator
    Rollup        declaration.py    cells by window and key                     TumblingOperator   folding.py
    JobRollup     jobs/job.py       jobs; what ended in a minute                JobOperator        jobs/joining.py
    UptimeRollup  services/rows.py  results of a minute; services               ServiceOperator    services/operator.py

Hours and days of the latter two are merges of their minutes, not rows. Operators belong to one reading of the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from schemas.times import rfc3339_with_milliseconds
from topology.batch import LogEvent
from topology.group.rows import ENCODED_AT_A_TIME, RowCache, Saved, Table
from topology.jobs.job import JobRollup, JobTable
from topology.jobs.joining import JobOperator, kept_from
from topology.jobs.minutes import JobMinuteTable, fields, summary
from topology.position import Position
from topology.rollups.budgets import BudgetTable, KeyBudget, budget_table
from topology.rollups.declaration import Rollup
from topology.rollups.folding import fold
from topology.services.operator import ServiceOperator
from topology.services.rows import ResultTable, ServiceTable, UptimeRollup
from topology.sinks import Point
from topology.state import RowKey
from topology.windows import DAY, HOUR

AnyRollup: TypeAlias = Rollup | JobRollup | UptimeRollup


class Operator(Protocol):
    """Folds and values one rollup."""

    async def fold(self, events: Mapping[type, Sequence[LogEvent]], *, after: Position) -> set[Position]:
        """Fold the events (by type, each in order) beyond position ``after``; all of them or, when this raises, none.
        Returns the positions of those with a window that is gone. Waits while the store is away."""

    def values(self, saved: Sequence[Saved]) -> AsyncIterator[Sequence[Point]]:
        """What the sink is told of rows as they were saved, or as they are now."""

    def found(self, key: RowKey) -> None:
        """The store has this row, which another worker may have written: what was made of it is void."""

    async def replace(self, states: Mapping[RowKey, Any], upto: Position) -> None:
        """Put these states, computed anew of all events up to there, in the place of what the rows have; None: of no
        event. Not while a batch is folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What operators of one reading share. ``horizon`` (epoch seconds) and ``watermark`` (epoch milliseconds) are
    asked each time; ``told_ms``: as of ``state.GroupState``."""

    rows: RowCache
    horizon: Callable[[], int | None]
    watermark: Callable[[], int | None]
    told_ms: int | None
    key_budget: int
    over_budget: Callable[[str, str], None]


class TumblingOperator:
    """Every window of every size is a row of its own."""

    def __init__(self, rollup: Rollup, scope: Scope, budget: KeyBudget) -> None:
        self._rollup = rollup
        self._scope = scope
        self._budget = budget

    async def fold(self, events: Mapping[type, Sequence[LogEvent]], *, after: Position) -> set[Position]:
        scope = self._scope
        return await fold(
            self._rollup, events, scope.rows, after=after, horizon=scope.horizon, budget=self._budget
        )

    def found(self, key: RowKey) -> None:
        """Nothing: every value is made of the row that is told."""

    async def replace(self, states: Mapping[RowKey, Any], upto: Position) -> None:
        rows = self._scope.rows
        for key, row in (await rows.load(list(states))).items():
            state = states[key]
            rows.change(row, self._rollup.empty() if state is None else state, max(row.upto, upto))

    async def values(self, saved: Sequence[Saved]) -> AsyncIterator[Sequence[Point]]:
        for first in range(0, len(saved), ENCODED_AT_A_TIME):
            yield [self._rollup.point(row.key, row.state) for row in saved[first : first + ENCODED_AT_A_TIME]]


def operator(rollup: AnyRollup, scope: Scope) -> TumblingOperator | JobOperator | ServiceOperator:
    """The operator of a rollup in one reading."""
    budget = KeyBudget(
        scope.rows,
        rollup.name,
        rollup.budgeted,
        scope.key_budget,
        lambda tag: scope.over_budget(rollup.name, tag),
    )
    match rollup:
        case Rollup():
            return TumblingOperator(rollup, scope, budget)
        case JobRollup():
            return JobOperator(rollup, scope.rows, budget, scope.horizon)
        case UptimeRollup():
            return ServiceOperator(
                rollup,
                scope.rows,
                budget,
                horizon=scope.horizon,
                watermark=scope.watermark,
                told_ms=scope.told_ms,
            )


class Kind(NamedTuple):
    """One kind of row. ``owes``: its changes change values of the sink. ``source``: other rows are derived from it,
    which are saved before it."""

    rollup: AnyRollup
    table: Table
    owes: bool
    source: bool = False


def kinds(rollup: AnyRollup) -> Mapping[str, Kind]:
    """The kinds of row that a rollup has, by the names of their tables."""
    found = {budget_table(rollup.name): Kind(rollup, BudgetTable(), owes=False)}
    match rollup:
        case Rollup():
            for _, table in rollup.tables:
                found[table] = Kind(rollup, rollup, owes=True)
        case JobRollup():
            found[rollup.minutes] = Kind(rollup, JobMinuteTable(), owes=True)
            found[rollup.jobs] = Kind(rollup, JobTable(), owes=False, source=True)
        case UptimeRollup():
            found[rollup.services] = Kind(rollup, ServiceTable(), owes=True)
            found[rollup.minutes] = Kind(rollup, ResultTable(), owes=True, source=True)
    return found


class Purge(NamedTuple):
    """Rows whose latest event is before ``before`` (epoch seconds) are gone; ``owed``: even those that owe."""

    before: int
    owed: bool = False


def purges(rollup: AnyRollup, horizon: int) -> Mapping[str, Purge]:
    """What of a rollup is gone at this horizon, by table."""
    found = {budget_table(rollup.name): Purge(horizon - DAY.seconds + 1)}
    day = kept_from(horizon)
    match rollup:
        case Rollup():
            found |= {table: Purge(horizon - window.seconds + 1) for window, table in rollup.tables}
        case JobRollup():
            # A job that never ended owes its end, and goes as well.
            found |= {rollup.minutes: Purge(day), rollup.jobs: Purge(day, owed=True)}
        case UptimeRollup():
            # A result holds for an hour at most, and its row goes on for a day.
            found |= {rollup.minutes: Purge(day - HOUR.seconds), rollup.services: Purge(day - DAY.seconds)}
    return found


def events_in(rollup: AnyRollup, state: Any) -> int:
    """How many events a row of a window is made of, at least; 0 where there is no row."""
    if state is None:
        return 0
    match rollup:
        case Rollup():
            return rollup.events_in(state)
        case JobRollup():
            return int(state.events)
        case UptimeRollup():
            return len(state)


def described(rollup: AnyRollup, key: RowKey, state: Any) -> Mapping[str, object]:
    """What a row of a window says, to be compared and shown to a person."""
    if state is None:
        return {}
    match rollup:
        case Rollup():
            return rollup.point(key, state).fields
        case JobRollup():
            return fields(summary(state))
        case UptimeRollup():
            found: dict[str, list[str]] = {}
            for result in sorted(state):
                at = rfc3339_with_milliseconds(result.time_ms)
                said = f"{at} {result.kind} {'up' if result.up else 'down'} for {result.valid_ms / 1000:g} s"
                if result.average_us >= 0 or result.most_ms >= 0:
                    said += f" in {result.average_us / 1000:g} ms, at most {result.most_ms:g}"
                found.setdefault(result.region, []).append(said)
            return found
