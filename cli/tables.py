"""What commands print: tables for people, safe for the terminal that shows them."""

from __future__ import annotations

import csv
import io
import os
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

#: Columns of a table that nothing bounds.
WIDEST = 100_000
#: Columns of a table for people, where no terminal is known: in a file, in a mail of cron's.
UNSEEN = 120
#: Columns of the terminal: between two of the table's, and at least for one that may take several lines.
GAP = 3
NARROWEST_WRAPPED = 20
#: Standard input and error, by which a terminal is known where stdout is a pipe.
_OTHERS = (0, 2)
#: A blank at which no line ends.
NO_BREAK = "\u00a0"

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
    at_most: int | None = None,
) -> None:
    """A table on stdout. ``right``: columns of numbers; ``wrap``: columns that may take several lines; ``gather``: the
    name of one column for all of ``right``, each number by its name, where there is no room for them.
    Nothing is cut, half a number is a wrong one: what is too wide for a terminal runs over its edge.
    ``at_most``: columns, where stdout is no terminal."""
    terminal = Console(highlight=False)
    room = terminal.width if terminal.is_terminal else at_most or WIDEST
    table, needed = made_table(columns, rows, room, right=right, wrap=wrap, gather=gather, caption=caption)
    width = max(room, needed)
    if terminal.is_terminal:
        Console(highlight=False, width=width).print(table)
        return
    piped = Console(highlight=False, width=width, file=io.StringIO())
    with piped.capture() as printed:
        piped.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def room_of_a_pager() -> int:
    """Columns for who reads a table that is piped: in a pager on the terminal that errors go to, if there is one. Rich
    finds its width, and what the variable COLUMNS says."""
    seen = "COLUMNS" in os.environ or any(map(os.isatty, _OTHERS))
    return Console().width if seen else UNSEEN


def made_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    room: int,
    *,
    right: frozenset[str] = frozenset(),
    wrap: frozenset[str] = frozenset(),
    gather: str | None = None,
    caption: str | None = None,
) -> tuple[Table, int]:
    """The table that ``print_table`` prints on ``room`` columns, and how many it needs."""
    cells = [[plain(_written(value)) for value in row] for row in rows]
    needed = _needed(columns, cells, wrap)
    if gather is not None and needed > room:
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
    return table, needed


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
                "  ".join(
                    f"{columns[column]}={row[column].replace(' ', NO_BREAK)}"
                    for column in numbers
                    if row[column]
                ),
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
