"""Which events are forwarded at all. What is left out is counted by reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from schemas.events import EVENT_TYPES
from topology.batch import LogEvent

#: Why an event is not sent: of a type that is not selected, left out by the sample, without consent, too old for the
#: vendor, or of a kind that the vendor has nothing for.
Reason: TypeAlias = Literal["type", "sample", "consent", "too_old", "unknown_to_vendor"]

#: What machines measured of machines is nobody's behaviour.
NEVER = "health.*"


class Rule(NamedTuple):
    """``pattern`` of types (``traffic.*``) and the share of users, 0 to 1, whose events of these types go out."""

    pattern: str
    share: float = 1.0


#: What people do: uploads, extractions, views, downloads, log-ins.
EVERYTHING = (Rule("storage.*"), Rule("extraction.*"), Rule("traffic.*"), Rule("activity.*"))


@dataclass(frozen=True)
class Selection:
    """The first rule whose pattern fits decides; a type that none fits is left out, and so is ``health.*``."""

    rules: tuple[Rule, ...] = EVERYTHING

    def reason(self, event: LogEvent) -> Reason | None:
        """Why this event is not sent; None: it is."""
        share = _share(self.rules, event.event.type)
        if share is None:
            return "type"
        if event.event.consent is False or _withheld(event.original):
            return "consent"
        if share < 1.0 and _drawn(event) >= share:
            return "sample"
        return None

    def types(self) -> Sequence[tuple[str, float]]:
        """Every type that goes out, and the share of it."""
        found = ((str(kind.__struct_config__.tag), kind) for kind in EVENT_TYPES)
        return [(name, share) for name, _ in found if (share := _share(self.rules, name)) is not None]


@lru_cache(maxsize=1024)
def _share(rules: tuple[Rule, ...], type: str) -> float | None:
    if fnmatchcase(type, NEVER):
        return None
    return next((rule.share for rule in rules if fnmatchcase(type, rule.pattern)), None)


def _drawn(event: LogEvent) -> float:
    """0 to 1, the same for all events of a user, so that what is left is whole stories; without a user, by position."""
    drawn_by = event.event.user_id or f"position {event.position}"
    digest = hashlib.blake2b(drawn_by.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _withheld(original: bytes) -> bool:
    """Foreign shapes have no consent of their own; whoever adds one to them means it all the same."""
    if b"consent" not in original:
        return False
    try:
        found = json.loads(original.decode("utf-8", "replace").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return False  # it was read as an event: then there is no such member at its top
    if not isinstance(found, dict):
        return False
    attributes = found.get("cloudevent")
    extension = attributes.get("consent") if isinstance(attributes, dict) else None
    return found.get("consent") is False or extension in (False, "false")
