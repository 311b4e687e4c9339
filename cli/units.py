"""Numbers of rollups as a person reads them. The unit follows from the name of the field.

bytes, bytes_added        1.2 GiB
up_s, runtime_s_p95       3 m 4 s
response_ms_mean          12.5 ms
uptime_ratio, coverage    99.95 %
everything else           1,234.5
"""

from __future__ import annotations

from collections.abc import Sequence

from topology.rollups.combining import Combining, Ratio
from topology.sinks import Value

_SIZES = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_BLOCKS = "▁▂▃▄▅▆▇█"
_NOTHING = "·"


def in_words(field: str, value: Value | None) -> str:
    """The value of a field with its unit; nothing of None."""
    if value is None:
        return ""
    parts = field.split("_")
    if parts[0] == "bytes":
        return size(value)
    if parts[-1] in {"ratio", "coverage"}:
        return share(value)
    if parts[-1] == "count":
        return number(value)
    if "ms" in parts:
        return duration(value / 1000)
    if "s" in parts:
        return duration(value)
    return number(value)


def number(value: Value) -> str:
    """Whole ones whole, others with up to three digits behind the point."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def size(value: Value) -> str:
    """Bytes, in powers of 1024."""
    if abs(value) < 1024:
        return f"{number(value)} B"
    scaled = float(value)
    for unit in _SIZES:
        scaled /= 1024
        # 1023.96 would be written as 1024.0.
        if abs(scaled) < 1023.95 or unit == _SIZES[-1]:
            break
    return f"{scaled:,.1f} {unit}"


def duration(seconds: float) -> str:
    """The two largest units that it has."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{_digits(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{_digits(seconds)} s"
    whole = round(seconds)
    for large, of_large, small, of_small in (
        ("d", 86_400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if whole >= of_large:
            rest = whole % of_large // of_small
            return f"{whole // of_large:,} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def share(ratio: float) -> str:
    """Per cent. What is not all is not rounded up to it, nor what is something down to nothing."""
    per_cent = ratio * 100
    if 99.99 < per_cent < 100:
        return "> 99.99 %"
    if 0 < per_cent < 0.01:
        return "< 0.01 %"
    return f"{per_cent:.2f}".rstrip("0").rstrip(".") + " %"


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def sparkline(
    values: Sequence[Value | None], *, width: int | None = None, combining: Combining = "sum"
) -> str:
    """The values as blocks from zero to the highest, a dot for what there is not. ``width``: of more values, so many
    blocks at most. Those that share one are, by how the field is combined, their mean if it is a sum (blocks may hold
    one value more or less than others), the least if it is a least or a ratio (an outage must not vanish), or else the
    most."""
    if width is not None and len(values) > width:
        values = [
            _block(values[place * len(values) // width : (place + 1) * len(values) // width], combining)
            for place in range(width)
        ]
    highest = max((value for value in values if value is not None), default=0)
    top = len(_BLOCKS) - 1
    return "".join(
        _NOTHING if value is None else _BLOCKS[min(top, round(value / highest * top)) if highest > 0 else 0]
        for value in values
    )


def _block(values: Sequence[Value | None], combining: Combining) -> Value | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    if combining == "sum":
        # Where there is nothing, nothing was added.
        return sum(there) / len(values)
    return min(there) if combining == "min" or isinstance(combining, Ratio) else max(there)
