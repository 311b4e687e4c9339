"""Who may do what, and who did: keys of requests, and the log of requests without them."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

from web.attempts import FailedAttempts, too_many
from web.clients import Clients
from web.keys import Key, Keys, Refusal, Scope, without_keys
from web.limits import TokenBuckets
from web.problems import Handler, Problem
from web.request_ids import HEADER, request_id

log = logging.getLogger(__name__)
#: What was answered as it was asked. Apart, so that a terminal can do without (``cli.logs``).
answered = log.getChild("answered")

_BEARER = 'Bearer realm="eventsink"'
#: A browser asks a person for a key only where it is offered Basic; the user name is of no account. Chromium looks at
#: the first scheme of a header alone.
_BASIC_OR_BEARER = f'Basic realm="eventsink", charset="UTF-8", {_BEARER}'
#: Present where somebody passes the request on for somebody else: that one is not on this machine.
_PASSED_ON = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")

#: On a request: the key that it was let in with.
_LET_IN = web.RequestKey("eventsink.key", Key)
#: An unknown key and an expired one are answered alike: who asks with one need not learn that it was good once.
_NOT_VALID = "the key is unknown, revoked or expired: `eventsink keys list` shows those that are valid"
_REFUSALS: Mapping[Refusal, str] = {
    "missing": "a key is needed: send the header Authorization: Bearer KEY",
    "malformed": "this is no key, or one with a slip in it: copy it again, it begins with es_",
    "unknown": _NOT_VALID,
    "expired": _NOT_VALID,
}

_HOST = re.compile(r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<plain>[^:\[\]]+))(?::[0-9]{1,5})?")

#: Of a path, this much is logged.
_LOGGED_CHARACTERS = 200
#: Asked every few seconds by machines, or answered once for each event: too many to be read.
_ROUTINE = frozenset({"/v1/events", "/service", "/healthz", "/readyz", "/metrics"})
#: Clients whose last answer was bad and that are remembered.
_MOST_FAILING = 1000
#: What the page loads, a dozen files at each visit.
_LOADED = "/page/"


class Access:
    """Checks the keys of requests. ``loopback``: reading needs none, because only this machine can ask. ``rates``:
    what one key may ask for. ``clock``: epoch milliseconds."""

    def __init__(
        self,
        keys: Keys,
        *,
        rates: TokenBuckets,
        attempts: FailedAttempts,
        clients: Clients,
        loopback: bool,
        clock: Callable[[], int],
    ) -> None:
        self._keys = keys
        self._rates = rates
        self._attempts = attempts
        self._clients = clients
        self._loopback = loopback
        self._clock = clock

    def sending(self, request: web.Request, scopes: Sequence[Scope] = ("events", "health")) -> Key:
        """The key of a request that brings events, with one of these scopes. Raises a 401, 403 or 429 ``Problem``.
        Asked again for the same request, it answers the same and counts nothing."""
        key = request.get(_LET_IN)
        if key is None:
            key = self._allowed(request, _presented(request), scopes, _BEARER)
            request[_LET_IN] = key
        return key

    def reading(self, request: web.Request) -> None:
        """Raise a 401, 403 or 429 ``Problem`` unless the request may read.

        A page of somebody else's that a browser on this machine shows can make it ask us under a name
        that it had resolve to a loopback address (DNS rebinding): the name gives it away.

        Where none is needed a wrong key is refused all the same: whoever shows one believes that it counts, and would
        find out only where it does. A good one is not asked for its scope there, nobody has more rights without.
        """
        if self._loopback and _is_local(request) and not self._clients.by_proxy(request):
            if presented := _presented(request):
                self._known(request, presented, _BEARER)
            return
        presented = _presented(request) or _basic_password(request.headers.get("Authorization", ""))
        # With a trusted proxy on this machine, nobody can be told from those on whose behalf it asks.
        open_here = self._loopback and not self._clients.by_proxy(request)
        hint = ", or ask by the name localhost and through no proxy" if open_here else ""
        self._allowed(request, presented, ("read",), _BASIC_OR_BEARER, hint)

    def _allowed(
        self,
        request: web.Request,
        presented: str | None,
        scopes: Sequence[Scope],
        challenge: str,
        hint: str = "",
    ) -> Key:
        key = self._known(request, presented, challenge, hint)
        wait = self._rates.take(key.sha256)
        if wait:
            rate = self._rates.rate
            raise too_many(
                f"the key {key.name} asks more than {rate.per_s:g} times a second (after {rate.burst} at once): wait, "
                "or send several events in one request",
                wait,
            )
        if not any(scope in key.scopes for scope in scopes):
            self._attempts.out_of_scope()
            raise Problem(
                403,
                f"the key {key.name} has the scope {' and '.join(key.scopes)}, this needs {' or '.join(scopes)}: use "
                f"one that has it, or make one (`eventsink keys create --name NAME --scopes {scopes[0]}`)",
            )
        self._keys.last_used.saw(key.sha256, self._clock())
        return key

    def _known(self, request: web.Request, presented: str | None, challenge: str, hint: str = "") -> Key:
        key = self._keys.check(presented, self._clock())
        if isinstance(key, str):
            self._attempts.failed(request, key)
            said = f"{_REFUSALS[key]}{hint if key == 'missing' else ''}"
            raise Problem(401, said, headers={"WWW-Authenticate": challenge})
        return key


def _presented(request: web.Request) -> str | None:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.headers.get("API-KEY") or request.headers.get("X-API-Key")


def _basic_password(authorization: str) -> str | None:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    user, _, password = decoded.partition(":")
    return password or user


def _is_local(request: web.Request) -> bool:
    if any(name in request.headers for name in _PASSED_ON):
        return False
    host = _HOST.fullmatch(request.headers.get("Host", ""))
    if host is None:
        return False
    name = (host["bracketed"] or host["plain"]).rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class _Turns:
    """What routine requests of each client came to, so that a change is told and not each of them."""

    def __init__(self) -> None:
        self._failing: OrderedDict[tuple[str, str], int] = OrderedDict()

    def seen(self, remote: str, path: str, status: int) -> bool:
        """Whether this answer is another one than the last, where a good one needs no telling."""
        place = remote, path
        before = self._failing.pop(place, None)
        if status >= 400:
            self._failing[place] = status
            if len(self._failing) > _MOST_FAILING:
                self._failing.popitem(last=False)
            return before != status
        return before is not None


def logged(clients: Clients) -> Middleware:
    """A middleware that names each request (``X-Request-ID``) and logs a line for it: no query and no header, where
    secrets would be, and no key in the path. Of routine requests only those are logged at INFO at which their client's
    answers turn bad, or good again."""
    turns = _Turns()

    @web.middleware
    async def log_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = request_id(request)
        response = await handler(request)
        if not response.prepared:
            response.headers[HEADER] = name
        remote = clients.address(request)
        # Who is told to wait was logged before it came to that, and is counted.
        routine = request.path in _ROUTINE or request.path.startswith(_LOADED)
        told = not routine or (
            response.status != 429 and turns.seen(remote or "", request.path, response.status)
        )
        level = logging.INFO if told else logging.DEBUG
        where = answered if not routine and response.status < 400 else log
        if where.isEnabledFor(level):
            where.log(
                level,
                "%s %s %d",
                request.method,
                without_keys(request.rel_url.raw_path[:_LOGGED_CHARACTERS]),
                response.status,
                extra={"remote": remote, "request": name},
            )
        return response

    return log_request


#: For an application that no proxy is in front of.
access_log = logged(Clients())
