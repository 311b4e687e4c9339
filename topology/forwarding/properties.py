"""What of an event may go to a third party. An allow list: a field that is not here stays, whatever it holds.

Names, e-mail addresses and titles never go out. A text that could hold one is left out or, where something has to be
said of it (whose, of what, which page), replaced: only what is plainly an id goes out as it is (docs/decisions/0039).
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from urllib.parse import urlsplit

from schemas.clowder1 import ANONYMOUS
from schemas.events import Event, PageViewed

#: Fields of events that go out, under the same names.
ALLOWED = (
    "source",
    "resource_type",
    "resource_id",
    "dataset_id",
    "space_id",
    "file_id",
    "job_id",
    "extractor",
    "bytes",
    "items",
)
#: Those that name something of a person's, with what stands before the digest.
_IDS = {
    "resource_id": "resource",
    "dataset_id": "dataset",
    "space_id": "space",
    "file_id": "file",
    "job_id": "job",
}

#: Of installations, programs and kinds of things. No spaces and no ``@``.
_PLAIN = re.compile(r"[A-Za-z0-9._:/+-]{1,256}")
#: ObjectId, UUID, ULID, number, or a number behind a letter or two. A word could be a name.
_ID = re.compile(
    r"[0-9a-fA-F]{24}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-7][0-9A-HJKMNP-TV-Z]{25}"
    r"|(?:[A-Za-z]{1,2}[-_]?)?[0-9]{1,20}"
)
#: Vendors take no shorter ones.
_SHORTEST_USER_CHARACTERS = 5
#: Ids that vendors refuse, and whoever is not logged in.
_NOBODY = frozenset({"anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown", "-1", ""})
#: Parts of a path that are the same for everybody.
_ROUTES = frozenset(
    {
        "about",
        "activity",
        "admin",
        "api",
        "archive",
        "collections",
        "dashboard",
        "dataset",
        "datasets",
        "download",
        "downloads",
        "explore",
        "extractions",
        "extractors",
        "file",
        "files",
        "folders",
        "help",
        "home",
        "index",
        "login",
        "logout",
        "metadata",
        "new",
        "profile",
        "search",
        "settings",
        "signup",
        "spaces",
        "tags",
        "upload",
        "uploads",
        "user",
        "users",
        "v1",
        "v2",
        "view",
    }
)
_ID_IN_PATH = re.compile(r"[0-9a-f]{24}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{1,12}")


def properties(event: Event) -> dict[str, str | int]:
    """The fields that may go out and are there."""
    found: dict[str, str | int] = {}
    for name in ALLOWED:
        value = getattr(event, name, None)
        if isinstance(value, str) and name in _IDS:
            if value:
                found[name] = value if _ID.fullmatch(value) else f"{_IDS[name]}-{derived(value)}"
        elif isinstance(value, int) or (isinstance(value, str) and _PLAIN.fullmatch(value)):
            found[name] = value
    if isinstance(event, PageViewed):
        found["page"] = page(event.url)
    return found


def page(url: str) -> str:
    """Host and path of an address. Parts of the path that are neither well known nor ids become ``*``."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "*"
    if not re.fullmatch(r"[a-z0-9.-]*", host):
        host = "*"
    path = "/".join(
        part if part in _ROUTES or _ID_IN_PATH.fullmatch(part) or not part else "*"
        for part in parts.path.split("/")
    )
    return f"{host}{path or '/'}"


def user_of(event: Event) -> str | None:
    """The user's id as vendors take it; None for whoever is not known. One that could be a name or an address is
    replaced by a text that is always the same for it."""
    given = event.user_id
    if given is None or given.strip().lower() in _NOBODY or not given.strip("0") or given == ANONYMOUS:
        return None
    plain = len(given) >= _SHORTEST_USER_CHARACTERS and _ID.fullmatch(given)
    return given if plain else f"user-{derived(given)}"


@lru_cache(maxsize=4096)
def derived(*texts: str | None) -> str:
    """32 hex digits that follow from the texts and do not tell them."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = b"-" if text is None else text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(encoded), encoded))
    return digest.hexdigest()[:32]
