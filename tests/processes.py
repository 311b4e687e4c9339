"""Real processes of the command `eventsink`, as a user starts and as fate ends them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import msgspec

import agents
from cli import parts
from cli.events import pages
from cli.rollups import asked
from cli.settings import Settings, load
from topology.errors import Unavailable
from web import formats
from web.documents import event_document
from web.rows import Wanted

T = TypeVar("T")

DATA = Path(__file__).with_name("data")
SAMPLE = DATA / "clowder-6h.jsonl"
#: The sample's dates are fixed, so nothing of it may be too old to count.
KEEP_ALL = {"EVENTSINK_KEEP": "36500d"}
#: Those of the expected files, with their key tags.
ROLLUPS = {
    "space_storage": ("space_id",),
    "resource_traffic": ("action", "resource_type", "space_id"),
    "user_activity": ("action",),
    "extractor_runtime": ("extractor",),
    "service_uptime": ("service", "region"),
}
#: Those that the sample has nothing of.
OTHER_ROLLUPS = {"service_connections": ("service", "region"), "queue_length": ("service", "queue")}
#: The expected files tell seconds in milliseconds.
NEARLY = 0.001
START_LIMIT_S = 120.0
STOP_LIMIT_S = 25.0
ANSWER_LIMIT_S = 120.0

#: Everything that was started, so that a test which fails leaves nothing running.
STARTED: list[asyncio.subprocess.Process] = []

Rows = dict[tuple[str, ...], dict[str, Any]]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Instance:
    """One installation: a working folder and settings. Commands run in it with nothing else of this shell's."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            **KEEP_ALL,
            **(settings or {}),
        }
        self._up: Service | None = None

    async def run(self, *arguments: str, input: bytes | None = None) -> Ended:
        """Run a command to its end."""
        process = await self._spawn(*arguments)
        out, err = await process.communicate(input)
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def _spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("eventsink"),
            *arguments,
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        STARTED.append(process)
        return process

    async def start(self, command: str, port: int, *options: str) -> Service:
        """Start `up`, `worker` or `web` and return once it is ready."""
        service = await self.begin(command, port, *options)
        try:
            await service.ready()
        except BaseException:
            await service.kill()
            raise
        return service

    async def begin(self, command: str, port: int, *options: str) -> Service:
        """Start it and do not wait."""
        service = Service(await self._spawn(command, "--port", str(port), *options), port)
        if command == "up":
            self._up = service
        return service

    async def rows(self, name: str, window: str) -> Rows:
        """The rows by time and key tags: of the running `up` where one answers, else of the store itself."""
        if self._up is not None and self._up.process.returncode is None:
            url = f"{self._up.url}/v1/rollups/{name}"
            with suppress(aiohttp.ClientError, TimeoutError):
                async with (
                    asyncio.timeout(ANSWER_LIMIT_S),
                    aiohttp.ClientSession() as session,
                    session.get(url, params={"window": window}) as answer,
                ):
                    if answer.status == 200:
                        return keyed(name, (await answer.json())["rows"])
        return keyed(name, json.loads(await self._patiently(lambda: self._stored_rows(name, window)))["rows"])

    async def _stored_rows(self, name: str, window: str) -> bytes:
        settings = self._settings()
        sink = parts.rollup_sink(settings, parts.Shared(settings, create=False))
        try:
            await sink.open()
            return formats.FORMATS["json"].write(
                await asked(sink, agents.ROLLUPS[name], Wanted(window=window))
            )
        finally:
            await sink.close()

    async def printed_rows(self, name: str, window: str) -> Rows:
        """What `eventsink rollups` prints, by time and key tags."""
        return keyed(
            name, json.loads(await self._patiently(lambda: self._printed_rows(name, window)))["rows"]
        )

    async def _printed_rows(self, name: str, window: str) -> str:
        ended = await self.run("rollups", name, "--window", window, "--format", "json")
        if ended.code != 0:
            raise Unavailable(ended.err)
        return ended.out

    async def events(self) -> list[dict[str, Any]]:
        """All raw events."""
        return await self._patiently(self._stored_events)

    async def _stored_events(self) -> list[dict[str, Any]]:
        settings = self._settings()
        archive = parts.raw_events(settings, parts.Shared(settings, create=False))
        try:
            await archive.open()
            found = [
                event
                async for page in pages(archive, None, since=None, until=None, type_=None)
                for event in page
            ]
        finally:
            await archive.close()
        return [json.loads(msgspec.json.encode(event_document(event))) for event in found]

    def _settings(self) -> Settings:
        """What a command would read."""
        return load(self.environment, data=self.folder / self.environment.get("EVENTSINK_DATA", "data"))

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """A server that a busy machine makes too slow to answer is asked again."""
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while True:
                try:
                    return await ask()
                except Unavailable as error:
                    if "does not answer" not in str(error):
                        raise


class Service:
    """A running `up`, `worker` or `web`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._output: list[bytes] = []
        # Read all the time: a full pipe would stop the process.
        self._readers = [
            asyncio.ensure_future(self._read(stream))
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self._output.append(line)

    @property
    def output(self) -> str:
        """What it has written so far."""
        return b"".join(self._output).decode(errors="replace")

    async def ready(self) -> None:
        async with asyncio.timeout(START_LIMIT_S), aiohttp.ClientSession() as session:
            while True:
                if self.process.returncode is not None:
                    await asyncio.gather(*self._readers)
                    raise AssertionError(f"ended with {self.process.returncode}: {self.output}")
                with suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.02)

    async def metrics(self) -> str:
        """What Prometheus would scrape."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            return await answer.text()

    async def kill(self) -> None:
        """``kill -9``."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.ended()

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """The exit code, once it has ended."""
        async with asyncio.timeout(STOP_LIMIT_S):
            code = await self.process.wait()
        await asyncio.gather(*self._readers)
        return code


def keyed(name: str, rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Rows by time and key tags."""
    key = ("time", *(ROLLUPS | OTHER_ROLLUPS)[name])
    return {
        (str(int(datetime.fromisoformat(row["time"]).timestamp())), *(row[tag] for tag in key[1:])): {
            field: value for field, value in row.items() if field not in key
        }
        for row in rows
    }


def expected(window: str) -> dict[str, Rows]:
    """What exactly the sample's events must give."""
    content = json.loads((DATA / f"clowder-6h.expected-{window}.json").read_text())
    return {name: keyed(name, content[name]) for name in ROLLUPS}


async def comes_to_the_expected_numbers(instance: Instance, *, limit_s: float = 150.0) -> None:
    """Wait until the rollups are what the sample gives, and say what differs when they do not come to it. The last
    minutes of ``service_uptime`` are complete once the watermark has followed the clock: a second or two later."""
    want = {window: expected(window) for window in ("1h", "1m")}
    asked = [(window, name) for window in want for name in ROLLUPS]

    async def differing(window: str, name: str) -> list[str]:
        found = differences(name, await instance.rows(name, window), want[window][name])
        return [f"{name} {window}: {each}" for each in found]

    async def all_agree() -> bool:
        for each in asked:
            if await differing(*each):
                return False
        return True

    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not await all_agree():
                await asyncio.sleep(0.05)
            return
    found = [difference for each in asked for difference in await differing(*each)]
    assert not found, "\n".join([f"{len(found)} differences", *found[:20]])


def differences(name: str, rows: Rows, want: Rows) -> list[str]:
    """Where rows are not the expected ones, by key and field. The expected files leave out fields that are not exact,
    and windows in which nothing is known of a service."""
    found = [f"{key} is missing" for key in want.keys() - rows.keys()]
    for key in rows.keys() - want.keys():
        row = rows[key]
        # A field that is not there yet: the row is being written.
        if name != "service_uptime" or any(
            row.get(field, 1) for field in ("up_s", "down_s", "maintenance_s")
        ):
            found.append(f"{key} is too many: {row}")
    for key in want.keys() & rows.keys():
        for field, value in want[key].items():
            if not _agree(rows[key].get(field), value):
                found.append(f"{key}: {field} is {rows[key].get(field)}, not {value}")
    return sorted(found)


def _agree(value: Any, want: Any) -> bool:
    """Floats nearly, all else exactly."""
    if isinstance(value, float) and isinstance(want, float):
        return abs(value - want) <= NEARLY
    return type(value) in {int, float} and bool(value == want)


async def holds_each_event_once(
    instance: Instance, lines: Sequence[bytes], *, limit_s: float = 120.0
) -> None:
    """Wait until the archive has as many events as there are lines; positions tell that none is there twice."""
    events: list[dict[str, Any]] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while len(events := await instance.events()) < len(lines):
                await asyncio.sleep(0.05)
    assert len(events) == len(lines)
    assert len({event["position"] for event in events}) == len(lines)


def sample_lines() -> list[bytes]:
    """The lines of the sample."""
    return SAMPLE.read_bytes().splitlines()
