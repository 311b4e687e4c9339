"""RabbitMQ: where it is, a connection to it, and how both end. What the log needs there is in
``rabbitmq_declarer``.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelNotFoundEntity,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from yarl import URL

from topology.errors import SettingsError, Unavailable
from topology.rabbitmq.frames import FrameScanner, ScannedTransport
from topology.rabbitmq.version import Features, features

log = logging.getLogger(__name__)

#: Seconds. A broker that is there answers within milliseconds; one that does not in this time is away.
CONNECT_LIMIT_S = 10.0
CALL_LIMIT_S = 10.0
#: What to look at where connecting brings no answer: a server of another kind waits for more as well.
SILENT = "is it running and not blocked, or is that no AMQP port, or one with TLS (amqps)?"
#: Closing is a courtesy: the broker notices a closed socket, too.
CLOSE_LIMIT_S = 3.0
CANCEL_AGAIN_S = 0.2
#: Seconds. aiormq gives a silent connection up after three of them, about half a minute.
HEARTBEAT_S = 10

#: What aiormq reads of the URL's query; whatever else stands there is a mistake that nobody would notice.
URL_PARAMETERS = frozenset(
    {
        *("auth", "cadata", "cafile", "capath", "certfile", "heartbeat", "keyfile", "name", "no_verify_ssl"),
        "timeout",
    }
)
#: Parameters of a Faust app's URL, and the settings that say the same.
SETTINGS_OF_PARAMETERS = {
    "exchange": "EVENTSINK_EXCHANGE",
    "queue": "EVENTSINK_LOG_QUEUE",
    "start": "EVENTSINK_LOG_START",
}


def _instead(name: str) -> str:
    if name in SETTINGS_OF_PARAMETERS:
        return f"set {SETTINGS_OF_PARAMETERS[name]}"
    close = difflib.get_close_matches(name, sorted(URL_PARAMETERS | SETTINGS_OF_PARAMETERS.keys()), n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(URL_PARAMETERS))}"


class LoginRefused(SettingsError):
    """The broker refuses user, password, or virtual host. Wrong settings at a start; while running it may
    pass, since a broker that was set up anew refuses until its users are back."""


class Connection(aio_pika.Connection):
    """aio-pika's, with its frames scanned on their way in. ``scanner`` hands out what is delivered."""

    def __init__(self, url: URL, *, name: str) -> None:
        super().__init__(url, client_properties={"connection_name": name})
        transport = ScannedTransport()
        self.kwargs["transport_factory"] = transport
        self.scanner: FrameScanner = transport.scanner
        self.abort = transport.abort

    @property
    def is_open(self) -> bool:
        """Whether it works, as far as is known; ``is_closed`` of aio-pika says no after a loss."""
        return self.transport is not None and not self.transport.connection.is_closed

    @property
    def features(self) -> Features:
        """What the broker says it is. Only once it is open."""
        if self.transport is None:
            raise RuntimeError("the connection was never open")
        return features(self.transport.connection.server_properties)


class Broker:
    """Where a broker is, and the way to it. Written without password and query."""

    def __init__(self, url: str | URL) -> None:
        """Raises ``SettingsError`` where this is no AMQP URL."""
        try:
            self._url = URL(url)
        except ValueError:
            self._url = URL()
        if self._url.scheme not in {"amqp", "amqps"} or not self._url.host:
            raise SettingsError(
                "the broker's URL cannot be read: write EVENTSINK_BROKER_URL as "
                "amqp://USER:PASSWORD@HOST/VHOST, special characters of the password percent-encoded"
            )
        for name in self._url.query:
            if name not in URL_PARAMETERS:
                raise SettingsError(f"{self}: there is no parameter {name!r}: {_instead(name)}")

    def __str__(self) -> str:
        url = self._url.with_query(None).with_fragment(None)
        return str(url.with_password("***") if url.password else url)

    def __repr__(self) -> str:
        return f"Broker({str(self)!r})"

    @property
    def vhost(self) -> str:
        return self._url.path[1:].replace("%2F", "/") or "/"

    async def connect(self, purpose: str) -> Connection:
        """A new connection, named after its purpose in the broker's own lists.

        Raises ``Unavailable``, ``LoginRefused``, or ``SettingsError`` where the broker has no streams.
        """
        url = self._url
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=HEARTBEAT_S)
        connection = Connection(url, name=f"eventsink {purpose}")
        try:
            with unavailable(self, "connecting", silent=SILENT):
                try:
                    await connection.connect(timeout=CONNECT_LIMIT_S)
                except AMQPError as error:
                    if refusal := self._refusal(error):
                        raise refusal from error
                    raise
            try:
                connection.features.demand()
            except SettingsError as error:
                raise SettingsError(f"{self}: {error}") from None
        except BaseException:
            await end(connection)
            raise
        return connection

    def _refusal(self, error: AMQPError) -> LoginRefused | None:
        match error:
            case ProbableAuthenticationError() | AuthenticationError():
                return LoginRefused(
                    f"{self} refuses user or password: mend the broker's URL (EVENTSINK_BROKER_URL)"
                )
            case InvalidFrameError() if "Connection.Close" in str(error):
                # aiormq 7.2 loses the broker's words here; the virtual host is all that was asked for.
                return LoginRefused(
                    f"{self} refuses the virtual host {self.vhost!r}: make it, let the user into it, "
                    "or mend the broker's URL (EVENTSINK_BROKER_URL)"
                )
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            return LoginRefused(
                f"the certificate of {self} cannot be verified ({error.__cause__.verify_message}): "
                "add ?cafile=FILE to EVENTSINK_BROKER_URL"
            )
        return None


async def stop(*tasks: asyncio.Task[None] | None) -> None:
    """Cancel tasks of ours and wait for their ends. Once is not always enough: aiormq swallows a cancellation
    that comes while it closes a channel."""
    running = {task for task in tasks if task is not None}
    while running := {task for task in running if not task.done()}:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*filter(None, tasks), return_exceptions=True)


async def end(connection: Connection) -> None:
    """Close, in good order if that is quick; raises nothing."""
    closing = asyncio.ensure_future(connection.close())
    try:
        await asyncio.wait({closing}, timeout=CLOSE_LIMIT_S)
    finally:
        if not closing.done():
            # aiormq waits, deaf to cancellation, until everything is sent, which a broker that takes nothing delays
            # for ever.
            connection.abort()
    await asyncio.wait({closing}, timeout=CLOSE_LIMIT_S)
    if not closing.done():
        closing.cancel()
    elif not closing.cancelled() and (error := closing.exception()) is not None:
        log.debug("closing a connection: %r", error)


async def closed(closing: Awaitable[object]) -> None:
    """Wait for a close, but not for long. Raises nothing but a cancellation. The close has a task of its own, since
    aiormq may swallow a cancellation that comes meanwhile."""
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.wait({task}, timeout=CLOSE_LIMIT_S)
    finally:
        task.cancel()
        task.add_done_callback(_seen)


def _seen(closing: asyncio.Future[object]) -> None:
    if not closing.cancelled() and (error := closing.exception()) is not None:
        log.debug("closing: %r", error)


class _ConnectionEnded(Exception):
    """aiormq cancelled what waited on a connection."""


@contextmanager
def _cancellable() -> Iterator[None]:
    """Around calls of aiormq: what cancels this task ends them as ``CancelledError``.

    Where a channel is closing at that moment aiormq raises another error, or none, and whoever waits for the task's end
    would wait for ever; and it cancels what waits on a connection that ends, which is nobody's wish to end the task:
    ``_ConnectionEnded``.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()

    def is_cancelled() -> bool:
        return task is not None and task.cancelling() > before

    try:
        yield
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        raise _ConnectionEnded from None
    except Exception as error:
        if is_cancelled():
            raise asyncio.CancelledError from error
        raise
    if is_cancelled():
        raise asyncio.CancelledError


@asynccontextmanager
async def open_channel(connection: Connection, *, prefetch: int = 0) -> AsyncIterator[AbstractChannel]:
    """A channel for a few calls. It must not be acknowledged on after the block was left: an ack behind a
    channel's end costs the whole connection."""
    channel = connection.channel(publisher_confirms=False)
    await channel.initialize()
    try:
        if prefetch:
            await channel.set_qos(prefetch_count=prefetch)
        yield channel
    finally:
        await closed(channel.close())


async def message_count(connection: Connection, queue: str) -> int:
    """How many messages the queue holds. RabbitMQ counts a stream every five seconds only, and not at once
    after its start: a count above 0 proves that there were some, 0 proves nothing."""
    async with open_channel(connection) as channel:
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


def is_missing(error: ChannelNotFoundEntity) -> bool:
    """Whether the queue does not exist. A broker that has just started answers the same 404 for one that it
    has not opened yet, in other words."""
    return "no queue" in str(error)


def not_a_stream(broker: Broker, queue: str) -> SettingsError:
    """The error for a queue that forgets what was read."""
    return SettingsError(
        f"{broker}: the queue {queue!r} is not a stream: delete it, or set another EVENTSINK_LOG_QUEUE"
    )


@contextmanager
def unavailable(
    broker: Broker, doing: str, *, silent: str = "is it running and not blocked?"
) -> Iterator[None]:
    """Turns whatever aio-pika raises when a connection or channel does not work into ``Unavailable``. ``silent``: what
    to look at where no answer came."""
    try:
        with _cancellable():
            yield
    except _ConnectionEnded as error:
        raise Unavailable(f"{broker} went away while {doing}: waiting for it loses nothing") from error
    except TimeoutError as error:
        raise Unavailable(f"{broker} does not answer while {doing}: {silent}") from error
    except (AMQPError, OSError, RuntimeError) as error:
        raise Unavailable(f"{broker}: {doing} failed ({said(error)}): is the broker running?") from error


def said(error: BaseException) -> str:
    """What an error says, in one line and without the URL of a connection, which may hold secrets."""
    if isinstance(error, OSError) and error.strerror:
        return " ".join(str(error.strerror).split())
    if isinstance(error, RuntimeError):  # aiormq's, with the connection's URL in it
        return "the connection is closed"
    return " ".join(str(error).split()) or type(error).__name__
