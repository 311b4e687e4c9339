"""HTML and SVG, piece by piece. A text is escaped, a piece of markup is not: there is no third thing."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

#: Have no end tag.
_VOID = frozenset({"meta"})


class Html(str):
    """Markup."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """An element. ``class_`` is written without its underscore, ``aria_label`` with a hyphen."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[str]) -> Html:
    """Pieces, one after the other."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))
