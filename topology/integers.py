"""Which fields of rollups hold integers. InfluxDB's answers do not tell 3 from 3.0."""

from __future__ import annotations

_COUNTS = "events items checks failures fetches unique_users messages_max connections_max"
_JOBS = "submitted started succeeded failed skipped retried"
_BYTES = "bytes bytes_added bytes_removed"
_INTEGERS = frozenset(f"{_COUNTS} {_JOBS} {_BYTES}".split())


def is_integer_field(rollup: str, field: str) -> bool:
    """Whether a field holds integers: counts of anything, and sums of bytes. Every other one holds floats."""
    return field in _INTEGERS or field.startswith("files_") or field.endswith("_count")
