"""Key tags as they are stored: cleaned, and joined to the key of a row."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

#: In place of a value that is missing or empty.
UNKNOWN = "unknown"
#: In place of every value beyond the budget of its tag (``budgets``).
OTHER = "other"
MAX_TAG_CHARACTERS = 256
#: Control characters break line protocol and tables, a backslash escapes what follows it.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029\ud800-\udfff]")
#: No cleaned tag holds it.
SEPARATOR = "\x1f"


def clean_tag(value: str | None) -> str:
    """A key tag as it is stored: never empty, at most 256 characters, nothing that needs escaping twice."""
    if value is None:
        return UNKNOWN
    return _cleaned(value[:MAX_TAG_CHARACTERS])


@lru_cache(maxsize=50_000)
def _cleaned(value: str) -> str:
    return _UNFIT.sub("_", value) or UNKNOWN


def joined(tags: Iterable[str]) -> str:
    """Cleaned tags as one key."""
    return SEPARATOR.join(tags)


def taken_apart(key: str) -> tuple[str, ...]:
    """Inverse of ``joined``."""
    return tuple(key.split(SEPARATOR))
