"""``GET /``: the page. A shell of ours, scripts and style in files, and one library for charts; no outside host.

What it shows comes from ``GET /v1/overview``. The charts are drawn by uPlot, which ``scripts/page-assets`` fetches
(docs/decisions/0044). Without it the page says so, and shows everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from aiohttp import web

from web.access import Access
from web.assets import Asset
from web.problems import answered

SCRIPTS = (
    "activity.js",
    "charts.js",
    "dom.js",
    "events.js",
    "figures.js",
    "format.js",
    "live.js",
    "main.js",
    "theme.js",
    "tiles.js",
    "timeline.js",
)
STYLES = ("page.css",)
#: Where npm puts it, below this folder.
CHARTS = "node_modules/uplot/dist"
CHARTS_FILES = ("uPlot.iife.min.js", "uPlot.min.css")

#: uPlot sets styles through the object model, which no policy forbids; nothing is inline.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: The address of each file changes with any of them.
CACHED = "public, max-age=31536000, immutable"

_KINDS = {".js": "text/javascript", ".css": "text/css"}


class Page:
    """The handlers. The shell and the addresses of its files are made when it is. ``charts``: uPlot's folder."""

    def __init__(self, access: Access, *, charts: Path | None = None) -> None:
        self._access = access
        ours = Path(str(files(__package__)))
        theirs = ours / CHARTS if charts is None else charts
        paths = [*(ours / name for name in (*SCRIPTS, *STYLES)), *(theirs / name for name in CHARTS_FILES)]
        there = [path for path in paths if path.is_file()]
        version = hashlib.sha256(b"".join(path.read_bytes() for path in there)).hexdigest()[:12]
        self._assets = {
            f"/page/{version}/{path.name}": Asset(path, _KINDS[path.suffix], CACHED) for path in there
        }
        shell = Template((ours / "page.html").read_text(encoding="utf-8"))
        self._body = shell.substitute(base=f"/page/{version}").encode()

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """The page, and what it loads: files that are the same for everybody and need no key."""
        return [
            web.get("/", answered(self._show)),
            *(web.get(address, answered(asset.show)) for address, asset in self._assets.items()),
        ]

    async def _show(self, request: web.Request) -> web.StreamResponse:
        self._access.reading(request)
        return web.Response(
            body=self._body,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": POLICY},
        )
