"""Both ways to keep state, raw events and dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.servers.mongo import Mongo
from tests.topology.keeping import IMPATIENT, Kept


@pytest.fixture(params=["sqlite", pytest.param("mongo", marks=pytest.mark.servers)])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    mongo = request.getfixturevalue("mongo") if request.param == "mongo" else None
    kept = Kept(tmp_path, mongo)
    yield kept
    await kept.close()


@pytest.fixture
async def on_mongo(mongo: Mongo, tmp_path: Path) -> AsyncIterator[Kept]:
    """Only on MongoDB, for tests of its outages: an absent server is noticed soon."""
    kept = Kept(tmp_path, mongo, IMPATIENT)
    yield kept
    await kept.close()
