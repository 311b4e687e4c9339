"""``GET /openapi.json`` and ``GET /docs``: the contract for machines, and Swagger UI for people.

Swagger UI's files are those of an installed package (docs/decisions/0030). Nothing is loaded from another host, and no
script is inline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp import web

from topology.errors import SettingsError
from topology.log import JSON
from web.assets import Asset
from web.problems import answered, encoded

#: The package that brings the files. It is never imported: that would import Flask.
SWAGGER_UI = "flask_swagger_ui"

#: What Swagger UI needs and no more: itself, its icons as ``data:``, and questions to where it came from.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Swagger UI is over a megabyte, and changes with a new version only. Nothing else is ever stored.
CACHED = "public, max-age=3600"


def swagger_ui() -> Path:
    """The folder with the files of Swagger UI. Raises ``SettingsError`` if its package is not installed."""
    found = find_spec(SWAGGER_UI)
    if found is None or not found.submodule_search_locations:
        raise SettingsError(f"the package {SWAGGER_UI} is missing: install eventsink with its dependencies")
    return Path(found.submodule_search_locations[0]) / "dist"


class Docs:
    """The handlers. ``document`` is the OpenAPI document, which is encoded once."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = encoded(document)
        ours, theirs = Path(str(files(__package__))), swagger_ui()
        self._page = (ours / "docs.html").read_bytes()
        self._assets = {
            "docs.css": Asset(ours / "docs.css", "text/css", CACHED),
            "docs.js": Asset(ours / "docs.js", "text/javascript", CACHED),
            "swagger-ui.css": Asset(theirs / "swagger-ui.css", "text/css", CACHED),
            "swagger-ui-bundle.js": Asset(theirs / "swagger-ui-bundle.js", "text/javascript", CACHED),
        }

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """The document, its page, and what the page loads."""
        return [
            web.get("/openapi.json", answered(self._show_document)),
            web.get("/docs", answered(self._show_page)),
            *(web.get(f"/docs/{name}", answered(asset.show)) for name, asset in self._assets.items()),
        ]

    async def _show_document(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._document, content_type=JSON)

    async def _show_page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=self._page,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": POLICY},
        )
