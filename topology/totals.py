"""Points folded by the store that holds them: of thousands of keys only the totals travel."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias


class MaxOf(NamedTuple):
    """The largest of those points whose field ``counted_by`` is above zero. A point of which a correction has taken
    back all still holds the maximum of before: InfluxDB keeps a field that a later write left out."""

    counted_by: str


#: How the values of several points become one.
Fold: TypeAlias = Literal["sum", "max"] | MaxOf


def whole(number: int | float) -> int | float:
    """The integer that a float of whole value is: stores add up as floats, so as never to overflow."""
    return int(number) if isinstance(number, float) and number.is_integer() else number
