from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.identity import identity

triples = st.tuples(st.none() | st.text(), st.text(), st.integers(0, 2**60))


@given(triples, triples)
def test_two_identities_are_equal_only_if_all_three_are(
    one: tuple[str | None, str, int], other: tuple[str | None, str, int]
) -> None:
    assert (identity(*one) == identity(*other)) == (one == other)


def test_no_two_triples_are_written_alike() -> None:
    alike: list[tuple[str | None, str, int]] = [
        ("a", "bc", 1),
        ("ab", "c", 1),
        ("abc", "", 1),
        ("", "abc", 1),
        (None, "abc", 1),
        ("-", "abc", 1),
        ("a", "b", 11),
        ("a", "b1", 1),
        ("1:a", "b", 1),
        ("ä", "b", 1),
        ("a\u0308", "b", 1),
    ]
    assert len({identity(*triple) for triple in alike}) == len(alike)


def test_the_encoding_never_changes() -> None:
    # The state of every installation holds these bytes.
    assert identity("prod", "42", 1_795_467_603_855).hex() == "8b40da102eb82f64633c700a983893dc"
    assert identity(None, "", 0).hex() == "cb2e1c72897d3b0cbd1482b845225d92"


def test_halves_of_surrogate_pairs_do_not_raise() -> None:
    assert len(identity("\ud800", "\udfff", 0)) == 16
