"""Parts of a statement in InfluxQL (https://docs.influxdata.com/influxdb/v1/query_language/spec/)."""

from __future__ import annotations

#: InfluxDB keeps time in signed 64-bit nanoseconds; bounds beyond them are an error there.
MOST_S = 9_223_372_036


def identifier(name: str) -> str:
    """A measurement, tag or field, quoted."""
    return '"' + _quoted(name).replace('"', '\\"') + '"'


def string(text: str) -> str:
    """A text, quoted."""
    return "'" + _quoted(text).replace("'", "\\'") + "'"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def seconds(at: int) -> str:
    """A time in epoch seconds, within what there can be."""
    return f"{max(-MOST_S, min(at, MOST_S))}s"
