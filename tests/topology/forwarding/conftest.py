from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.topology.engine import unsynced
from tests.topology.stores import Stores, opened


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    """The embedded stores, which wait for no disk."""
    async with opened(tmp_path) as made:
        await unsynced(made)
        yield made
