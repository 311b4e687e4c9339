"""``GET /docs/runbook``: docs/runbook.md as a page, to whose paragraphs the alerts link. It needs no key: whoever is
woken has none at hand, and nothing in it is about this installation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from aiohttp import web
from markdown_it import MarkdownIt
from markdown_it.token import Token

from web.assets import Asset
from web.problems import answered

#: A page and its style, and nothing that could be run.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
#: Unlike a file of a version it has no name of its own: whoever reads it is to have the present one.
CACHED = "no-cache"


def anchor(heading: str) -> str:
    """As GitHub makes it, so that the alerts' links hold in both places."""
    return re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")


def page(text: str) -> str:
    """The whole page, of Markdown. Links to files of the source tree, which are not here, are text."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(tokens[at + 1].content))
        if token.children is not None:
            token.children = _without_links_to_files(token.children)
    title = next((tokens[at + 1].content for at, token in enumerate(tokens) if token.tag == "h1"), "")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>eventsink: {escape(title)}</title>\n"
        '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="/docs/docs.css">\n</head>\n<body>\n'
        '<nav><a href="/">eventsink</a> <a href="/docs">API</a></nav>\n'
        f'<main class="prose">\n{markdown.renderer.render(tokens, markdown.options, {})}</main>\n</body>\n</html>\n'
    )


def _without_links_to_files(inline: Sequence[Token]) -> list[Token]:
    kept, open_ones = [], []
    for token in inline:
        if token.type == "link_open":
            open_ones.append(str(token.attrGet("href")).startswith(("#", "https://")))
            if not open_ones[-1]:
                continue
        elif token.type == "link_close" and not open_ones.pop():
            continue
        kept.append(token)
    return kept


class Runbook(Asset):
    """The page, made when it is first asked for."""

    def __init__(self) -> None:
        source = Path(str(files(__package__))).parent / "docs" / "runbook.md"
        super().__init__(source, "text/html", CACHED, policy=POLICY)

    def made_of(self, file: bytes) -> bytes:
        return page(file.decode("utf-8")).encode()


def routes() -> Sequence[web.AbstractRouteDef]:
    """The one."""
    return [web.get("/docs/runbook", answered(Runbook().show))]
