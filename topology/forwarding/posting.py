"""Posting a request, and telling apart what is known to have happened: nothing was sent, or it is not known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
from yarl import URL

from topology.forwarding.addresses import SHORTEST_HIDDEN_CHARACTERS
from topology.forwarding.vendor import Answer, Limits, Request

CONNECT_TIMEOUT_S = 5.0
#: Of an answer no more is read.
MAX_ANSWER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class NotSent:
    """There was no connection: the vendor has seen nothing of the request."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The request was sent, in part at least, and no answer came."""

    reason: str


class Poster:
    """Connections to one vendor. Never repeats a request by itself. Make and close it in the loop."""

    def __init__(self, limits: Limits, secrets: Sequence[str], clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_HIDDEN_CHARACTERS]
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limits.in_flight),
            # Of everything before the first byte, the look-up of the name too: what took too long was not sent.
            timeout=aiohttp.ClientTimeout(
                total=limits.timeout_s, connect=min(CONNECT_TIMEOUT_S, limits.timeout_s / 2)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(self, request: Request) -> Answer | NotSent | Unanswered:
        """Raises nothing but what ends the task."""
        try:
            async with self._session.post(
                URL(request.url, encoded=True),
                data=request.body,
                headers=request.headers,
                allow_redirects=False,  # aiohttp would make a GET of it, whose answer looks like success
            ) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                try:
                    body = await response.content.read(MAX_ANSWER_BYTES)
                    while not response.content.at_eof() and len(body) < MAX_ANSWER_BYTES:
                        body += await response.content.read(MAX_ANSWER_BYTES - len(body))
                except (aiohttp.ClientError, OSError):
                    return Answer(
                        status=response.status,
                        headers=headers,
                        body=b"",
                        received_ms=self._clock_ms(),
                        whole=False,
                    )
                for secret in self._secrets:  # a server may repeat what it was sent
                    body = body.replace(secret.encode(), b"***")
                return Answer(
                    status=response.status, headers=headers, body=body, received_ms=self._clock_ms()
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return NotSent(self._clean(error))
        except TimeoutError:
            return Unanswered("no answer in time")
        except (aiohttp.ClientError, OSError) as error:
            return Unanswered(self._clean(error))

    def _clean(self, error: BaseException) -> str:
        """The error in one line without secrets: some of aiohttp's repeat the URL."""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text
