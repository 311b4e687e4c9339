"""Every error is an ``application/problem+json`` (https://www.rfc-editor.org/rfc/rfc9457) that says what to do."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar

import msgspec
from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from topology.errors import Refused, SettingsError, Unavailable
from web.request_ids import request_id

log = logging.getLogger(__name__)

R = TypeVar("R", bound=web.StreamResponse)

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBLEM_JSON = "application/problem+json"
#: Seconds to wait where the server that is away stated no wish of its own.
RETRY_AFTER_S = 5

#: Nothing of ours loads, frames, or is read by, anything of anybody else's; answers are never stored.
_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "eventsink",
    "X-Content-Type-Options": "nosniff",
}
#: No answer of ours sets it by itself.
_LAST_OF_THEM = "X-Content-Type-Options"


class Problem(Exception):
    """An answer other than success. ``detail`` is for the person at the other end and never holds a secret."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self.document = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            **members,
        }

    def response(self) -> web.Response:
        """The answer itself."""
        return secured(
            web.Response(
                body=encoded(self.document),
                status=self.status,
                headers=self.headers,
                content_type=PROBLEM_JSON,
            )
        )


def unavailable(error: Unavailable) -> Problem:
    """503 with the time after which a second try is worth it."""
    wish = error.retry_after
    seconds = RETRY_AFTER_S if wish is None else max(1, math.ceil(wish.total_seconds()))
    return Problem(503, str(error), headers={"Retry-After": str(seconds)})


def encoded(document: Any) -> bytes:
    """JSON, also of text that came in with bytes that are no UTF-8: those are replaced."""
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(document))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_clean(name): _clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value


def with_headers(content_type: str) -> CIMultiDict[str]:
    """Of an answer that is given thousands of times a second: made once, they are all there already."""
    return CIMultiDict({"Content-Type": content_type, **_SECURITY_HEADERS})


def secured(response: R) -> R:
    """The response with the headers that every answer carries, unless it set its own."""
    headers = response.headers
    if _LAST_OF_THEM not in headers:  # an answer comes through here more than once
        for name, value in _SECURITY_HEADERS.items():
            headers.setdefault(name, value)
    return response


def answered(handler: Handler) -> Handler:
    """The handler, with whatever it raises turned into a problem. For routes that another application shares."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _answer(request, handler)

    return handle


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """``answered`` for everything, the answers of aiohttp's own router included."""
    return await _answer(request, handler)


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        return _from_aiohttp(error).response()
    except Unavailable as error:
        return unavailable(error).response()
    except Refused as error:
        # Of all that a log refuses, only the size is the sender's doing.
        return Problem(413, str(error)).response()
    except SettingsError as error:
        log.error("%s", error, extra={"request": request_id(request)})
        return Problem(
            503,
            "a setting of the server is wrong, its log says which",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        ).response()
    except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError):
        return Problem(400, "the body breaks off or is not framed as HTTP says: send it again").response()
    except ConnectionError:
        raise  # the client is gone: nobody reads an answer
    except Exception:
        name = request_id(request)
        log.exception("%s %s failed", request.method, request.rel_url.raw_path, extra={"request": name})
        return Problem(500, "eventsink made a mistake, its log says which: please report it").response()
    return response if response.prepared else secured(response)


def _from_aiohttp(error: web.HTTPException) -> Problem:
    if error.status == 404:
        return Problem(404, "there is nothing at this address: GET / links to what there is")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Problem(405, f"this address takes {allowed}", headers={"Allow": allowed})
    return Problem(error.status, error.reason)
