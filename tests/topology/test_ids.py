"""Producers that repeat themselves."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.topology.stores import Stores, at_once, opened
from topology.group import ids as ids_module
from topology.group.ids import Ids, IdTable, Sighting
from topology.group.rows import RowCache
from topology.outages import Outages
from topology.position import Position, position


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path) as stores:
        yield stores


class Process:
    """What one process knows of ids; a new one is a restart."""

    def __init__(self, stores: Stores, first_version: int = 1) -> None:
        self.rows = RowCache(
            stores.state,
            {"ids/g": IdTable()},
            owing=[],
            versions=itertools.count(first_version),
            max_bytes=1 << 20,
            outages=Outages(sleep=at_once),
        )
        self.ids = Ids(self.rows, "ids/g")

    async def save(self) -> None:
        await self.rows.save(self.rows.dirty())


def seen(name: str, offset: int, second: int = 60) -> Sighting:
    return Sighting(second, name.encode().ljust(16), position(0, offset))


async def test_the_second_one_is_a_repetition_within_a_batch_and_between_batches(
    stores: Stores,
) -> None:
    ids = Process(stores).ids
    assert await ids.repeated([seen("a", 0), seen("b", 1), seen("a", 2)]) == {position(0, 2)}
    assert await ids.repeated([seen("b", 3), seen("c", 4)]) == {position(0, 3)}


async def test_the_same_id_in_another_second_is_another_event(stores: Stores) -> None:
    ids = Process(stores).ids
    assert await ids.repeated([seen("a", 0, 60), seen("a", 1, 61)]) == set()


async def test_a_replay_is_no_repetition_of_itself(stores: Stores) -> None:
    first = Process(stores)
    await first.ids.repeated([seen("a", 0), seen("a", 1)])
    await first.save()
    again = Process(stores, first_version=100)
    assert await again.ids.repeated([seen("a", 0), seen("a", 1)]) == {position(0, 1)}


async def test_a_crash_before_ids_are_saved_recognises_the_repetition_in_the_replay(
    stores: Stores,
) -> None:
    await Process(stores).ids.repeated([seen("a", 0), seen("a", 1)])
    again = Process(stores, first_version=100)
    assert await again.ids.repeated([seen("a", 0)]) == set()
    assert await again.ids.repeated([seen("a", 1)]) == {position(0, 1)}


async def test_a_crowded_second_continues_in_further_rows(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids_module, "FULL", 3)
    first = Process(stores)
    for n in range(20):
        assert await first.ids.repeated([seen(str(n), n)]) == set()
    await first.save()
    again = Process(stores, first_version=100)
    assert await again.ids.repeated([seen(str(n), 100 + n) for n in range(20)]) == {
        position(0, 100 + n) for n in range(20)
    }


@given(st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(0, 2**63 - 1)))
def test_a_row_of_ids_comes_back_as_it_was_stored(entries: dict[bytes, int]) -> None:
    table = IdTable()
    state = {identity: Position(at) for identity, at in entries.items()}
    assert table.unpack(table.pack(state)) == state
