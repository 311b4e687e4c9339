"""What the endpoint may answer, and what becomes of the results then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from yarl import URL

from monitors import posting
from monitors.outbox import Outbox
from monitors.posting import Endpoint, NotTaken, Poster
from tests.monitors.targets import port_without_listener, serving, silence, speaking
from tests.web.serving import served
from topology.metrics import MonitorMetrics

Answer = Callable[[Sequence[str]], web.Response]
KEY = "es_hunter2hunter2hunter2"


def taken(ids: Sequence[str], *, refused: Sequence[int] = ()) -> web.Response:
    """As the ingest answers."""
    rejected = [{"index": index, "pointer": "", "error": "no"} for index in refused]
    status = 202 if len(refused) < len(ids) else 422
    return web.json_response({"accepted": len(ids) - len(refused), "rejected": rejected}, status=status)


class Ingest:
    """Answers with each of ``answers`` once, then takes everything. ``got`` are the ids of each request."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.got: list[list[str]] = []
        self.keys: set[str] = set()

    async def handle(self, request: web.Request) -> web.Response:
        assert (request.method, request.path) == ("POST", "/v1/events")
        ids = [json.loads(line)["id"] for line in (await request.read()).splitlines()]
        self.got.append(ids)
        self.keys.add(request.headers["Authorization"])
        answer = self._answers.pop(0) if self._answers else taken
        return answer(ids)


class Posting:
    """A poster over a real outbox. ``slept`` are the pauses that it would have made."""

    def __init__(self, outbox: Outbox, poster: Poster, slept: list[float]) -> None:
        self.outbox = outbox
        self.poster = poster
        self.slept = slept

    async def keep(self, *ids: int) -> None:
        await self.outbox.keep(
            [{"type": "health.pinged", "id": str(each), "time": each, "service": "c"} for each in ids]
        )

    async def empty(self) -> None:
        """Return once nothing waits."""
        async with asyncio.timeout(60):
            while self.outbox.held.events:
                await asyncio.sleep(0)


@asynccontextmanager
async def to(
    port: int, folder: Path, *, key: str = KEY, jitter: float = 1.0, url: str = ""
) -> AsyncIterator[Posting]:
    """A poster to this port of loopback."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    outbox = Outbox(folder / "outbox.db", max_bytes=1 << 24)
    await outbox.open()
    async with aiohttp.ClientSession() as session:
        poster = Poster(
            outbox,
            Endpoint(url=URL(url or f"http://127.0.0.1:{port}"), key=key),
            session,
            MonitorMetrics(CollectorRegistry()),
            sleep=sleep,
            jitter=lambda: jitter,
        )
        yield Posting(outbox, poster, slept)
    await outbox.close()


def problem(status: int, **headers: str) -> Answer:
    return lambda ids: web.json_response(
        {"title": "no", "detail": "said so"},
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        content_type="application/problem+json",
    )


async def test_results_go_in_order_and_are_forgotten_when_they_are_taken(tmp_path: Path) -> None:
    ingest = Ingest()
    async with serving(ingest.handle) as port, to(port, tmp_path) as one:
        await one.keep(*range(1200))
        await one.poster.post_all()
        assert [int(each) for request in ingest.got for each in request] == list(range(1200))
        assert [len(request) for request in ingest.got] == [500, 500, 200]
        assert one.outbox.held.events == 0
        assert ingest.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem(401), "401, the key is not known there"),
        (problem(403), "403, the key may not send health events"),
        (problem(404), "404, no events are taken there"),
        (problem(503), "503: said so"),
        (problem(500), "500: said so"),
        (lambda ids: web.Response(text="<h1>Log in to the Wi-Fi</h1>"), "200, but not from an eventsink"),
        (lambda ids: web.json_response({"accepted": 1, "rejected": []}, status=202), "202, but not from"),
        (lambda ids: web.json_response({"accepted": "3", "rejected": []}, status=202), "202, but not from"),
        (lambda ids: web.json_response({"accepted": None, "rejected": []}, status=202), "202, but not from"),
        (lambda ids: web.Response(body=b" " * (posting.MOST_ANSWER_BYTES + 1)), "200, but not from"),
        (lambda ids: web.Response(status=302, headers={"Location": "http://x/"}), "302, no events are taken"),
    ],
)
async def test_what_is_not_taken_is_kept_and_said(
    answer: Answer, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest = Ingest(answer)
    async with serving(ingest.handle) as port, to(port, tmp_path) as one:
        await one.keep(1, 2, 3)
        running = asyncio.ensure_future(one.poster.run())
        async with asyncio.timeout(60):
            while not one.slept:
                assert one.outbox.held.events == 3
                await asyncio.sleep(0)
        assert said in (one.poster.away or "")
        await one.empty()
        async with asyncio.timeout(60):
            while one.poster.away is not None:
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert ingest.got == [["1", "2", "3"]] * 2
    assert [record.getMessage() for record in caplog.records][1:] == ["the endpoint takes results again"]
    assert said in caplog.text
    assert KEY not in caplog.text


async def test_items_that_are_refused_are_dropped_and_counted_and_the_others_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest = Ingest(lambda ids: taken(ids, refused=[1]), lambda ids: taken(ids, refused=[0]))
    async with serving(ingest.handle) as port, to(port, tmp_path) as one:
        await one.keep(1, 2, 3)
        await one.poster.post_all()
        await one.keep(4)
        await one.poster.post_all()
        assert (one.outbox.held.events, one.outbox.held.refused) == (0, 2)
    assert "will never take 1 of 3 results" in caplog.text


@pytest.mark.parametrize("status", [400, 413, 415])
async def test_one_result_that_spoils_a_request_is_found_by_halving(status: int, tmp_path: Path) -> None:
    def spoiled(ids: Sequence[str]) -> web.Response:
        return problem(status)(ids) if "5" in ids else taken(ids)

    ingest = Ingest(*[spoiled] * 20)
    async with serving(ingest.handle) as port, to(port, tmp_path) as one:
        await one.keep(*range(8))
        await one.poster.post_all()
        assert (one.outbox.held.events, one.outbox.held.refused) == (0, 1)
    accepted = [each for request in ingest.got if "5" not in request for each in request]
    assert accepted == ["0", "1", "2", "3", "4", "6", "7"]


async def test_who_says_400_to_everything_in_the_endpoints_place_takes_and_loses_nothing(
    tmp_path: Path,
) -> None:
    # As NGINX does where it is spoken to without TLS.
    ingest = Ingest(*[lambda ids: web.Response(status=400, text="sent to HTTPS port")] * 9)
    async with serving(ingest.handle) as port, to(port, tmp_path) as one:
        await one.keep(1, 2, 3)
        with pytest.raises(NotTaken, match="400: sent to HTTPS port"):
            await one.poster.post_all()
        assert (one.outbox.held.events, one.outbox.held.refused) == (3, 0)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{away}", "http://127.0.0.1:{away}: Connection refused"),
        (
            "https://127.0.0.1:{plain}",
            "https://127.0.0.1:{plain}: no TLS there: what answers may be http, not https",
        ),
        ("http://nobody.invalid:80", "http://nobody.invalid: its name is not known to DNS"),
    ],
)
async def test_what_is_wrong_with_a_connection_is_said_in_few_words(
    url: str, said: str, tmp_path: Path
) -> None:
    async with serving(Ingest().handle) as plain:
        ports = {"plain": plain, "away": port_without_listener()}
        async with to(plain, tmp_path, url=url.format(**ports)) as one:
            await one.keep(1)
            with pytest.raises(NotTaken) as raised:
                await one.poster.post_all()
        assert str(raised.value) == said.format(**ports)


async def test_an_endpoint_that_is_away_is_asked_ever_less_often_with_jitter(tmp_path: Path) -> None:
    for jitter, part in ((1.0, 1.0), (0.0, 0.5)):
        async with to(port_without_listener(), tmp_path, jitter=jitter) as one:
            await one.keep(1)
            running = asyncio.ensure_future(one.poster.run())
            async with asyncio.timeout(60):
                while len(one.slept) < 9:
                    await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert one.slept[:9] == [each * part for each in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]


async def test_the_endpoints_wish_is_heeded(tmp_path: Path) -> None:
    at = "Tue, 24 Nov 2026 10:00:00 GMT"
    ingest = Ingest(
        problem(429, Retry_After="7"),
        problem(503, Retry_After="Tue, 24 Nov 2026 10:01:00 GMT", Date=at),
        problem(503, Retry_After="soon"),
    )
    async with serving(ingest.handle) as port, to(port, tmp_path) as one:
        await one.keep(1)
        running = asyncio.ensure_future(one.poster.run())
        await one.empty()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert one.slept == [7.0, 60.0, 2.0]


async def test_a_lost_answer_makes_nothing_count_twice_and_a_wrong_item_spoils_nothing(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as app:
        assert app.client.port is not None
        async with to(app.client.port, tmp_path, key=app.secrets["health"]) as one:
            event = {"type": "health.pinged", "source": "m", "time": 1_795_467_000_000, "service": "c"}
            good = {**event, "id": "1", "region": "eu", "up": True}
            await one.outbox.keep([good, {**event, "id": "2"}, good])
            await one.poster.post_all()
            assert (one.outbox.held.events, one.outbox.held.refused) == (0, 1)
            (message,) = await app.published()
            lines = message.body.splitlines()
            assert [json.loads(line)["id"] for line in lines] == ["1", "1"]
            assert json.loads(lines[0]) == good


async def test_a_wrong_key_keeps_everything(tmp_path: Path) -> None:
    async with served(tmp_path) as app:
        assert app.client.port is not None
        for key, said in (("es_wrong", "401"), (app.secrets["read"], "403")):
            async with to(app.client.port, tmp_path, key=key) as one:
                await one.keep(1)
                with pytest.raises(NotTaken, match=said):
                    await one.poster.post_all()
                assert one.outbox.held.events >= 1


async def test_an_endpoint_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "ANSWER_WITHIN_S", 0.1)
    async with speaking(silence) as port, to(port, tmp_path) as one:
        await one.keep(1)
        with pytest.raises(NotTaken, match=r"no answer within 0.1 s"):
            await one.poster.post_all()
        assert one.outbox.held.events == 1
