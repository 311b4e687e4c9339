"""Tables fit the terminal that shows them, and no number is cut."""

from __future__ import annotations

import re

import pytest

from cli.tables import print_table, room_of_a_pager

COLUMNS = ("time", "region", "up_s", "checks", "response_ms_mean")
ROWS = [
    ("2026-11-23T21:00:00Z", "eu-west", 3599.5, 1_234_567, 41.98403),
    ("2026-11-23T22:00:00Z", "all", 0.0),
]


def shown(capsys: pytest.CaptureFixture[str], at_most: int | None = None) -> list[str]:
    rows = [(*row, *[None] * (len(COLUMNS) - len(row))) for row in ROWS]
    print_table(COLUMNS, rows, right=frozenset(COLUMNS[2:]), gather="fields", at_most=at_most)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    return [line.rstrip() for line in text.splitlines()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What is printed takes stdout for a terminal, as wide as ``COLUMNS`` says."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    return monkeypatch


def test_where_a_terminal_is_too_narrow_each_number_stands_by_its_name(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.setenv("COLUMNS", "60")
    names, rule, *rows = shown(capsys)
    assert names.split() == ["time", "region", "fields"]
    assert rule == "─" * 60
    assert " ".join(" ".join(rows).split()) == (
        "2026-11-23T21:00:00Z eu-west up_s=3,599.5 checks=1,234,567 response_ms_mean=41.984 "
        "2026-11-23T22:00:00Z all up_s=0"
    )
    assert max(map(len, rows)) <= 60


@pytest.mark.parametrize("columns", ["71", "200"])
def test_where_a_terminal_is_wide_enough_numbers_have_columns(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    terminal.setenv("COLUMNS", columns)
    names, _, first, _ = shown(capsys)
    assert names.split() == list(COLUMNS)
    assert first.split() == ["2026-11-23T21:00:00Z", "eu-west", "3,599.5", "1,234,567", "41.984"]


@pytest.mark.parametrize("columns", ["60", None])
def test_what_is_piped_fits_the_terminal_of_the_pager_and_else_120_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str | None
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    names = shown(capsys, at_most=room_of_a_pager())[0].split()
    assert names == (["time", "region", "fields"] if columns else list(COLUMNS))
    print_table(("event",), [("word " * 100,)], wrap=frozenset({"event"}), at_most=room_of_a_pager())
    lines = capsys.readouterr().out.splitlines()
    assert "word" in lines[-1]
    assert 60 >= max(map(len, lines)) > 50 if columns else 120 >= max(map(len, lines)) > 110
