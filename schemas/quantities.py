"""Measured values as monitors write them: a number, or a text with a unit ("0.045 ms", "0%")."""

from __future__ import annotations

import re

from schemas.events import MAX_COUNT

Measured = float | str

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ns|us|µs|μs|ms|s|%|)\s*")
_IN_MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "": 1.0}


def milliseconds(measured: Measured | None, unit: str = "") -> float | None:
    """A duration in milliseconds, None where it cannot be read. ``unit`` is that of a bare number."""
    quantity = _quantity(measured)
    if quantity is None:
        return None
    number, own_unit = quantity
    factor = _IN_MILLISECONDS.get(own_unit or unit)
    if factor is None:
        return None
    ms = number * factor
    return ms if 0 <= ms <= MAX_COUNT else None


def share(measured: Measured | None) -> float | None:
    """A loss in percent, with the sign or without, as ping prints it: 0 to 1, None where it cannot be read."""
    quantity = _quantity(measured)
    if quantity is None or quantity[1] not in ("%", "") or not 0 <= quantity[0] <= 100:
        return None
    return quantity[0] / 100


def _quantity(measured: Measured | None) -> tuple[float, str] | None:
    """The number and its unit, "" where it has none."""
    if measured is None:
        return None
    if isinstance(measured, str):
        match = _QUANTITY.fullmatch(measured)
        return None if match is None else (float(match[1]), match[2])
    return (measured, "")
