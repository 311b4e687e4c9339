"""The tests that docs/security.md names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def named() -> list[tuple[Path, str | None]]:
    """Files and, where one is named, the test in it; ``::name`` alone belongs to the file before it."""
    found: list[tuple[Path, str | None]] = []
    file = ROOT
    for path, test in re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)?(?:::(\w+))?`", PAGE):
        if path:
            file = ROOT / path if path.startswith("tests/") else ROOT / "tests" / "web" / path
        if path or test:
            found.append((file, test or None))
    return found


def test_every_test_that_is_named_is_there() -> None:
    tests = named()
    assert len(tests) > 30
    for file, test in tests:
        assert file.is_file(), file
        assert test is None or re.search(rf"^(async )?def {test}\(", file.read_text(), re.MULTILINE), (
            file,
            test,
        )


def test_every_risk_of_the_list_has_its_row() -> None:
    assert re.findall(r"^\| API(\d+) ", PAGE, re.MULTILINE) == [str(number) for number in range(1, 11)]
