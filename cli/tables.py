"""What commands print: tables for people, safe for the terminal that shows them."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Sequence

import click
import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Columns of a table that no terminal bounds.
WIDEST = 100_000
#: Columns of the terminal: between two of the table's, and at least for one that may take several lines.
GAP = 3
NARROWEST_WRAPPED = 20

#: Control characters (terminals obey some of them), bidirectional overrides, lone surrogates.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """The text with everything that a terminal would obey instead of show written as an escape."""
    return _UNFIT.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: frozenset[str] = frozenset(),
    wrap: frozenset[str] = frozenset(),
    gather: str | None = None,
    caption: str | None = None,
) -> None:
    """A table on stdout. ``right``: columns of numbers; ``wrap``: columns that may take several lines; ``gather``: the
    name of one column for all of ``right``, each number by its name, where a terminal is too narrow for them.
    Nothing is cut, half a number is a wrong one: what is too wide for a terminal runs over its edge."""
    cells = [[plain(_written(value)) for value in row] for row in rows]
    terminal = Console(highlight=False)
    needed = _needed(columns, cells, wrap)
    if gather is not None and terminal.is_terminal and needed > terminal.width:
        columns, cells = _gathered(columns, cells, right, gather)
        wrap = frozenset({gather})
        needed = _needed(columns, cells, wrap)
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, caption=caption, caption_justify="left"
    )
    for name in columns:
        table.add_column(
            name, justify="right" if name in right else "left", no_wrap=name not in wrap, overflow="fold"
        )
    for row in cells:
        table.add_row(*map(Text, row))
    if terminal.is_terminal:
        Console(highlight=False, width=max(terminal.width, needed)).print(table)
        return
    wide = Console(highlight=False, width=WIDEST, file=io.StringIO())
    with wide.capture() as printed:
        wide.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def _needed(columns: Sequence[str], cells: Sequence[Sequence[str]], wrap: frozenset[str]) -> int:
    """How wide a terminal has to be for these."""
    needed = GAP * (len(columns) - 1)
    for column, name in enumerate(columns):
        widest = max(map(cell_len, [name, *(row[column] for row in cells)]))
        needed += min(widest, NARROWEST_WRAPPED) if name in wrap else widest
    return needed


def _gathered(
    columns: Sequence[str], cells: Sequence[Sequence[str]], right: frozenset[str], name: str
) -> tuple[Sequence[str], list[list[str]]]:
    """The same with the columns in ``right`` in one. Not a blank between name and number, or a line may end there."""
    left = [column for column, each in enumerate(columns) if each not in right]
    numbers = [column for column, each in enumerate(columns) if each in right]
    return (
        [*(columns[column] for column in left), name],
        [
            [
                *(row[column] for column in left),
                "  ".join(f"{columns[column]}={row[column]}" for column in numbers if row[column]),
            ]
            for row in cells
        ],
    )


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows as CSV on stdout, with the names first."""
    print_bytes(csv_lines([columns, *rows]))


def csv_lines(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as CSV (RFC 4180)."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def print_json(document: object) -> None:
    """A document as JSON on stdout, one line."""
    print_bytes(msgspec.json.encode(document) + b"\n")


def print_bytes(content: bytes) -> None:
    """Bytes on stdout as they are, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
