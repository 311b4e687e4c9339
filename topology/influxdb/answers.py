"""What InfluxDB answers, and what does not answer as it would: every error becomes one of ours, in one line, without
the token."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TypeVar

import aiohttp
from influxdb_client.rest import ApiException
from yarl import URL

from topology.errors import EventsinkError, Refused, SettingsError, Unavailable

T = TypeVar("T")

#: A server that asks for more than this is wrong about itself.
LONGEST_RETRY_AFTER = timedelta(days=1)

#: Statuses of the 4xx that say "later", not "never".
_PASSING = frozenset({408, 425, 429})
#: A shorter token is a part of ordinary words: hiding it would hide what is wrong.
SHORTEST_HIDDEN_CHARACTERS = 4
_MAX_WORDS = 300


class NotForItsLines(Refused):
    """Refused for something else than the lines in it, or by something else than InfluxDB."""


class Answers:
    """Of one server. The address is told without user, password and query, the token never."""

    def __init__(self, url: str, token: str, org: str, bucket: str, timeout: timedelta) -> None:
        self.where = _public(url)
        self._token = token
        self._org = org
        self._bucket = bucket
        self._timeout = timeout

    async def answered(self, call: Awaitable[T]) -> T:
        """The result of a call of the client, every error of which becomes one of ours."""
        try:
            return await call
        except ApiException as error:
            raise self._verdict(error) from None  # its text is all that the server said
        except TimeoutError as error:
            seconds = f"{self._timeout.total_seconds():g} s"
            raise Unavailable(
                f"InfluxDB at {self.where} does not answer within {seconds}: check that it is well"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(
                f"InfluxDB at {self.where} does not answer ({self.clean(error)}): "
                "check that it runs, and EVENTSINK_INFLUX_URL"
            ) from error

    def _verdict(self, error: ApiException) -> EventsinkError:
        status = int(error.status or 0)
        own_words = _own_words(error)
        words = self.clean(error.reason if own_words is None else own_words)
        said = f"InfluxDB at {self.where} answers {status} ({words})"
        if status == 401:
            return SettingsError(f"{said}: set EVENTSINK_INFLUX_TOKEN to a token that it knows")
        if status == 403:
            return SettingsError(
                f"{said}: let the token of EVENTSINK_INFLUX_TOKEN read and write bucket {self._bucket}"
            )
        if status == 404:
            return SettingsError(
                f"{said}: make bucket {self._bucket} in organisation {self._org}, or mend EVENTSINK_INFLUX_BUCKET, "
                "EVENTSINK_INFLUX_ORG or EVENTSINK_INFLUX_URL (before 1.8 there is no such path)"
            )
        if 300 <= status < 400:
            return SettingsError(f"{said}: it has moved, set EVENTSINK_INFLUX_URL to where it is")
        if status in _PASSING or not 400 <= status < 500:
            return Unavailable(f"{said}: nothing is wrong here, it will take it later", _retry_after(error))
        # 413 is cured by halving.
        about_lines = status == 413 or (own_words is not None and status in (400, 422))
        return Refused(said) if about_lines else NotForItsLines(said)

    def clean(self, words: object) -> str:
        """One line, not long, without the token: a server may repeat what it was sent."""
        text = " ".join(str(words).split())
        for secret in (self._token, self._token.partition(":")[2]):
            if len(secret) >= SHORTEST_HIDDEN_CHARACTERS:
                text = text.replace(secret, "***")
        return text if len(text) <= _MAX_WORDS else text[:_MAX_WORDS] + "…"


async def once_more(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and again where the connection was lost: a server may close one that was idle just as it is used again.
    aiohttp repeats a GET by itself, a POST never. Only for what changes nothing."""
    try:
        return await ask()
    except aiohttp.ClientConnectorError:
        raise  # nobody is there
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        return await ask()


def _public(url: str) -> str:
    """The address without user, password and query, for messages."""
    try:
        whole = URL(url)
        return str(whole.with_user(None).with_query(None).with_fragment(None))
    except ValueError:
        return "no address"


def _own_words(error: ApiException) -> str | None:
    """What InfluxDB says in an answer, in the form of 2.x, 1.x or 3.x; None if something else speaks."""
    body = bytes(error.body or b"")
    try:
        said = json.loads(body)
    except ValueError:
        headers: Mapping[str, str] = error.headers or {}
        plain = headers.get("Content-Type", "").startswith("text/plain")
        return body.decode(errors="replace") if plain and body else None
    words = said.get("message") or said.get("error") if isinstance(said, dict) else None
    return words if isinstance(words, str) else None


def _retry_after(error: ApiException) -> timedelta | None:
    """Seconds, or a date, which is compared with the server's own clock: no clock of ours needs to be right."""
    headers: Mapping[str, str] = error.headers or {}
    stated = str(headers.get("Retry-After", "")).strip()
    if re.fullmatch(r"\d{1,9}", stated):
        wish = timedelta(seconds=int(stated))
    else:
        try:
            wish = parsedate_to_datetime(stated) - parsedate_to_datetime(headers.get("Date", ""))
        except (ValueError, TypeError):
            return None
    return min(max(wish, timedelta(0)), LONGEST_RETRY_AFTER)
