"""Rows in the formats in which they are answered.

    json      the document of the contract
    ndjson    a row a line
    csv       RFC 4180, with a line of names
    arrow     Arrow IPC stream           needs pyarrow: pip install '.[arrow]'
    parquet   Apache Parquet             needs pyarrow

An absent value is left out of JSON, empty in CSV and null in Arrow and Parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from topology.integers import is_integer_field
from topology.log import JSON, NDJSON
from web.documents import row_documents, rows_csv, rows_document
from web.problems import encoded
from web.rows import Found

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"

EXTRA = "pip install '.[arrow]' in the checkout of eventsink"


class Format(NamedTuple):
    """``write`` takes long of many rows. ``download``: what a browser is to keep as a file, with this ending."""

    content_type: str
    write: Callable[[Found], bytes]
    download: str | None = None


class NotInstalled(Exception):
    """A library that the format needs is missing. The message says how to install it."""


def json(found: Found) -> bytes:
    """``{"rollup", "window", "rows"}``; with ``cursor`` where pages were asked for, ``left_out`` where fields are."""
    document = rows_document(found.rollup.name, found.window, found.rows)
    if found.paged:
        document["cursor"] = found.cursor
    if found.left_out:
        document["left_out"] = found.left_out
    return encoded(document)


def ndjson(found: Found) -> bytes:
    """A row a line."""
    return b"".join(encoded(document) + b"\n" for document in row_documents(found.rows))


def csv(found: Found) -> bytes:
    """The rows with a line of names."""
    return rows_csv(found.key, found.fields, found.rows).encode(errors="replace")


def parquet(found: Found) -> bytes:
    """One row group, compressed with Snappy."""
    table = _table(found)
    sink = _pyarrow("pyarrow").BufferOutputStream()
    _pyarrow("pyarrow.parquet").write_table(table, sink)
    return bytes(sink.getvalue())


def arrow(found: Found) -> bytes:
    """An IPC stream of one table."""
    pyarrow = _pyarrow("pyarrow")
    table = _table(found)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


FORMATS: Mapping[str, Format] = {
    "json": Format(JSON, json),
    "csv": Format(CSV, csv),
    "ndjson": Format(NDJSON, ndjson),
    "parquet": Format(PARQUET, parquet, "parquet"),
    "arrow": Format(ARROW, arrow, "arrows"),
}


def _table(found: Found) -> Any:
    """Time in seconds and UTC, tags as dictionaries, counts as int64, everything else as double."""
    pyarrow = _pyarrow("pyarrow")
    tag = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    columns: dict[str, Any] = {
        "time": pyarrow.array((row.time for row in found.rows), pyarrow.timestamp("s", tz="UTC"))
    }
    tags = [dict(row.tags) for row in found.rows]
    for name in found.key:
        columns[name] = pyarrow.array((each.get(name) for each in tags), pyarrow.string()).cast(tag)
    for name in found.fields:
        kind = pyarrow.int64() if is_integer_field(found.rollup.name, name) else pyarrow.float64()
        columns[name] = pyarrow.array((row.fields.get(name) for row in found.rows), kind)
    metadata = {"rollup": found.rollup.name, "window": found.window}
    return pyarrow.table(columns).replace_schema_metadata(metadata)


def _pyarrow(module: str) -> Any:
    # Imported where it is used: 100 MB that most installations do without.
    try:
        return import_module(module)
    except ImportError:
        raise NotInstalled(
            f"Parquet and Arrow need pyarrow, which is not installed: {EXTRA}, or take csv or json"
        ) from None
