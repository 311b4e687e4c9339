"""Pages of other origins in a browser: none may ask, except of the origins that a setting names (CORS).

https://fetch.spec.whatwg.org/#http-cors-protocol. Keys travel in headers that such a page sets itself, so
credentials of the browser's own (cookies, Basic) are never asked for.
"""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Middleware

from web.problems import Handler, secured

_MAY_SEND = "Authorization, API-KEY, X-API-Key, Content-Type, Content-Encoding, Idempotency-Key"
_MAY_READ = "Idempotency-Replayed, Retry-After, WWW-Authenticate"
#: How long a browser need not ask again; Chromium takes no more than two hours.
_REMEMBERED_S = 7200


def cross_origin(origins: Collection[str]) -> Middleware:
    """A middleware that lets pages of these origins in. Without any, do without it."""
    allowed = frozenset(origins)

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        known = origin in allowed
        asked = known and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        response = secured(web.Response(status=204)) if asked else await handler(request)
        if response.prepared:
            return response
        response.headers.add("Vary", "Origin")
        if origin is not None and known:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _MAY_READ
        if asked:
            response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, POST"
            response.headers["Access-Control-Allow-Headers"] = _MAY_SEND
            response.headers["Access-Control-Max-Age"] = str(_REMEMBERED_S)
        return response

    return answer
