"""How stored values of several rows make one value, and where they cannot.

A row's cells merge (``measures``). What a sink keeps is only their values, and of those not all do: the quantile of a
whole is not in the quantiles of its parts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias


class Ratio(NamedTuple):
    """Made anew of sums: those of ``part``, divided by those of ``whole``. None where the whole is zero."""

    part: tuple[str, ...]
    whole: tuple[str, ...]


class Lost(NamedTuple):
    """Not to be had from stored values, and why."""

    why: str


#: ``sum``, ``min`` and ``max`` are those of the values that there are.
Combining: TypeAlias = Literal["sum", "min", "max"] | Ratio | Lost

QUANTILES = Lost("the quantile of a whole does not follow from the quantiles of its parts")
MEANS = Lost("how many values are behind each mean is not stored")
DISTINCT = Lost("the same user may be in several rows and would be counted in each")
