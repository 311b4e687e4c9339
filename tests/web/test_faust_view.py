"""The web application as the web server of a Faust worker: the same routes with the same answers."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faust
import pytest
from aiohttp import ClientSession
from faust.exceptions import ImproperlyConfigured
from yarl import URL

from tests.web.serving import PING, UPLOAD, prepared, problem, served
from topology.transports import Batches
from web.faust_view import EventsinkWeb, use


def worker(database: Path, port: int, **settings: Any) -> faust.App:
    return faust.App(
        "worker",
        broker=[URL(f"sqlite://{database}")],
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        **{"web": "eventsink://", "web_bind": "127.0.0.1", "web_port": port, **settings},
    )


@asynccontextmanager
async def started(app: faust.App) -> AsyncIterator[None]:
    await app.start()
    try:
        yield
    finally:
        await app.stop()


async def test_a_worker_takes_events_in_and_its_agents_get_them(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with prepared(tmp_path) as (running, parts):
        app = worker(tmp_path / "eventsink.db", free_port())
        use(app, parts)
        came: asyncio.Queue[bytes] = asyncio.Queue()

        @app.agent(app.topic("mine", schema=Batches(), acks=False))
        async def read(batches: faust.StreamT[Any]) -> None:
            async for batch in batches:
                for message in batch:
                    came.put_nowait(message.body)

        async with started(app), ClientSession(f"http://127.0.0.1:{app.conf.web_port}") as client:
            headers = {"API-KEY": running.secrets["events"], "Content-Type": "application/json"}
            # aiohttp alone would inflate it, and our own inflating would find nothing to inflate.
            packed = {**headers, "Content-Encoding": "gzip"}
            for body, sent_with in ((UPLOAD, headers), (gzip.compress(PING), packed)):
                async with client.post("/v1/events", data=body, headers=sent_with) as response:
                    assert response.status == 202, await response.text()
                    assert (await response.json())["accepted"] == 1
            async with asyncio.timeout(60):
                assert [await came.get(), await came.get()] == [UPLOAD, PING]


async def test_every_route_is_there_and_errors_are_problems(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    folders = tmp_path / "web", tmp_path / "worker"
    for folder in folders:
        folder.mkdir()
    async with served(folders[0]) as web, prepared(folders[1]) as (_, parts):
        app = worker(folders[1] / "eventsink.db", free_port())
        use(app, parts)
        async with started(app), ClientSession(f"http://127.0.0.1:{app.conf.web_port}") as client:
            for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/v1/rollups", "/v1/events", "/"):
                async with client.get(path) as response:
                    ours = await web.get(path)
                    assert (response.status, response.content_type) == (200, ours.content_type), path
                    assert response.headers["Server"] == "eventsink"
            async with client.post("/v1/events", data=UPLOAD) as response:
                await problem(response, 401)
            # What Faust itself would tell everybody.
            for path in ("/router/", "/table/", "/graph", "/stats/"):
                async with client.get(path) as response:
                    await problem(response, 404)


async def test_pages_of_the_apps_own_are_served_beside_it(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with prepared(tmp_path) as (_, parts):
        app = worker(tmp_path / "eventsink.db", free_port())
        use(app, parts)

        @app.page("/mine/")
        async def mine(view: Any, request: Any) -> Any:
            return view.json({"mine": True})

        async with started(app), ClientSession(f"http://127.0.0.1:{app.conf.web_port}") as client:
            async with client.get("/mine/") as response:
                assert await response.json() == {"mine": True}
                assert response.headers["X-Content-Type-Options"] == "nosniff"
            async with client.get("/healthz") as response:
                assert response.status == 200


async def test_another_driver_and_a_thread_of_its_own_are_refused(tmp_path: Path) -> None:
    async with prepared(tmp_path) as (_, parts):
        database = tmp_path / "eventsink.db"
        with pytest.raises(ImproperlyConfigured, match='web="eventsink://"'):
            use(worker(database, 6066, web="aiohttp://"), parts)
        with pytest.raises(ImproperlyConfigured, match="web_in_thread"):
            use(worker(database, 6066, web_in_thread=True), parts)


def test_the_package_registers_its_driver_with_faust(tmp_path: Path) -> None:
    assert isinstance(worker(tmp_path / "x.db", 6066).web, EventsinkWeb)
