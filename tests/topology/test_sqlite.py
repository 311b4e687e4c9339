"""The one SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from topology.errors import ForeignSchema, Unavailable
from topology.sqlite.file import Database

SCHEMA = "CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY)"


async def test_what_fails_is_undone_as_a_whole(tmp_path: Path) -> None:
    database = Database(tmp_path / "eventsink.db", schema=SCHEMA)
    await database.open()

    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (1)")
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        await database.write(fails)
    assert (
        await database.read(lambda connection: connection.execute("SELECT * FROM numbers").fetchall()) == []
    )
    await database.close()


async def test_no_cursor_leaves_the_thread_of_its_connection_open(tmp_path: Path) -> None:
    # An open one that the loop's thread drops resets a cached statement while the connection's thread uses it.
    database = Database(tmp_path / "eventsink.db", schema=SCHEMA)
    await database.open()
    cursor = await database.write(lambda connection: connection.execute("SELECT 1"))
    with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
        cursor.fetchone()
    await database.close()


async def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "eventsink.db"
    database = Database(path, schema=SCHEMA)
    await database.open()
    await database.close()
    with sqlite3.connect(path) as theirs:
        theirs.execute("PRAGMA user_version = 99")
    theirs.close()
    with pytest.raises(ForeignSchema, match="schema 99"):
        await Database(path, schema=SCHEMA).open()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "eventsink.db"
    path.write_text("notes of somebody else\n" * 100)
    with pytest.raises(ForeignSchema, match="not an eventsink database"):
        await Database(path, schema=SCHEMA).open()


async def test_a_file_that_is_only_read_is_not_made(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable, match="does not exist"):
            await Database(tmp_path / "eventsink.db", create=False).open()
