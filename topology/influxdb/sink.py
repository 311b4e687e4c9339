"""The rollup sink on InfluxDB. The interface and its promises: ``sinks.py``; the choices: docs/decisions/0010.

Written in line protocol to ``/api/v2/write``, read in InfluxQL from ``/query``: 1.8, 2.x and 3.x serve both.
No write is retried here; whoever calls decides that from the type of the error.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import aiohttp
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.service.write_service import WriteService
from yarl import URL

from topology.errors import Refused, SettingsError, Unavailable
from topology.influxdb.answers import Answers, NotForItsLines, once_more
from topology.influxdb.influxql import identifier, seconds, string
from topology.influxdb.line_protocol import UNWRITABLE, compressed
from topology.integers import is_integer_field
from topology.sinks import Point, Value, Where, wanted_values
from topology.totals import Fold, MaxOf, whole

T = TypeVar("T")

_WriteService: Any = WriteService  # typed in part

QUERY_PATH = "/query"

#: InfluxData recommends 5000 to 10 000 lines; about 1 MB before gzip.
POINTS_PER_REQUEST = 5000
#: Rows in one answer: the server holds an answer in memory, and decoding one holds up our event loop (30 ms).
ROWS_PER_PAGE = 10_000

TIMEOUT = timedelta(seconds=30)
CONNECT_TIMEOUT = timedelta(seconds=5)


class InfluxRollups:
    """``token`` of a 1.8 server: ``user:password``. ``org`` is what 2.x wants to know.

    ``keys`` names the key tags of each rollup in their order; the tags of points that are read are in it, and
    by name where it says nothing. ``is_integer(rollup, field)`` tells which numbers are read as integers:
    JSON writes the float 3.0 and the integer 3 alike. A point without a field says nothing and is not written.
    """

    name = "influxdb"

    def __init__(
        self,
        url: str,
        token: str,
        org: str,
        bucket: str,
        *,
        keys: Mapping[str, Sequence[str]] | None = None,
        is_integer: Callable[[str, str], bool] = is_integer_field,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        self._url = url
        self._answers = Answers(url, token, org, bucket, timeout)
        self._where = self._answers.where
        self._token = token
        self._org = org
        self._bucket = bucket
        self._keys = keys or {}
        self._is_integer = is_integer
        self._timeout = timeout
        # Typed in part by their library: Any goes no further than this class.
        self._client: Any = None
        self._writing: Any = None

    async def open(self) -> None:
        """Prove the address, the token, the bucket and the right to write, without writing anything."""
        if self._client is not None:
            return
        self._check_settings()
        self._client = InfluxDBClientAsync(
            self._url,
            self._token,
            self._org,
            timeout=aiohttp.ClientTimeout(
                total=self._timeout.total_seconds(), sock_connect=CONNECT_TIMEOUT.total_seconds()
            ),
            # aiohttp makes a GET of a redirected POST, and its answer looks like success.
            allow_redirects=False,
        )
        self._writing = _WriteService(self._client.api_client)
        try:
            await self._prove()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def write(self, points: Sequence[Point]) -> None:
        """A wrong token or a missing bucket is ``Unavailable`` here: an operator mends it, nothing is lost."""
        for first in range(0, len(points), POINTS_PER_REQUEST):
            # In a thread: 5000 points take 30 ms, and zlib lets go of the interpreter's lock.
            body = await asyncio.to_thread(compressed, points[first : first + POINTS_PER_REQUEST])
            if body is None:
                continue
            try:
                await self._post(body)
            except (SettingsError, NotForItsLines) as error:
                # A proxy's page says nothing about the points: they are not to be given up for it.
                raise Unavailable(str(error)) from error

    async def totals(
        self,
        rollup: str,
        window: str,
        *,
        since: int,
        until: int,
        by: Sequence[str],
        folds: Mapping[str, Fold],
        each_window: bool = False,
    ) -> Sequence[Point]:
        """Raises like ``write``. Windows have InfluxQL's own names of durations, aligned alike."""
        # A condition is of all that a statement folds: maxima of what there is are asked for by themselves.
        counts = {name: fold.counted_by for name, fold in folds.items() if isinstance(fold, MaxOf)}
        asking = {
            f" AND {identifier(count)} > 0": [name for name in counts if counts[name] == count]
            for count in counts.values()
        }
        if len(counts) < len(folds):
            asking[""] = [name for name in folds if name not in counts]
        groups = [*map(identifier, by), *([f"time({window}) fill(none)"] if each_window else [])]
        found: dict[tuple[int, tuple[tuple[str, str], ...]], dict[str, Value]] = {}
        sums = {name: 0 for name, fold in folds.items() if fold == "sum"}
        for condition, names in asking.items():
            wanted = ", ".join(
                f"{'sum' if folds[name] == 'sum' else 'max'}({identifier(name)}) AS {identifier(name)}"
                for name in names
            )
            statement = (
                f"SELECT {wanted} FROM {identifier(rollup)} WHERE "  # noqa: S608 - quoted
                f'"window" = {string(window)} AND time >= {seconds(since)} AND time < {seconds(until)}'
                + condition
                + (f" GROUP BY {', '.join(groups)}" if groups else "")
            )
            points, cut = await self._select(rollup, window, statement)
            if cut:
                raise Unavailable(
                    f"InfluxDB at {self._where} cuts its answers: raise max-row-limit in its settings"
                )
            for point in points:
                # Of a single maximum InfluxDB tells when it was, in place of where the range begins.
                key = point.time if each_window else since, point.tags
                values = found.setdefault(key, dict[str, Value](sums))
                values |= {name: whole(value) for name, value in point.fields.items()}
        return [Point(rollup, window, time, tags, fields) for (time, tags), fields in found.items()]

    async def query(
        self,
        rollup: str,
        window: str,
        *,
        since: int | None,
        until: int | None,
        where: Where,
        limit: int,
    ) -> Sequence[Point]:
        """Raises like ``write``. Asks page by page: no answer is larger than a page."""
        conditions = [f'"window" = {string(window)}']
        for tag, values in wanted_values(where).items():
            # No point has such a tag; to InfluxQL an empty string would mean "has no such tag".
            one_of = [
                f"{identifier(tag)} = {string(value)}" for value in values if not UNWRITABLE.search(value)
            ]
            if not one_of:
                return []
            conditions.append(f"({' OR '.join(one_of)})")
        if until is not None:
            conditions.append(f"time < {seconds(until)}")
        statement = f"SELECT * FROM {identifier(rollup)} WHERE {' AND '.join(conditions)}"  # noqa: S608 - quoted
        found: list[Point] = []
        while len(found) < limit:
            # One more than is wanted: points of one time come in any order, so only a page that goes on to the
            # next time is known to hold all of the last one.
            size = min(limit - len(found) + 1, ROWS_PER_PAGE)
            bound = "" if since is None else f" AND time >= {seconds(since)}"
            page, cut = await self._select(rollup, window, f"{statement}{bound} ORDER BY time LIMIT {size}")
            if not page or not (cut or len(page) >= size):
                found += sorted(page, key=_order)
                break
            last = page[-1].time
            whole = [point for point in page if point.time < last]
            if not whole:
                # Grouped, each point is a series: of one with over 10 000 rows 1.x says "partial" of a whole answer.
                at = seconds(last)
                whole, cut = await self._select(rollup, window, f"{statement} AND time = {at} GROUP BY *")
                if cut:
                    raise Unavailable(
                        f"InfluxDB at {self._where} cuts its answers: raise max-row-limit in its settings"
                    )
                last += 1
            found += sorted(whole, key=_order)
            since = last
        return found[: max(limit, 0)]

    # -- one request --

    async def _prove(self) -> None:
        try:
            # A comment: rights are checked, nothing is written. Some releases want at least one point, and say so.
            await self._post(gzip.compress(b"# eventsink\n"))
        except NotForItsLines as error:
            raise SettingsError(f"{error}: that is no InfluxDB, set EVENTSINK_INFLUX_URL") from None
        except Refused:
            pass  # it understood us as far as that

    async def _post(self, body: bytes) -> None:
        self._opened()
        _, status, _ = await self._answers.answered(
            self._writing.post_write_async(
                self._org,
                self._bucket,
                body,
                precision="s",
                content_encoding="gzip",
                content_type="text/plain; charset=utf-8",
                _return_http_data_only=False,
            )
        )
        if status == 201:  # of some 3.x
            raise Refused(f"InfluxDB at {self._where} took only some of the points")
        if status != 204:
            raise SettingsError(
                f"{self._where} answers {status} to a write, InfluxDB would answer 204: set EVENTSINK_INFLUX_URL"
            )

    async def _select(self, rollup: str, window: str, statement: str) -> tuple[list[Point], bool]:
        """The points, and whether the server has left some out."""
        client = self._opened()

        async def ask() -> Any:
            return await client.api_client.call_api(
                QUERY_PATH,
                # A hundred values of a tag make a statement longer than the 8 KiB that a proxy takes of a URL.
                "POST",
                query_params=[("db", self._bucket), ("epoch", "s")],
                header_params={
                    "Accept": "application/json",
                    "Content-Type": "application/x-www-form-urlencoded",
                },
                post_params=[("q", statement)],
                response_type="object",
            )

        try:
            answer = await self._answers.answered(once_more(ask))
        except SettingsError as error:
            raise Unavailable(str(error)) from error
        if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
            raise Unavailable(
                f"{self._where} answers a query, but not as InfluxDB does: check EVENTSINK_INFLUX_URL"
            )
        points: list[Point] = []
        cut = False
        for result in answer["results"]:
            if "error" in result:
                raise Unavailable(
                    f"InfluxDB at {self._where} could not answer a query: {self._answers.clean(result['error'])}: "
                    f"check that bucket {self._bucket} is there and may be read"
                )
            for series in result.get("series", ()):
                cut = cut or bool(series.get("partial"))
                points += self._points(rollup, window, series)
            cut = cut or bool(result.get("partial"))
        return points, cut

    def _points(self, rollup: str, window: str, series: Mapping[str, Any]) -> Iterator[Point]:
        # Of a tag that a series lacks, its group says the empty string.
        grouped = {name: value for name, value in series.get("tags", {}).items() if value != ""}
        columns = [*grouped, *series["columns"]]
        key = {name: place for place, name in enumerate(self._keys.get(rollup, ()))}
        order = sorted(
            range(len(columns)), key=lambda index: (key.get(columns[index], len(key)), columns[index])
        )
        named = [(columns[index], index) for index in order if columns[index] not in ("time", "window")]
        integer = {name: self._is_integer(rollup, name) for name, _ in named}
        time = columns.index("time")
        for values in series["values"]:
            row = [*grouped.values(), *values]
            # Tags are strings, fields are numbers: an answer says it of each value, and of no column.
            tags = tuple((name, row[index]) for name, index in named if isinstance(row[index], str))
            fields: dict[str, Value] = {}
            for name, index in named:
                number = row[index]
                if isinstance(number, int | float):
                    fields[name] = number if integer[name] else float(number)
            yield Point(rollup, window, row[time], tags, fields)

    def _opened(self) -> Any:
        if self._client is None:
            raise Unavailable(f"InfluxDB at {self._where} is not connected: open the sink first")
        return self._client

    # -- errors --

    def _check_settings(self) -> None:
        try:
            url = URL(self._url)
        except ValueError:
            url = URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise SettingsError(f"EVENTSINK_INFLUX_URL is {self._where}: write it like http://localhost:8086")
        if url.user or url.password:
            raise SettingsError(
                "EVENTSINK_INFLUX_URL holds a user: set EVENTSINK_INFLUX_TOKEN to user:password instead"
            )
        if not (self._token.isascii() and self._token.isprintable()):
            raise SettingsError(
                "EVENTSINK_INFLUX_TOKEN holds characters that no token has: copy it again, without line breaks"
            )


def _order(point: Point) -> tuple[int, tuple[tuple[str, str], ...]]:
    return point.time, point.tags
