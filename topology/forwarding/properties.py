"""What of an event may go to a third party. An allow list: a field that is not here stays, whatever it holds.

Names, e-mail addresses and titles never go out. A text that could hold one is left out or, where something has to be
said of it (a user, a page), replaced.
"""

from __future__ import annotations

import hashlib
import re
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

#: No spaces and no ``@``: what is written so is an id, not a person or a title.
_PLAIN = re.compile(r"[A-Za-z0-9._:/+-]{1,256}")
_USER = re.compile(r"[A-Za-z0-9._:-]{5,128}")
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
        if isinstance(value, int) or (isinstance(value, str) and _PLAIN.fullmatch(value)):
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
    """The user's id as vendors take it; None for whoever is not known. One that could be a name's or an address is
    replaced by a text that is always the same for it."""
    given = event.user_id
    if given is None or given.strip().lower() in _NOBODY or not given.strip("0") or given == ANONYMOUS:
        return None
    return given if _USER.fullmatch(given) else f"user-{derived(given)}"


def derived(*texts: str | None) -> str:
    """32 hex digits that follow from the texts and do not tell them."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = b"-" if text is None else text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(encoded), encoded))
    return digest.hexdigest()[:32]
