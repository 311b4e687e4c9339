"""Addresses that hold secrets: where such a one is shown, and what must not be seen of it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote_plus, urlsplit

#: A part of a path that is as long is a token as often as not.
TOKEN_CHARACTERS = 16
#: A shorter one is a part of ordinary words: hiding it would hide what is wrong.
SHORTEST_HIDDEN_CHARACTERS = 4


def shown(url: str) -> str:
    """The address without credentials, query and long parts of the path."""
    parts = urlsplit(url)
    path = "/".join("***" if len(part) >= TOKEN_CHARACTERS else part for part in parts.path.split("/"))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"


def tokens(url: str) -> Sequence[str]:
    """What of it may be a secret, as it is written and as it is meant. The longest first, so that none is left in
    part."""
    parts = urlsplit(url)
    found = {
        parts.password or parts.username or "",
        parts.query,
        *(pair.partition("=")[2] for pair in parts.query.split("&")),
        *(part for part in parts.path.split("/") if len(part) >= TOKEN_CHARACTERS),
    }
    found |= {unquote_plus(each) for each in found}
    return sorted((each for each in found if len(each) >= SHORTEST_HIDDEN_CHARACTERS), key=len, reverse=True)
