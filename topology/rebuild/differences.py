"""What a rebuild tells of windows: which they are, and how what they say differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.times import rfc3339
from topology.rollups.operators import AnyRollup

#: Differences that are told one by one.
MOST_TOLD = 1000


class Differences:
    """Counts and lines of one rebuild."""

    def __init__(self, rollup: AnyRollup) -> None:
        self._rollup = rollup
        self.windows = 0
        self.changed = 0
        self.told: list[str] = []
        self.refused: list[str] = []

    def refuse(self, window: str, at: int, tags: Sequence[str], before: int, after: int) -> None:
        """A window is left alone."""
        self.refused.append(
            f"{self._address(window, at, tags)}: {before} events in it, the archive holds {after}"
        )

    def compare(
        self,
        window: str,
        at: int,
        tags: Sequence[str],
        old: Mapping[str, object],
        new: Mapping[str, object],
    ) -> bool:
        """Whether a window is other than before."""
        if old == new:
            return False
        self.changed += 1
        if len(self.told) < MOST_TOLD:
            names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            said = ", ".join(f"{name} {_shown(old.get(name))} → {_shown(new.get(name))}" for name in names)
            self.told.append(f"{self._address(window, at, tags)}: {said}")
        return True

    def _address(self, window: str, at: int, tags: Sequence[str]) -> str:
        # A row of a service is one of all its regions.
        named = " ".join(f"{name}={value}" for name, value in zip(self._rollup.key, tags, strict=False))
        return f"{window} {rfc3339(at * 1000)} {named}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return "nothing" if value is None else str(value)
