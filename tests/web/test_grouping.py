"""Rows taken together and rows as CSV, against what takes longer and is plainly right."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from schemas.times import rfc3339
from topology.rollups.combining import Combining
from topology.sinks import Value
from web.documents import MadeRow, Row, Tags, rows_csv
from web.grouping import Grouping

KEY = ("action", "kind", "space")
COMBINING: Mapping[str, Combining] = {"n": "sum", "least": "min", "most": "max"}

#: Few of each, so that groups have several rows.
tags = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(["1", "2", "all"]))
fields = st.dictionaries(st.sampled_from(list(COMBINING)), st.none() | st.integers(0, 2**62))
addresses = st.dictionaries(st.tuples(st.integers(-2, 2), tags), fields, max_size=20)


def ascending(stored: Mapping[tuple[int, tuple[str, ...]], Mapping[str, Value | None]]) -> list[Row]:
    """Rows as a store gives them; equal tags are not the same object."""
    return [
        MadeRow(3600 * hour, tuple(zip(KEY, of, strict=True)), values)
        for (hour, of), values in sorted(stored.items(), key=lambda each: each[0])
    ]


def plainly(
    rows: Sequence[Row], kept: Sequence[str], *, total: bool, without: Mapping[str, str]
) -> list[Row]:
    """The same as ``Grouping.of``: by the definition, one group after another."""

    def place(row: Row) -> tuple[int, Tags]:
        return 0 if total else row.time, tuple(pair for pair in row.tags if pair[0] in kept)

    counted = [row for row in rows if not set(row.tags) & set(without.items())]
    made = []
    for at in {place(row) for row in counted}:
        members = [row for row in counted if place(row) == at]
        values: dict[str, Value | None] = {}
        for name, combine in (("n", sum), ("least", min), ("most", max)):
            numbers = [number for row in members if (number := row.fields.get(name)) is not None]
            if numbers:
                values[name] = min(combine(numbers), 2**63 - 1)
        made.append(MadeRow(min(row.time for row in members), at[1], values))
    return sorted(made, key=lambda row: (row.time, row.tags))


@given(
    stored=addresses,
    kept=st.sets(st.sampled_from(KEY), max_size=2),
    total=st.booleans(),
    leaves_out=st.booleans(),
)
def test_rows_taken_together_are_those_of_the_definition(
    stored: Mapping[tuple[int, tuple[str, ...]], Mapping[str, Value | None]],
    kept: set[str],
    total: bool,
    leaves_out: bool,
) -> None:
    rows = ascending(stored)
    without = {"space": "all"} if leaves_out and "space" not in kept else {}
    grouping = Grouping(
        combining=COMBINING,
        key=tuple(tag for tag in KEY if tag in kept),
        over=tuple(tag for tag in KEY if tag not in kept),
        total=total,
        without=without,
        renamed=True,
    )
    assert grouping.of(rows) == plainly(rows, tuple(kept), total=total, without=without)


numbers = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(
    stored=st.dictionaries(
        st.tuples(
            st.integers(0, 3), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
        ),
        st.dictionaries(st.sampled_from(["a", "b", "c"]), numbers),
        max_size=8,
    ),
    asked=st.permutations(["a", "b", "c"]).flatmap(
        lambda names: st.integers(0, 3).map(lambda count: tuple(names[:count]))
    ),
)
def test_csv_read_again_is_the_rows(
    stored: Mapping[tuple[int, str], Mapping[str, Value | None]], asked: tuple[str, ...]
) -> None:
    rows = [MadeRow(3600 * hour, (("space", space),), values) for (hour, space), values in stored.items()]
    read = list(csv.reader(io.StringIO(rows_csv(("space",), asked, rows), newline="")))
    assert read[0] == ["time", "space", *asked]
    for cells, row in itertools.zip_longest(read[1:], rows):
        assert cells[:2] == [rfc3339(row.time * 1000), row.tags[0][1]]
        values = [row.fields.get(name) for name in asked]
        read_as = zip(cells[2:], values, strict=True)
        again = [
            None if value is None and cell == "" else (float if isinstance(value, float) else int)(cell)
            for cell, value in read_as
        ]
        assert again == values
