"""Types of events as a person names them: whole, or by a pattern such as ``health.*``."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from schemas.events import EVENT_TYPES

NAMES: Sequence[str] = tuple(str(kind.__struct_config__.tag) for kind in EVENT_TYPES)

#: What is longer resembles none of them.
LONGEST_TYPE = 40


class NoSuchType(ValueError):
    """No event has a type like this. The message names those that there are."""


def types_of(patterns: Iterable[str]) -> Sequence[str]:
    """The types that any of these names or patterns means, each once. Raises ``NoSuchType``."""
    found: dict[str, None] = {}
    for pattern in patterns:
        meant = [name for name in NAMES if fnmatchcase(name, pattern)]
        if not meant:
            raise NoSuchType(f"no event has a type like {pattern!r}: {instead_of(pattern)}")
        found.update(dict.fromkeys(meant))
    return tuple(found)


@functools.lru_cache(
    maxsize=1024
)  # who sends a wrong type sends it again and again, and the search takes 0.2 ms
def instead_of(name: str) -> str:
    """What may be meant by a name or pattern that is none: the end of a message. ``name``: some dozens of
    characters."""
    close = difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0.75)
    if close:
        return f"did you mean {close[0]}?"
    family = name.partition(".")[0]
    of_it = [each.removeprefix(f"{family}.") for each in NAMES if each.startswith(f"{family}.")]
    if of_it:
        return f"{family}.* are {', '.join(of_it)}"
    families = dict.fromkeys(f"{each.partition('.')[0]}.*" for each in NAMES)
    return f"choose of {', '.join(families)} (`eventsink schema --list` has all)"
