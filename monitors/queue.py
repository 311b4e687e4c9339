"""RabbitMQ: how many messages wait in a queue, asked of the management API or by a passive declare.

The management API counts what waits and what is out with consumers unacknowledged; a declare counts what waits. A
queue that is not there, or a broker that does not answer, gives no number: that is unknown, never 0.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from typing import Annotated, ClassVar, Protocol, TypeAlias
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta
from yarl import URL

from monitors.faults import Contradiction
from monitors.fetching import Fetched, Fetcher, tls_context
from monitors.port import said
from monitors.probe import Measured, Name, ProbeSettings, Surroundings, Unknown
from monitors.secrets import read_secret
from schemas.events import Counted

#: Closing is a courtesy: the broker notices a closed socket, too.
CLOSE_LIMIT_S = 1.0
QueueUrl: TypeAlias = Annotated[str, Meta(examples=["http://rabbitmq.example:15672"])]
QueueName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256, examples=["extractors"])]
_COLUMNS = "messages,messages_ready,messages_unacknowledged,consumers"


class QueueSettings(ProbeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="queue"):
    """``[[probe]] kind = "queue"``. ``url`` is that of the management API (``http``, ``https``) or of the broker
    (``amqp``, ``amqps``), without user and password: ``password_env`` or ``password_file`` names the password."""

    holds: ClassVar[bool] = False

    url: QueueUrl
    queue: QueueName
    vhost: Name = "/"
    user: Name = "guest"
    password_env: str | None = None
    password_file: str | None = None
    ca_file: str | None = None

    @property
    def subject(self) -> tuple[str, ...]:
        """Queues of one service are told apart."""
        return (*super().subject, self.queue)

    def contradictions(self) -> Iterator[Contradiction]:
        try:
            parts = urlsplit(self.url)
            host = parts.hostname
            _ = parts.port
        except ValueError:
            parts, host = urlsplit(""), None
        if parts.scheme not in {"http", "https", "amqp", "amqps"} or not host:
            yield Contradiction(("url",), "must be http://HOST:15672 or amqp://HOST, or either with an s")
        if "@" in parts.netloc:
            yield Contradiction(("url",), "holds credentials: use user, and password_env or password_file")
        if parts.query or parts.fragment or (parts.scheme.startswith("amqp") and parts.path not in {"", "/"}):
            yield Contradiction(("url",), "ends with host and port, the virtual host is vhost")
        if self.password_env is not None and self.password_file is not None:
            yield Contradiction(
                ("password_env", "password_file"), "password_file is given, too: leave one out"
            )

    @property
    def by_management(self) -> bool:
        return self.url.startswith("http")


class _Way(Protocol):
    async def measure(self) -> Measured | Unknown: ...


class QueueProbe:
    """Asks in the way that the URL says."""

    def __init__(self, settings: QueueSettings, surroundings: Surroundings) -> None:
        """Raises ``SettingsError`` for a password or an authority that is not there."""
        password = read_secret(
            "password", surroundings.environment, env=settings.password_env, file=settings.password_file
        )
        way = _Management if settings.by_management else _Declare
        self._way: _Way = way(settings, password or "", surroundings)

    async def check(self) -> Measured | Unknown:
        return await self._way.measure()

    async def close(self) -> None:
        """Every check has closed what it opened."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Of ``GET /api/queues/VHOST/NAME``; a queue that was just declared has no numbers yet."""

    messages: Counted | None = None
    messages_ready: Counted | None = None
    messages_unacknowledged: Counted | None = None
    consumers: Counted | None = None


class _Management:
    def __init__(self, settings: QueueSettings, password: str, surroundings: Surroundings) -> None:
        self._settings = settings
        place = f"{quote(settings.vhost, safe='')}/{quote(settings.queue, safe='')}"
        login = b64encode(f"{settings.user}:{password}".encode()).decode()
        self._fetcher = Fetcher(
            f"{settings.url.rstrip('/')}/api/queues/{place}?columns={_COLUMNS}",
            {"Authorization": f"Basic {login}"},
            tls_context(settings.ca_file),
            secret=True,
            timeout=settings.timeout,
            monotonic=surroundings.monotonic,
            names=surroundings.names,
        )

    async def measure(self) -> Measured | Unknown:
        return self._read(await self._fetcher.fetch())

    def _read(self, fetched: Fetched) -> Measured | Unknown:
        if fetched.problem is not None:
            return Unknown(f"the management API: {fetched.problem}")
        match fetched.status:
            case 200:
                pass
            case 401 | 403:
                return Unknown(
                    "the management API refuses the user: mend user and password, or give it the tag monitoring"
                )
            case 404:
                return Unknown(f"there is no queue {self._settings.queue!r} in {self._settings.vhost!r}")
            case status:
                return Unknown(f"the management API: status {status}")
        try:
            answer = msgspec.json.decode(fetched.body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Unknown("the management API: something else answers there")
        if answer.messages is None:
            return Unknown("the management API has not counted the queue yet")
        counted = {
            "ready": answer.messages_ready,
            "unacknowledged": answer.messages_unacknowledged,
            "consumers": answer.consumers,
        }
        return {
            "type": "health.queue_measured",
            "queue": self._settings.queue,
            "messages": answer.messages,
            **{name: number for name, number in counted.items() if number is not None},
        }


class _Declare:
    def __init__(self, settings: QueueSettings, password: str, surroundings: Surroundings) -> None:
        self._names = surroundings.names
        tls_context(settings.ca_file)  # says what is wrong with the file, at the start
        url = URL(settings.url).with_user(settings.user).with_password(password)
        url = url.with_path(f"/{quote(settings.vhost, safe='')}", encoded=True)
        self._url = url if settings.ca_file is None else url.with_query(cafile=settings.ca_file)
        self._settings = settings

    async def measure(self) -> Measured | Unknown:
        # Who asks no broker does not load the AMQP client.
        from aiormq.exceptions import (
            AMQPError,
            AuthenticationError,
            ChannelAccessRefused,
            ChannelNotFoundEntity,
            ProbableAuthenticationError,
        )

        from topology.rabbitmq.connection import Connection, message_count

        settings = self._settings
        connection = Connection(self._url, name="eventsink monitor")
        try:
            async with asyncio.timeout(settings.timeout):
                # A name that nobody knows is found out here: the client's own look-up cannot be given up.
                await self._names.addresses(URL(settings.url).host or "")
                await connection.connect()
                messages = await message_count(connection, settings.queue)
        except TimeoutError:
            return Unknown(f"the broker does not answer within {settings.timeout:g} s")
        except ChannelNotFoundEntity:
            return Unknown(f"there is no queue {settings.queue!r} in {settings.vhost!r}")
        except (ChannelAccessRefused, AuthenticationError, ProbableAuthenticationError):
            return Unknown("the broker refuses the user: mend user, password, or its permissions")
        except OSError as error:
            return Unknown(f"the broker: {said(error)}")
        except AMQPError as error:
            return Unknown(f"the broker: {type(error).__name__}")
        finally:
            closing = asyncio.ensure_future(connection.close())
            await asyncio.wait({closing}, timeout=CLOSE_LIMIT_S)
            if not closing.done():
                connection.abort()  # aiormq waits, deaf to cancellation, until everything is sent
                closing.cancel()
        return {"type": "health.queue_measured", "queue": settings.queue, "messages": messages}
