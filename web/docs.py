"""``GET /openapi.json`` and ``GET /docs``: the contract for machines, and Swagger UI for people.

Swagger UI's files are those of an installed package (docs/decisions/0030). Nothing is loaded from another host, and no
script is inline.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp import web

from topology.errors import SettingsError
from topology.log import JSON
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
            "docs.css": _Asset(ours / "docs.css", "text/css"),
            "docs.js": _Asset(ours / "docs.js", "text/javascript"),
            "swagger-ui.css": _Asset(theirs / "swagger-ui.css", "text/css"),
            "swagger-ui-bundle.js": _Asset(theirs / "swagger-ui-bundle.js", "text/javascript"),
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


class _Asset:
    """A file that the page loads. Read, and packed, once, when it is first asked for: not everybody looks at the page,
    and packing it for each request would be work that anybody can make us do."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = kind
        self._reading: asyncio.Task[tuple[bytes, bytes]] | None = None

    async def show(self, request: web.Request) -> web.StreamResponse:
        if self._reading is None:
            self._reading = asyncio.create_task(asyncio.to_thread(self._read))
        # One that leaves must not take the answer from the others.
        plain, packed = await asyncio.shield(self._reading)
        headers = {"Cache-Control": CACHED, "Vary": "Accept-Encoding"}
        if _takes_gzip(request):
            headers["Content-Encoding"] = "gzip"
        return web.Response(
            body=packed if _takes_gzip(request) else plain,
            content_type=self._kind,
            charset="utf-8",
            headers=headers,
        )

    def _read(self) -> tuple[bytes, bytes]:
        plain = self._path.read_bytes()
        return plain, gzip.compress(plain, mtime=0)


def _takes_gzip(request: web.Request) -> bool:
    named = ",".join(request.headers.getall("Accept-Encoding", ()))
    return any(
        name.strip().lower() == "gzip" and parameters.replace(" ", "").lower() not in {"q=0", "q=0.0"}
        for name, _, parameters in (each.partition(";") for each in named.split(","))
    )
