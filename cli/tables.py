"""What commands print: tables for people, safe for the terminal that shows them."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    caption: str | None = None,
) -> None:
    """A table on stdout. ``right``: columns of numbers; ``wrap``: columns that may take several lines.
    Wider than a terminal only where there is none: output for a file or pipe is never cut."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=100_000)
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, caption=caption, caption_justify="left"
    )
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in wrap,
            overflow="fold" if column in wrap else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(plain(_written(value))) for value in row))
    console.print(table)


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
