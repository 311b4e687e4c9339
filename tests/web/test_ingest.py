"""``POST /v1/events``: each answer of the contract, and nothing acknowledged that is not durable."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import web.delivery
from tests.web.serving import NOW_MS, PING, UPLOAD, Served, problem, served
from topology.errors import Refused, Unavailable
from topology.log import Outgoing
from web import bodies
from web.delivery import LogDelivery
from web.items import MAX_ITEM_BYTES

NDJSON = "application/x-ndjson"
CLOWDER_UPLOAD = (
    b'{"category":"upload","dataset_id":"603e53e4b6fa7a2c7d7a1133","dataset_name":"d","author_name":"A B",'
    b'"author_id":"603e53e4b6fa7a2c7d7a1134","user_id":"603e53e4b6fa7a2c7d7a1135","user_name":"A B",'
    b'"resource_name":"x.txt","size":123,"created":1795467600000}'
)


class Gated:
    """A log that confirms when it is told to. Pitfall 31: 2xx before anything is durable."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.confirm = asyncio.Event()
        self.order: list[str] = []

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self.asked.set()
        await self.confirm.wait()
        self.order.append("durable")


class Down:
    """A log that is away; ``retry_after`` as its server might wish."""

    def __init__(self, retry_after: timedelta | None = None) -> None:
        self.retry_after = retry_after

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        raise Unavailable("the broker does not answer: look whether it runs", self.retry_after)


def delivery(log: Any) -> LogDelivery:
    """Into a log of which nothing but publishing is asked."""
    return LogDelivery(log)


async def test_one_event_is_accepted_and_kept_in_its_bytes(app: Served) -> None:
    body = b' {"type": "storage.file_uploaded",\n "file_id":"f1", "bytes": 7, "extra": 1.10}\n'
    response = await app.post(body)
    assert response.status == 202
    assert await response.json() == {"accepted": 1, "rejected": [], "durable": "log"}
    (message,) = await app.published()
    assert message.body == body
    assert message.content_type == "application/json"


async def test_a_message_is_stamped_with_its_arrival_and_a_uuid7_of_it(app: Served) -> None:
    await app.post(UPLOAD)
    (message,) = await app.published()
    assert message.received_ms == NOW_MS
    assert message.event_id is not None
    stamp = uuid.UUID(message.event_id)
    assert (stamp.version, stamp.variant) == (7, uuid.RFC_4122)
    assert stamp.int >> 80 == NOW_MS


async def test_an_array_becomes_one_message_of_lines(app: Served) -> None:
    response = await app.post(json.dumps([json.loads(UPLOAD), json.loads(PING)], indent=2).encode())
    assert (await response.json())["accepted"] == 2
    (message,) = await app.published()
    assert message.content_type == NDJSON
    first, second = message.body.split(b"\n")
    assert json.loads(first) == json.loads(UPLOAD)
    assert json.loads(second) == json.loads(PING)


async def test_lines_become_one_message_in_their_bytes(app: Served) -> None:
    response = await app.post(b"\n" + UPLOAD + b"\r\n\n" + CLOWDER_UPLOAD, content_type=NDJSON)
    assert (await response.json())["accepted"] == 2
    (message,) = await app.published()
    assert message.body == UPLOAD + b"\n" + CLOWDER_UPLOAD


async def test_a_foreign_shape_is_accepted(app: Served) -> None:
    assert (await app.post(CLOWDER_UPLOAD)).status == 202
    (message,) = await app.published()
    assert message.body == CLOWDER_UPLOAD


async def test_the_whole_sample_is_accepted(app: Served) -> None:
    lines = (Path(__file__).parent.parent / "data" / "clowder-6h.jsonl").read_bytes().splitlines()
    accepted = 0
    for at in range(0, len(lines), 1000):
        response = await app.post(b"\n".join(lines[at : at + 1000]), content_type=NDJSON)
        assert response.status == 202
        accepted += (await response.json())["accepted"]
    assert accepted == len(lines) == sum(len(m.body.split(b"\n")) for m in await app.published())


async def test_a_bad_item_is_rejected_by_itself_with_index_and_pointer(app: Served) -> None:
    # Pitfall 34: one bad item refuses, or silently drops, a whole batch.
    lines = [
        UPLOAD,
        b"",  # blank lines are not counted
        b'{"type":"storage.file_uploaded","file_id":"f","bytes":-1}',
        b"nonsense",
        b'{"type":"storage.file_uploaded","bytes":1}',
        b"[]",
        PING,
    ]
    response = await app.post(b"\n".join(lines), content_type=NDJSON)
    assert response.status == 202
    answer = await response.json()
    assert answer["accepted"] == 2
    assert [(each["index"], each["pointer"]) for each in answer["rejected"]] == [
        (1, "/bytes"),
        (2, ""),
        (3, "/file_id"),
        (4, ""),
    ]
    assert all(each["error"] for each in answer["rejected"])
    (message,) = await app.published()
    assert message.body == UPLOAD + b"\n" + PING


async def test_an_item_of_an_array_that_is_half_a_character_is_rejected_by_itself(app: Served) -> None:
    bad = b'{"type":"traffic.page_viewed","url":"\\ud800"}'
    answer = await (await app.post(b"[" + UPLOAD + b"," + bad + b"]")).json()
    assert (answer["accepted"], [each["index"] for each in answer["rejected"]]) == (1, [1])


async def test_a_single_item_that_is_left_is_a_plain_message(app: Served) -> None:
    await app.post(b"[1," + UPLOAD + b"]")
    (message,) = await app.published()
    assert (message.body, message.content_type) == (UPLOAD, "application/json")


@pytest.mark.parametrize(
    ("body", "kind", "rejected"),
    [
        (b"{}", "application/json", 1),
        (b"3", "application/json", 1),
        (b'{"type":"no.such"}', "application/json", 1),
        (b'{"type":"traffic.page_viewed","url":"\\ud800"}', "application/json", 1),
        (b"[]", "application/json", 0),
        (b"[[],{}]", "application/json", 2),
        (b"", NDJSON, 0),
        (b"\n \n", NDJSON, 0),
        (b"{}\nnonsense", NDJSON, 2),
    ],
)
async def test_nothing_accepted_is_422_with_the_reasons(
    app: Served, body: bytes, kind: str, rejected: int
) -> None:
    answer = await problem(await app.post(body, content_type=kind), 422)
    assert answer["accepted"] == 0
    assert [each["index"] for each in answer["rejected"]] == list(range(rejected))
    assert answer["durable"] == "log"
    assert not await app.published()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b" ", "application/json"),
        (b"nonsense", "application/json"),
        (b'{"type":', "application/json"),
        (UPLOAD + UPLOAD, "application/json"),
        (b"[" + UPLOAD, "application/json"),
        (b"\xff\xfe\x00", "application/json"),
        (b"nonsense\nand more", NDJSON),
    ],
)
async def test_a_body_that_is_no_json_is_400(app: Served, body: bytes, kind: str) -> None:
    await problem(await app.post(body, content_type=kind), 400)
    assert not await app.published()


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"nope", "the body is not JSON: invalid character (byte 4)"),
        (b" ", "the body is empty"),
        (
            b'{"type":"activity.login"}',
            "/type: unknown type 'activity.login': did you mean activity.logged_in?",
        ),
        (b"[1,2]", "see rejected"),
    ],
)
async def test_the_detail_says_once_what_is_wrong(app: Served, body: bytes, detail: str) -> None:
    answer = await problem(await app.post(body), 422 if body[:1] in b"[{" else 400)
    assert answer["detail"].endswith(detail)
    assert answer["detail"].count("not JSON") <= 1


async def test_gzip_is_inflated(app: Served) -> None:
    response = await app.post(gzip.compress(UPLOAD), content_encoding="gzip")
    assert response.status == 202
    (message,) = await app.published()
    assert message.body == UPLOAD


async def test_broken_gzip_is_400_and_a_bomb_413(app: Served) -> None:
    # Pitfall 33. aiohttp's own inflating takes the cut stream for a whole one.
    await problem(await app.post(gzip.compress(UPLOAD)[:-9], content_encoding="gzip"), 400)
    await problem(await app.post(UPLOAD, content_encoding="gzip"), 400)
    bomb = gzip.compress(b" " * 100_000_000)
    assert len(bomb) < bodies.MAX_BODY_BYTES
    await problem(await app.post(bomb, content_encoding="gzip"), 413)
    assert not await app.published()


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "gzip, br", "nonsense"])
async def test_other_encodings_are_415(app: Served, encoding: str) -> None:
    response = await app.post(gzip.compress(UPLOAD), content_encoding=encoding)
    await problem(response, 415)
    assert response.headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/cbor", "nonsense", "text/html"]
)
async def test_other_content_types_are_415(app: Served, kind: str) -> None:
    await problem(await app.post(UPLOAD, content_type=kind), 415)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "text/json"])
async def test_json_by_other_spellings_is_json(app: Served, kind: str) -> None:
    assert (await app.post(UPLOAD, content_type=kind)).status == 202


async def test_an_item_of_64_kib_is_accepted_and_a_byte_more_rejected_by_itself(app: Served) -> None:
    frame = b'{"type":"traffic.page_viewed","url":"%b"}'
    room = MAX_ITEM_BYTES - len(frame % b"")
    fits, over = frame % (b"x" * room), frame % (b"x" * (room + 1))
    assert (await app.post(fits)).status == 202
    answer = await problem(await app.post(over), 422)
    assert [(each["index"], each["pointer"]) for each in answer["rejected"]] == [(0, "")]
    for body, kind in (
        (b"[%b,%b,%b]" % (over, fits, PING), "application/json"),
        (b"\n".join([over, fits, PING]), NDJSON),
    ):
        answer = await (await app.post(body, content_type=kind)).json()
        assert answer["accepted"] == 2
        (rejected,) = answer["rejected"]
        assert (rejected["index"], rejected["pointer"]) == (0, "")
        assert "64 KiB" in rejected["error"]
    assert (await app.published())[-1].body == fits + b"\n" + PING


async def test_a_mebibyte_is_accepted_and_a_byte_more_is_413(app: Served) -> None:
    items = [PING] * 100
    blanks = bodies.MAX_BODY_BYTES - len(b"\n".join(items))
    assert (await app.post(b"\n".join(items) + b" " * blanks, content_type=NDJSON)).status == 202
    await problem(await app.post(b"\n".join(items) + b" " * (blanks + 1), content_type=NDJSON), 413)


async def test_a_body_without_length_is_bounded_too(app: Served) -> None:
    async def chunks(count: int) -> object:
        for _ in range(count):
            yield b" " * 65_536
        yield UPLOAD

    async def post(count: int) -> object:
        return await app.client.post(
            "/v1/events",
            data=chunks(count),
            headers={"Content-Type": "application/json", "API-KEY": app.secrets["events"]},
        )

    assert (await post(3)).status == 202  # type: ignore[attr-defined]
    await problem(await post(17), 413)  # type: ignore[arg-type]


async def test_a_thousand_items_are_accepted_and_one_more_is_413(app: Served) -> None:
    assert (await app.post(b"\n".join([PING] * 1000), content_type=NDJSON)).status == 202
    await problem(await app.post(b"\n".join([PING] * 1001), content_type=NDJSON), 413)
    await problem(await app.post(b"[" + b",".join([PING] * 1001) + b"]"), 413)


# -- durability --


async def test_202_comes_after_the_log_has_it_and_never_before(tmp_path: Path) -> None:
    log = Gated()
    async with served(tmp_path, delivery=delivery(log)) as app:
        posting = asyncio.create_task(app.post(UPLOAD))
        posting.add_done_callback(lambda _: log.order.append("answered"))
        await log.asked.wait()
        # Anything that the application had to send by now would have come before this answer.
        assert (await app.get("/healthz")).status == 200
        assert not posting.done()
        log.confirm.set()
        response = await posting
        assert response.status == 202
        assert (await response.json())["durable"] == "log"
        await asyncio.sleep(0)
        assert log.order == ["durable", "answered"]


async def test_a_log_that_is_away_is_503_with_retry_after(tmp_path: Path) -> None:
    async with served(tmp_path, delivery=delivery(Down())) as app:
        response = await app.post(UPLOAD)
        assert "look whether it runs" in (await problem(response, 503))["detail"]
        assert int(response.headers["Retry-After"]) >= 1
        assert app.counted(503) == 1


class TooLarge:
    """A log that will never take it."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        raise Refused("the broker takes no message of 9 bytes: send at most 8")


async def test_what_the_log_will_never_take_is_413_with_what_to_do(tmp_path: Path) -> None:
    async with served(tmp_path, delivery=delivery(TooLarge())) as app:
        assert "send at most 8" in (await problem(await app.post(UPLOAD), 413))["detail"]


async def test_the_servers_own_wish_is_passed_on(tmp_path: Path) -> None:
    async with served(tmp_path, delivery=delivery(Down(timedelta(seconds=41.2)))) as app:
        assert (await app.post(UPLOAD)).headers["Retry-After"] == "42"


async def test_a_log_that_never_confirms_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pitfall 19: publishers hang without an answer.
    monkeypatch.setattr(web.delivery, "LOGGED_WITHIN_S", 0.01)
    async with served(tmp_path, delivery=delivery(Gated())) as app:
        response = await app.post(UPLOAD)
        await problem(response, 503)
        assert response.headers["Retry-After"]


async def test_a_body_that_never_ends_is_408(app: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_WITHIN_S", 0.01)
    reader, writer = await asyncio.open_connection(app.client.host, app.client.port)
    writer.write(
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAPI-KEY: {app.secrets['events']}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
    )
    assert b" 408 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


# -- asking first --


async def _ask(app: Served, head: str, key: str = "events") -> bytes:
    reader, writer = await asyncio.open_connection(app.client.host, app.client.port)
    secret = app.secrets.get(key, key)
    writer.write(f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAPI-KEY: {secret}\r\n{head}\r\n\r\n".encode())
    line = await reader.readline()
    if b" 100 " in line:
        await reader.readline()
        writer.write(UPLOAD)
        line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


async def test_who_asks_first_is_answered_before_sending(app: Served) -> None:
    kind = "Content-Type: application/json"
    size = f"Content-Length: {len(UPLOAD)}"
    assert b" 202 " in await _ask(app, f"{kind}\r\n{size}\r\nExpect: 100-continue")
    assert b" 413 " in await _ask(app, f"{kind}\r\nContent-Length: 99999999\r\nExpect: 100-continue")
    assert b" 401 " in await _ask(app, f"{kind}\r\n{size}\r\nExpect: 100-continue", key="es_no")
    assert b" 417 " in await _ask(app, f"{kind}\r\n{size}\r\nExpect: a miracle")
    assert app.counted(202) == app.counted(413) == app.counted(401) == app.counted(417) == 1


async def test_every_answer_is_counted_by_its_code(app: Served) -> None:
    for body in (UPLOAD, UPLOAD, b"{}", b"nonsense"):
        await app.post(body)
    await app.post(UPLOAD, key=None)
    assert [app.counted(code) for code in (202, 422, 400, 401)] == [2, 1, 1, 1]
    assert 'eventsink_ingest_requests_total{code="202"} 2.0' in await (await app.get("/metrics")).text()
