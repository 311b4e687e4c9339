"""A log to be followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.monitors.rotated import Rotated


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Rotated]:
    """An empty log at which nobody has looked."""
    made = Rotated(tmp_path)
    yield made
    made.close()


@pytest.fixture
def rotated(log: Rotated) -> Rotated:
    """A log of which some lines were read."""
    log.look()
    log.write(3)
    log.look()
    return log
