"""``Idempotency-Key``: the same request is answered the same and counted once, whatever happened in between.
Pitfall 35: a retried batch counts twice."""

from __future__ import annotations

import asyncio
import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from hypothesis import given
from hypothesis import strategies as st

from tests.web.serving import NOW_MS, PING, UPLOAD, Served, problem, served
from topology.errors import Unavailable
from topology.log import Outgoing
from web import idempotency
from web.delivery import LogDelivery
from web.idempotency import KEPT_FOR_MS, Idempotency
from web.keys import Keys
from web.problems import Problem

MIXED = b"[" + UPLOAD + b",{}]"


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


class Scripted:
    """A log that fails as often as it is told to, then takes what comes; ``asked`` is set when it is asked."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.published: list[Outgoing] = []
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self.published += messages
        self.asked.set()
        await self.go.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable("the broker does not answer")


def delivery(log: Any) -> LogDelivery:
    return LogDelivery(log)


async def send(app: Served, body: bytes = MIXED, key: str = "k1", **named: str) -> ClientResponse:
    return await app.post(body, idempotency_key=key, **named)


async def test_the_same_request_is_answered_the_same_and_published_once(app: Served) -> None:
    first = await send(app)
    again = await send(app)
    assert (first.status, again.status) == (202, 202)
    assert await first.read() == await again.read()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.content_type == "application/json"
    assert len(await app.published()) == 1


async def test_without_a_key_every_request_is_a_new_one(app: Served) -> None:
    assert [(await app.post(MIXED)).status for _ in range(2)] == [202, 202]
    assert len(await app.published()) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"body": UPLOAD},
        {"body": MIXED + b" "},
        {"content_type": "text/json"},
        {
            "ce_id": "1",
            "ce_source": "s",
            "ce_type": "activity.signed_up",
            "ce_specversion": "1.0",
            "body": b"{}",
        },
    ],
)
async def test_another_request_under_the_same_key_is_422(app: Served, changed: dict[str, Any]) -> None:
    assert (await send(app)).status == 202
    answer = await problem(await send(app, **changed), 422)
    assert "Idempotency-Key" in answer["detail"]
    assert len(await app.published()) == 1


async def test_events_in_headers_are_part_of_the_request(app: Served) -> None:
    named = {"ce_source": "s", "ce_type": "activity.signed_up", "ce_specversion": "1.0"}
    assert (await send(app, b"", ce_id="1", **named)).status == 202
    assert (await send(app, b"", ce_id="1", **named)).headers["Idempotency-Replayed"] == "true"
    await problem(await send(app, b"", ce_id="2", **named), 422)


async def test_a_body_compressed_anew_is_the_same(app: Served) -> None:
    assert (await send(app, gzip.compress(MIXED, 1), content_encoding="gzip")).status == 202
    assert (await send(app, gzip.compress(MIXED, 9), content_encoding="gzip")).headers["Idempotency-Replayed"]


async def test_keys_of_two_names_are_two_keys(app: Served, tmp_path: Path) -> None:
    secret = Keys(tmp_path / "keys.json").create("other", ["events"], None, now=NOW_MS)
    assert (await send(app, PING)).status == 202
    other = await send(app, UPLOAD, authorization=f"Bearer {secret}")
    assert "Idempotency-Replayed" not in other.headers
    assert (other.status, len(await app.published())) == (202, 2)


async def test_reports_of_monitors_are_recognised_too(app: Served) -> None:
    body = b'{"homepage_status":{"success":true,"bytes":1}}'
    for replayed in (None, "true"):
        response = await app.post(body, key="health", path="/service", idempotency_key="k")
        assert (response.status, response.headers.get("Idempotency-Replayed")) == (202, replayed)
    assert len(await app.published()) == 1


async def test_what_was_refused_may_be_corrected_under_its_key(app: Served) -> None:
    await problem(await send(app, b"{}"), 422)
    assert (await send(app, UPLOAD)).status == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "é"])
async def test_a_key_that_cannot_be_is_400(app: Served, key: str) -> None:
    await problem(await send(app, key=key), 400)
    assert not await app.published()


async def test_while_the_first_is_worked_on_the_second_is_409(tmp_path: Path) -> None:
    log = Scripted()
    log.go.clear()
    async with served(tmp_path, delivery=delivery(log)) as app:
        first = asyncio.create_task(send(app))
        await log.asked.wait()
        second = await send(app)
        await problem(second, 409)
        assert int(second.headers["Retry-After"]) >= 1
        await problem(await send(app, UPLOAD), 422)
        log.go.set()
        assert (await first).status == 202
        assert (await send(app)).headers["Idempotency-Replayed"] == "true"
        assert len(log.published) == 1


async def test_after_503_the_same_message_is_published_again(tmp_path: Path) -> None:
    log, clock = Scripted(failures=2), Clock()
    requests = Idempotency(tmp_path / "r.db", clock=clock)
    async with served(tmp_path, delivery=delivery(log), requests=requests, clock=clock) as app:
        for status in (503, 503, 202):
            assert (await send(app)).status == status
            clock.now_ms += 60_000
        assert len(log.published) == 3
        assert len(set(log.published)) == 1


async def test_after_a_death_in_the_middle_the_same_message_is_published_again(tmp_path: Path) -> None:
    log = Scripted()
    log.go.clear()
    dead, alive = tmp_path / "dead", tmp_path / "alive"
    dead.mkdir()
    alive.mkdir()
    async with served(dead, delivery=delivery(log)) as app:
        posting = asyncio.create_task(send(app))
        await log.asked.wait()
        # What a process leaves that is killed now: the file, and its write-ahead log that nobody closed.
        for file in dead.glob("requests.db*"):
            shutil.copy(file, alive)
        secrets = app.secrets
        log.go.set()
        await posting
    async with served(alive, delivery=delivery(log), keys=Keys(dead / "keys.json")) as app:
        again = await send(app, authorization=f"Bearer {secrets['events']}")
        assert again.status == 202
        assert "Idempotency-Replayed" not in again.headers
    first, second = log.published
    assert first == second


async def test_answers_survive_a_restart_and_are_kept_for_a_day(tmp_path: Path) -> None:
    clock = Clock()
    secrets: dict[str, str] = {}
    for later_ms, replayed in ((0, None), (KEPT_FOR_MS - 1, "true"), (KEPT_FOR_MS, None)):
        clock.now_ms = NOW_MS + later_ms
        folder = tmp_path / str(later_ms)
        folder.mkdir()
        requests = Idempotency(tmp_path / "requests.db", clock=clock)
        keys = Keys(tmp_path / "keys.json")
        if not secrets:
            secrets["events"] = keys.create("events", ["events"], None, now=NOW_MS)
        async with served(folder, requests=requests, keys=keys, clock=clock) as app:
            response = await send(app, authorization=f"Bearer {secrets['events']}")
            assert (response.status, response.headers.get("Idempotency-Replayed")) == (202, replayed)


async def test_a_file_that_cannot_be_written_is_503_and_only_for_those_who_need_it(tmp_path: Path) -> None:
    (tmp_path / "requests.db").mkdir()
    async with served(tmp_path) as app:
        response = await send(app)
        await problem(response, 503)
        assert response.headers["Retry-After"]
        assert not await app.published()
        assert (await app.post(UPLOAD)).status == 202


# -- the store --


async def record(store: Idempotency, key: str, answer: bytes = b"{}") -> bytes | None:
    async with store.attempt("n", key, b"digest") as attempt:
        if attempt.answer is None:
            await attempt.keep(answer)
        return attempt.answer


async def test_the_file_is_bounded_and_the_oldest_are_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    store = Idempotency(tmp_path / "r.db", clock=clock, max_file_bytes=100_000)
    for number in range(300):
        clock.now_ms += 1
        assert await record(store, str(number), b"x" * 1000) is None
    assert any("forgot" in each.message for each in caplog.records)
    assert await record(store, "299") == b"x" * 1000
    assert await record(store, "0") is None
    await store.close()
    assert (tmp_path / "r.db").stat().st_size < 150_000


async def test_what_is_older_than_a_day_leaves_the_file(tmp_path: Path) -> None:
    clock = Clock()
    store = Idempotency(tmp_path / "r.db", clock=clock)
    for number in range(60):
        await record(store, str(number))
    clock.now_ms += KEPT_FOR_MS
    for number in range(3):
        await record(store, f"later {number}")
    rows = await (await store._requests._opened()).read(
        lambda connection: connection.execute("SELECT key FROM requests").fetchall()
    )
    assert sorted(rows) == [(f"later {number}",) for number in range(3)]
    await store.close()


async def test_an_answer_that_cannot_be_kept_was_given_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Idempotency(tmp_path / "r.db", clock=Clock())
    async with store.attempt("n", "k", b"digest") as attempt:
        await store.close()
        (tmp_path / "r.db").unlink()
        (tmp_path / "r.db").mkdir()
        await attempt.keep(b"{}")
    assert "could not be kept" in caplog.text


async def test_two_processes_on_one_request_publish_one_message(tmp_path: Path) -> None:
    one, other = (Idempotency(tmp_path / "r.db", clock=Clock()) for _ in range(2))
    async with one.attempt("n", "k", b"digest") as first, other.attempt("n", "k", b"digest") as second:
        assert first.stamp == second.stamp
    with pytest.raises(Problem):
        async with other.attempt("n", "k", b"another"):
            raise AssertionError("not reached")
    await one.close()
    await other.close()


class FakeRequest:
    """What a digest is taken of."""

    def __init__(self, path: str, headers: dict[str, str]) -> None:
        self.path = path
        self.headers = headers


TEXTS = st.text(max_size=4)
REQUESTS = st.tuples(
    TEXTS,
    st.dictionaries(st.sampled_from(["Content-Type", "ce-id", "ce-a", "ce-"]), TEXTS, max_size=3),
    st.binary(max_size=4),
)


@given(REQUESTS, REQUESTS)
def test_digests_are_the_same_for_the_same_alone(one: Any, other: Any) -> None:
    def said(request: Any) -> Any:
        path, headers, body = request
        return path, {"Content-Type": "", **headers}, body

    def digest(request: Any) -> bytes:
        path, headers, body = request
        return idempotency.digest_of(FakeRequest(path, headers), body)  # type: ignore[arg-type]

    assert (digest(one) == digest(other)) == (said(one) == said(other))
