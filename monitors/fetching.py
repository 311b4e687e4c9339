"""One GET over a connection of its own, with the time that each phase took."""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from monitors.blocking import Names
from monitors.faults import Contradiction
from monitors.port import said
from monitors.secrets import read_secret
from topology.errors import SettingsError

#: More of a body is not read: a page of this size is no home page.
MOST_BYTES = 32 << 20
MOST_REDIRECTS = 10
#: Headers that hold secrets, and so may not stand in the configuration.
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"})
USER_AGENT = "eventsink-monitor"
_CHUNK_BYTES = 64 << 10
_DAY_S = 86_400
#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME, X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED: `ssl` has no names for them.
_WHATEVER_THE_TIME = ssl.VerifyFlags(0x20_0000)
_WRONG_TIME = frozenset({9, 10})


class Fetched(NamedTuple):
    """An answer. ``body`` is what came of it; ``problem`` tells why it is not whole, or why there is none (``status``
    None). Phases that did not happen (no name to resolve, no TLS) are left out of ``phases_ms``; they are those of the
    last request where there were redirects."""

    status: int | None
    body: bytes
    elapsed_ms: float
    phases_ms: Mapping[str, float]
    certificate_days_left: int | None
    problem: str | None


class Fetcher:
    """GETs one URL with the same headers. Where a header is secret, redirects are not followed: it would go along."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        tls: NotingContext,
        *,
        secret: bool,
        timeout: float,
        monotonic: Callable[[], float],
        names: Names,
    ) -> None:
        self._url = url
        self._headers = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **headers}
        self._secret = secret
        self._timeout = timeout
        self._tls = tls
        self._monotonic = monotonic
        self._names = names

    async def fetch(self) -> Fetched:
        """Ends within the timeout. Whatever goes wrong is in what it returns."""
        phases = _Phases(self._monotonic)
        self._tls.phases = phases
        status: int | None = None
        body = bytearray()
        problem: str | None = None
        untrusted: aiohttp.ClientConnectorCertificateError | None = None
        began = self._monotonic()
        try:
            async with asyncio.timeout(self._timeout), phases.session(self._tls, self._names) as session:
                async with session.get(
                    self._url,
                    headers=self._headers,
                    allow_redirects=not self._secret,
                    max_redirects=MOST_REDIRECTS,
                ) as answer:
                    status = answer.status
                    phases.first_byte()
                    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                        body += chunk
                        if len(body) > MOST_BYTES:
                            problem = f"the body is over {MOST_BYTES >> 20} MiB"
                            break
                phases.transferred()
        except TimeoutError:
            problem = f"no whole answer within {self._timeout:g} s"
        except aiohttp.ClientError as error:
            problem = said_by_client(error)
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                untrusted = error
        except ValueError as error:
            problem = f"the answer cannot be read: {error}"
        elapsed_ms = (self._monotonic() - began) * 1000
        if untrusted is not None:
            await self._see_certificate(untrusted, within_s=self._timeout - elapsed_ms / 1000)
        return Fetched(
            status=status,
            body=bytes(body),
            elapsed_ms=round(elapsed_ms, 3),
            phases_ms={name: round(ms, 3) for name, ms in phases.took_ms.items()},
            certificate_days_left=phases.certificate_days_left(datetime.now(UTC)),
            problem=problem,
        )

    async def _see_certificate(
        self, error: aiohttp.ClientConnectorCertificateError, *, within_s: float
    ) -> None:
        """A certificate that is only out of date is shown by a second handshake, which heeds all but the time; no
        request is sent. What nobody trusts, or is another's, is not looked at: what it says is worth nothing."""
        if getattr(error.certificate_error, "verify_code", None) not in _WRONG_TIME:
            return
        tls = self._tls
        flags = tls.verify_flags
        tls.verify_flags = flags | _WHATEVER_THE_TIME
        try:
            async with asyncio.timeout(within_s):
                for family, address in await self._names.addresses(error.host):
                    _, writer = await asyncio.open_connection(
                        address, error.port, family=family, ssl=tls, server_hostname=error.host
                    )
                    writer.transport.abort()
                    return
        except (OSError, TimeoutError):
            pass  # then it is not known how long ago it ended: the problem stands without that
        finally:
            tls.verify_flags = flags


def said_by_client(error: aiohttp.ClientError) -> str:
    """What went wrong, without the URL, which may hold what nobody should see."""
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        reason = getattr(error.os_error, "reason", None) or type(error.os_error).__name__
        if reason == "WRONG_VERSION_NUMBER":
            return "no TLS there: what answers may be http, not https"
        return f"no TLS there ({reason})"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        wrong = error.certificate_error
        return _said_of_certificate(getattr(wrong, "verify_code", 0), getattr(wrong, "verify_message", ""))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return said(error.os_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return said(error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was closed within the body"
    if isinstance(error, aiohttp.TooManyRedirects):
        return f"more than {MOST_REDIRECTS} redirects"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what it says is no HTTP"
    return type(error).__name__


def _said_of_certificate(code: int, message: str) -> str:
    """In words of whoever runs the service, where OpenSSL's are those of who wrote it. Codes are X509_V_ERR_*."""
    match code:
        case 9:
            return "its certificate is not valid yet"
        case 10:
            return "its certificate has expired"
        case 18 | 19 | 20 | 21:  # signed by itself, by a chain that ends in itself, by somebody unknown
            return "its certificate is not trusted: its authority is unknown (see ca_file), or its chain not whole"
        case 62 | 64:  # of a name, of an address
            return f"its {message.partition(', ')[2].rstrip('.') or 'certificate is for another name'}"
        case _:
            return f"its certificate is not accepted: {message or 'no reason given'}"


class _Phases:
    """Times of one fetch: resolve, connect, tls, first_byte, transfer."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._at: dict[str, float] = {}
        self.took_ms: dict[str, float] = {}
        self.peer: ssl.SSLObject | None = None

    def session(self, tls: ssl.SSLContext, names: Names) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._noting("request"))
        trace.on_dns_resolvehost_start.append(self._noting("resolving"))
        trace.on_dns_resolvehost_end.append(self._resolved)
        trace.on_connection_create_start.append(self._noting("connecting"))
        trace.on_connection_create_end.append(self._connected)
        trace.on_request_redirect.append(self._redirected)
        connector = aiohttp.TCPConnector(ssl=tls, force_close=True, use_dns_cache=False, resolver=names)
        return aiohttp.ClientSession(
            connector=connector,
            trace_configs=[trace],
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    def _noting(self, name: str) -> Callable[..., Any]:
        async def note(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
            self._at[name] = self._monotonic()

        return note

    def handshake_begins(self, peer: ssl.SSLObject) -> None:
        self.peer = peer
        self._at["handshaking"] = self._monotonic()

    async def _resolved(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: object
    ) -> None:
        at = self._at
        at["resolved"] = self._monotonic()
        self.took_ms["resolve"] = (at["resolved"] - at["resolving"]) * 1000

    async def _connected(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: object
    ) -> None:
        at = self._at
        at["connected"] = self._monotonic()
        handshaking = at.get("handshaking", at["connected"])
        self.took_ms["connect"] = (handshaking - at.get("resolved", at["connecting"])) * 1000
        if "handshaking" in at:
            self.took_ms["tls"] = (at["connected"] - handshaking) * 1000

    async def _redirected(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: object
    ) -> None:
        self._at.clear()
        self.took_ms.clear()
        self.peer = None

    def first_byte(self) -> None:
        """The header of the answer is there."""
        self._at["first byte"] = self._monotonic()
        self.took_ms["first_byte"] = (self._at["first byte"] - self._at["connected"]) * 1000

    def transferred(self) -> None:
        """The body is there."""
        self.took_ms["transfer"] = (self._monotonic() - self._at["first byte"]) * 1000

    def certificate_days_left(self, now: datetime) -> int | None:
        """Whole days, rounded down, negative where it has expired; None without TLS, or where it is not trusted."""
        certificate = self.peer.getpeercert() if self.peer is not None and self.peer.version() else None
        if not certificate:
            return None
        ends_s = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        return math.floor((ends_s - now.timestamp()) / _DAY_S)


class NotingContext(ssl.SSLContext):
    """Tells when a handshake begins: nothing of aiohttp or asyncio does."""

    phases: _Phases

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        peer = super().wrap_bio(*arguments, **named)
        self.phases.handshake_begins(peer)
        return peer


def tls_context(ca_file: str | None) -> NotingContext:
    """Verifies by the system's authorities and those of ``ca_file``. Raises ``SettingsError``."""
    context = NotingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"ca_file names {ca_file}: {error.strerror or error}") from error
    return context


def secret_headers(
    headers_env: Mapping[str, str], headers_file: Mapping[str, str], environment: Mapping[str, str]
) -> Mapping[str, str]:
    """Headers with their values from environment variables and files. Raises ``SettingsError``."""
    found: dict[str, str] = {}
    for name, variable in headers_env.items():
        found[name] = read_secret(f"headers.{name}", environment, env=variable) or ""
    for name, file in headers_file.items():
        found[name] = read_secret(f"headers.{name}", environment, file=file) or ""
    return found


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def wrong_url(
    field: str, url: str, instead: str = "use headers_env or headers_file"
) -> Iterator[Contradiction]:
    """What is wrong with a URL of the configuration."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not host:
        yield Contradiction((field,), "must be http://HOST/… or https://HOST/…")
    elif parts.username is not None or parts.password is not None:
        yield Contradiction((field,), f"holds credentials: {instead}")


def wrong_headers(field: str, headers: Mapping[str, str]) -> Iterator[Contradiction]:
    """What is wrong with headers that stand in the configuration."""
    for name, value in headers.items():
        if name.lower() in SECRET_HEADERS:
            yield Contradiction((field,), f"{name} is a secret: use headers_env or headers_file")
        elif not _HEADER_NAME.fullmatch(name) or not value.isprintable():
            yield Contradiction((field,), f"{name!r} is no header")
