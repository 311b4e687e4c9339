"""Files that pages load: public, the same for everybody, packed once."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

from aiohttp import web


class Asset:
    """A file that a page loads. Read, and packed, once, when it is first asked for: not everybody looks at the page,
    and packing it for each request would be work that anybody can make us do. ``cached``: its ``Cache-Control``.
    ``policy``: of a page, what it may load."""

    def __init__(self, path: Path, kind: str, cached: str, *, policy: str | None = None) -> None:
        self._path = path
        self._kind = kind
        self._cached = cached
        self._policy = policy
        self._reading: asyncio.Task[tuple[bytes, bytes]] | None = None

    async def show(self, request: web.Request) -> web.StreamResponse:
        """The handler."""
        if self._reading is None:
            self._reading = asyncio.create_task(asyncio.to_thread(self._read))
        # One that leaves must not take the answer from the others.
        plain, packed = await asyncio.shield(self._reading)
        headers = {"Cache-Control": self._cached, "Vary": "Accept-Encoding"}
        if self._policy is not None:
            headers["Content-Security-Policy"] = self._policy
        if _takes_gzip(request):
            headers["Content-Encoding"] = "gzip"
        return web.Response(
            body=packed if _takes_gzip(request) else plain,
            content_type=self._kind,
            charset="utf-8",
            headers=headers,
        )

    def made_of(self, file: bytes) -> bytes:
        """What is shown of the file: the file."""
        return file

    def _read(self) -> tuple[bytes, bytes]:
        plain = self.made_of(self._path.read_bytes())
        return plain, gzip.compress(plain, mtime=0)


def _takes_gzip(request: web.Request) -> bool:
    named = ",".join(request.headers.getall("Accept-Encoding", ()))
    return any(
        name.strip().lower() == "gzip" and parameters.replace(" ", "").lower() not in {"q=0", "q=0.0"}
        for name, _, parameters in (each.partition(";") for each in named.split(","))
    )
