"""One event of each type that is ever forwarded, with every field: by them a vendor's shapes are proved."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from schemas.events import EVENT_TYPES
from topology.batch import LogEvent
from topology.forwarding.selection import NEVER
from topology.position import Position

_TEXTS = ("file_id", "dataset_id", "space_id", "resource_id", "job_id", "user_id")
#: An id as Clowder makes them.
_ID = "5f3a1c2b9d8e7f6a5b4c3d2e"
_VALUES: dict[str, object] = {
    **dict.fromkeys(_TEXTS, _ID),
    "source": "clowder",
    "resource_type": "dataset",
    "extractor": "ncsa.wordcount",
    "url": "https://clowder.example/datasets",
    "bytes": 1,
    "items": 1,
}


def samples(at_ms: int) -> Sequence[LogEvent]:
    """Made of nobody's data, at this time."""
    found = []
    for kind in EVENT_TYPES:
        if fnmatchcase(str(kind.__struct_config__.tag), NEVER):
            continue
        fields = {name: _VALUES[name] for name in kind.__struct_fields__ if name in _VALUES}
        found.append(LogEvent(Position(0), at_ms, at_ms, kind(time=at_ms, **fields), b""))  # type: ignore[arg-type] # by name
    return found
