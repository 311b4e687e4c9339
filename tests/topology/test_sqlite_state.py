"""How SQLite finds the rows that are purged and counted every minute: never by reading a whole table."""

from __future__ import annotations

import sqlite3

from topology.sqlite_state import COUNT_OWED, PURGE, SCHEMA


def plan(statement: str, values: dict[str, object] | tuple[object, ...]) -> list[str]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(SCHEMA)
        return [line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    finally:
        connection.close()


def test_rows_are_purged_without_walking_through_those_that_stay() -> None:
    values: dict[str, object] = {"table": "jobs", "before": 600, "upto": 1, "owed": False}
    after_0, before_0, of_no_window = (plan(statement, values) for statement in PURGE)
    assert after_0 == ["SEARCH rows USING PRIMARY KEY (partition=? AND kind=? AND at>? AND at<?)"]
    assert before_0 == ["SEARCH rows USING PRIMARY KEY (partition=? AND kind=? AND at<?)"]
    assert of_no_window == ["SEARCH rows USING INDEX rows_of_no_window (kind=? AND until<?)"]


def test_what_owes_is_counted_in_the_index_of_what_owes() -> None:
    (found,) = plan(COUNT_OWED, ("jobs", 600))
    assert found.endswith("INDEX rows_owed (kind=? AND until<?)")
