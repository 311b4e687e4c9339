"""A running application for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.web.serving import Served, served


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Served]:
    """Bound to loopback, over empty embedded stores."""
    async with served(tmp_path) as running:
        yield running
