"""Values that must not be seen: they hide themselves wherever they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit


def shown(url: str) -> str:
    """A URL as people may see it: without password, token or query.

    Everything up to the last ``@`` is taken for credentials, so that a password with an unescaped
    ``/``, ``#`` or ``@`` does not come out either.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    userinfo, at, place = rest.rpartition("@")
    place = re.split(r"[?#]", place, maxsplit=1)[0]
    if not at:
        return f"{scheme}://{place}"
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}://{user}:***@{place}" if colon else f"{scheme}://***@{place}"


class Secret:
    """A value that is not to be seen: ``str``, ``repr`` and formatting hide it, ``reveal`` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the connection that needs it and for nothing else."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __str__(self) -> str:
        return "***" if self._value else ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class SecretUrl(Secret):
    """A URL that may hold a password; seen without it."""

    __slots__ = ()

    @property
    def scheme(self) -> str:
        return self._value.partition(":")[0].lower()

    @property
    def path(self) -> Path:
        """The file of a ``sqlite`` URL."""
        return Path(unquote(urlsplit(self._value).path))

    @property
    def passwords(self) -> frozenset[str]:
        """The password as it is written in the URL and as it is meant; none where there is none."""
        userinfo, _, _ = self._value.partition("://")[2].rpartition("@")
        _, _, password = userinfo.partition(":")
        return frozenset({password, unquote(password)} - {""})

    def __str__(self) -> str:
        return shown(self._value)
