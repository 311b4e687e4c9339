"""InfluxDB for tests: Debian's influxd behind a proxy that gives it the paths of later releases.

influxd 1.6 is the real engine for line protocol, overwriting, type conflicts and InfluxQL. It lacks
``/api/v2/write``, which 1.8 added as a thin mapping: the proxy maps the path as 1.8 does, and words
errors as 2.x does. It can also fail on order, go away and come back, for tests of outages.

Authentication is on: the user ``eventsink`` may use the databases of the tests and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web

from tests.servers.daemons import LOOPBACK, Daemon

T = TypeVar("T")

ADMIN = "root:test-admin-password"
#: The password holds a colon: only the first one parts it from the user.
TOKEN = "eventsink:secret:of-the-tests"
ORG = "eventsink"

WRITE = "/api/v2/write"
QUERY = "/query"

#: Far more than any call of the proxy's needs.
CALL_LIMIT_S = 20.0

#: How 2.x names an error; https://docs.influxdata.com/influxdb/v2/api/ lists them.
CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    413: "request too large",
    422: "unprocessable entity",
    429: "too many requests",
    500: "internal error",
    503: "unavailable",
}

CONFIGURATION = """\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
logging-enabled = false
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
[coordinator]
log-queries-after = "0s"
[retention]
enabled = false
[shard-precreation]
enabled = false
[monitor]
store-enabled = false
[subscriber]
enabled = false
[continuous_queries]
enabled = false
[http]
enabled = true
bind-address = "127.0.0.1:{http}"
auth-enabled = true
log-enabled = false
"""


class Influxd:
    """The process, and the thread in which the proxies of the tests run."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        self._folder = folder
        configuration = folder / "influxdb.conf"
        port = free_port()
        #: Where `influxd backup` and `influxd restore` ask.
        self.rpc_port = free_port()
        configuration.write_text(CONFIGURATION.format(folder=folder, http=port, rpc=self.rpc_port))
        self.daemon = Daemon(
            "influxd", ["-config", str(configuration)], package="influxdb", port=port, ready="/ping"
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="influx-proxy", daemon=True)

    def start(self) -> None:
        self.daemon.start(self._folder)
        self._thread.start()
        for user, rights in ((ADMIN, " WITH ALL PRIVILEGES"), (TOKEN, "")):
            name, _, password = user.partition(":")
            self.ask(f"CREATE USER {name} WITH PASSWORD '{password}'{rights}")

    def end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_LIMIT_S)
        self._loop.close()
        self.daemon.end()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work`` in the thread of the proxies."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_LIMIT_S)

    def ask(self, query: str, database: str = "") -> list[dict[str, Any]]:
        """The rows of one InfluxQL statement, asked by the administrator."""
        return [
            dict(zip(series["columns"], row, strict=True), **series.get("tags", {}))
            for series in self.series(query, database)
            for row in series["values"]
        ]

    def series(self, query: str, database: str = "", *, epoch: str = "s") -> list[dict[str, Any]]:
        """The same, as the server answers: ``columns``, ``values`` and ``tags`` of each series, with times in
        ``epoch``."""
        parameters = urlencode({"q": query, "db": database, "epoch": epoch})
        status, body = self.daemon.ask("POST", f"{QUERY}?{parameters}", headers=_basic(f"Token {ADMIN}"))
        answer = json.loads(body)
        assert status == 200, answer
        (result,) = answer["results"]
        assert "error" not in result, (query, result)
        found: list[dict[str, Any]] = result.get("series", [])
        return found


class Seen(NamedTuple):
    """A request that arrived at the proxy. ``body`` is as it was sent; ``status`` is None where no answer went
    back."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    status: int | None


@dataclass(frozen=True, kw_only=True)
class _Failure:
    path: str
    status: int | None = None  # None: no answer
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    forwarded: bool = False
    hangs: bool = False
    #: None of its own: the one behind it has to wait for its turn.
    passes: bool = False


class Influx:
    """One test's InfluxDB: a bucket of its own behind a proxy of its own. May be told to fail; by default it is
    the next write that fails, ``path=QUERY`` makes it the next query."""

    token = TOKEN
    org = ORG

    def __init__(self, influxd: Influxd, port: int, bucket: str) -> None:
        self._influxd = influxd
        self.port = port
        self.bucket = bucket
        self.url = f"http://{LOOPBACK}:{port}"
        #: Everything that arrived, oldest first.
        self.requests: list[Seen] = []
        self._failures: deque[_Failure] = deque()
        self._runner: web.AppRunner | None = None
        self._upstream: aiohttp.ClientSession | None = None
        self._parted = asyncio.Event()

    # -- what tests order --

    def fail_next(
        self,
        status: int,
        *,
        times: int = 1,
        retry_after: str | int | None = None,
        message: str | None = None,
        headers: Mapping[str, str] | None = None,
        path: str = WRITE,
    ) -> None:
        """Answer the next requests with an error of 2.x, without passing them on."""
        words = message if message is not None else f"{status} on order"
        self._failures += times * [
            _Failure(
                path=path,
                status=status,
                headers={
                    **({} if retry_after is None else {"Retry-After": str(retry_after)}),
                    **(headers or {}),
                },
                body=json.dumps({"code": CODES.get(status, "unknown"), "message": words}).encode(),
            )
        ]

    def answer_next(self, status: int, body: bytes, *, content_type: str, path: str = WRITE) -> None:
        """Answer the next request with exactly this, without passing it on."""
        self._failures.append(
            _Failure(path=path, status=status, headers={"Content-Type": content_type}, body=body)
        )

    def drop_next(self, *, times: int = 1, forwarded: bool, path: str = WRITE, after: int = 0) -> None:
        """Cut the connection instead of answering. ``forwarded``: influxd got the request, its answer is lost.
        ``after`` so many requests that go well."""
        self._failures += after * [_Failure(path=path, passes=True)]
        self._failures += times * [_Failure(path=path, forwarded=forwarded)]

    def hang_next(self, *, times: int = 1, path: str = WRITE) -> None:
        """Never answer the next requests."""
        self._failures += times * [_Failure(path=path, hangs=True)]

    def go_away(self) -> None:
        """Close every connection and listen no more; idempotent."""
        self._influxd.run(self._close())

    def come_back(self) -> None:
        """Listen again, at the same address; idempotent."""
        self._influxd.run(self._listen())

    @contextmanager
    def away(self) -> Iterator[None]:
        """Away for the length of the block."""
        self.go_away()
        try:
            yield
        finally:
            self.come_back()

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of an InfluxQL statement in the bucket, past the proxy."""
        return self._influxd.ask(query, self.bucket)

    def open_bucket(self) -> None:
        """Make the bucket; idempotent, for tests that drop it."""
        self._influxd.ask(f"CREATE DATABASE {self.bucket}")
        self._influxd.ask(f"GRANT ALL ON {self.bucket} TO {TOKEN.partition(':')[0]}")

    def reader_token(self) -> str:
        """A token that may read the bucket and not write to it."""
        name = f"reader_{self.bucket}"
        self._influxd.ask(f"CREATE USER {name} WITH PASSWORD 'reader'")
        self._influxd.ask(f"GRANT READ ON {self.bucket} TO {name}")
        return f"{name}:reader"

    # -- for the fixture --

    def open(self) -> None:
        self.open_bucket()
        self.come_back()

    def close(self) -> None:
        self.go_away()
        self._influxd.ask(f"DROP DATABASE {self.bucket}")

    async def _listen(self) -> None:
        if self._runner is not None:
            return
        self._parted = asyncio.Event()
        # The bytes go through as they are: gzip is influxd's to undo, and the client's.
        self._upstream = aiohttp.ClientSession(auto_decompress=False)
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            application, auto_decompress=False, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port).start()

    async def _close(self) -> None:
        self._parted.set()
        runner, self._runner = self._runner, None
        upstream, self._upstream = self._upstream, None
        if runner is not None:
            await runner.cleanup()
        if upstream is not None:
            await upstream.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        failure = next((each for each in self._failures if each.path == request.path), None)
        if failure is not None:
            self._failures.remove(failure)
        if failure is not None and not failure.passes:
            if failure.forwarded:
                await self._forwarded(request, body)
            answer = (
                None
                if failure.status is None
                else web.Response(status=failure.status, headers=failure.headers, body=failure.body)
            )
            if failure.hangs:
                await self._parted.wait()
        else:
            answer = await self._forwarded(request, body)
        self.requests.append(
            Seen(
                request.method,
                request.path,
                dict(request.query),
                dict(request.headers),
                body,
                None if answer is None else answer.status,
            )
        )
        if answer is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return answer

    async def _forwarded(self, request: web.Request, body: bytes) -> web.Response:
        path, query = request.path, dict(request.query)
        if path == WRITE:
            precision = query.get("precision", "ns")
            path = "/write"
            query = {"db": query.get("bucket", ""), "precision": "n" if precision == "ns" else precision}
        elif path == "/health":
            return web.json_response({"name": "influxdb", "status": "pass", "message": "ready"})
        elif path not in (QUERY, "/ping"):
            return web.json_response({"code": "not found", "message": "path not found"}, status=404)
        headers = {
            name: request.headers[name]
            for name in ("Content-Encoding", "Content-Type", "Accept", "Accept-Encoding")
            if name in request.headers
        } | _basic(request.headers.get("Authorization", ""))
        assert self._upstream is not None
        async with self._upstream.request(
            request.method,
            f"http://{LOOPBACK}:{self._influxd.daemon.port}{path}",
            params=query,
            headers=headers,
            data=body,
        ) as answer:
            content = await answer.read()
            kept = {
                name: answer.headers[name]
                for name in ("Content-Type", "Content-Encoding", "X-Influxdb-Version")
                if name in answer.headers
            }
        if path == "/write" and answer.status >= 400:
            message = json.loads(content)["error"]
            return web.json_response(
                {"code": CODES.get(answer.status, "unknown"), "message": message}, status=answer.status
            )
        return web.Response(status=answer.status, headers=kept, body=content)


def _basic(authorization: str) -> dict[str, str]:
    """``Token user:password`` as influxd 1.6 understands it."""
    scheme, _, token = authorization.partition(" ")
    if scheme != "Token" or ":" not in token:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(token.encode()).decode()}


@pytest.fixture(scope="session")
def influxd(free_port: Callable[[], int]) -> Iterator[Influxd]:
    """The server, started when the first test asks for it."""
    folder = Path(tempfile.mkdtemp(prefix="eventsink-influxdb-"))
    server = Influxd(folder, free_port)
    try:
        server.start()
        yield server
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)


_numbers = itertools.count(1)


@pytest.fixture
def influx(influxd: Influxd, free_port: Callable[[], int]) -> Iterator[Influx]:
    """An empty bucket, with everything that a client has to know and everything that may go wrong."""
    server = Influx(influxd, free_port(), f"test{next(_numbers)}")
    server.open()
    yield server
    server.close()
