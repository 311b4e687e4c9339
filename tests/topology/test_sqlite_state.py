"""How SQLite finds the rows that are purged and counted every minute: never by reading a whole table."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping

import pytest

from topology.sqlite.state import COUNT_OWED, PURGE, SCHEMA

MANY = 5_000
OLD = {"table": "jobs", "before": 600, "upto": 1, "owed": False}


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """With many rows that are too new: some of windows, some of none."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA)
    connection.executemany(
        "INSERT INTO rows VALUES (0, 'jobs', ?, ?, 1, 1, 0, x'', 10000)",
        [(at, f"{number}") for number in range(MANY) for at in (0, 1000 + number)],
    )
    yield connection
    connection.close()


def plan(connection: sqlite3.Connection, statement: str, values: Mapping[str, object]) -> str:
    (line,) = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
    return str(line[3])


def test_each_purge_searches_the_index_that_bounds_it(connection: sqlite3.Connection) -> None:
    after_0, before_0, of_no_window = (plan(connection, statement, OLD) for statement in PURGE)
    assert after_0 == "SEARCH rows USING PRIMARY KEY (partition=? AND kind=? AND at>? AND at<?)"
    assert before_0 == "SEARCH rows USING PRIMARY KEY (partition=? AND kind=? AND at<?)"
    assert of_no_window == "SEARCH rows USING INDEX rows_of_no_window (kind=? AND until<?)"


@pytest.mark.parametrize("statement", PURGE)
def test_a_purge_does_not_walk_through_the_rows_that_stay(
    connection: sqlite3.Connection, statement: str
) -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    connection.set_progress_handler(step, 1)
    assert connection.execute(statement, OLD).rowcount == 0
    assert 0 < steps < 100, f"{MANY} rows would be more than as many steps"


def test_what_owes_is_counted_in_the_index_of_what_owes(connection: sqlite3.Connection) -> None:
    found = plan(connection, COUNT_OWED.replace("?", ":table", 1).replace("?", ":before"), OLD)
    assert found.endswith("INDEX rows_owed (kind=? AND until<?)")
