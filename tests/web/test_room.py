"""What bodies may take of the memory, whoever sends them and however slowly."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.web.serving import UPLOAD, Served, problem, served
from web import bodies
from web.bodies import Room
from web.problems import Problem

#: Half of it is for what arrives slowly.
ROOM = 40_000


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(bodies, "Room", lambda: Room(ROOM))
    async with served(tmp_path) as running:
        yield running


async def begun(app: Served, sent: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request of whose body so much has come, and one byte will not."""
    reader, writer = await asyncio.open_connection(app.client.host, app.client.port)
    writer.write(
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAPI-KEY: {app.secrets['events']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {sent + 1}\r\n\r\n".encode()
    )
    await writer.drain()
    writer.write(b" " * sent)
    return reader, writer


async def test_bodies_that_come_slowly_are_bounded_all_together_and_keep_out_nobody_else(app: Served) -> None:
    connections = [await begun(app, 15_000) for _ in range(2)]
    firsts = [asyncio.ensure_future(reader.readline()) for reader, _ in connections]
    # The second one does not fit any more, in either order; the first goes on.
    done, waiting = await asyncio.wait(firsts, return_when=asyncio.FIRST_COMPLETED)
    assert [await each for each in done] == [b"HTTP/1.1 503 Service Unavailable\r\n"]
    assert len(waiting) == 1
    assert (await app.post(UPLOAD)).status == 202
    for _, writer in connections:
        writer.close()
        await writer.wait_closed()
    await asyncio.gather(*waiting)


async def test_who_is_turned_away_is_told_when_to_come_again(app: Served) -> None:
    response = await app.post(b" " * ROOM + UPLOAD)
    assert "a little later" in (await problem(response, 503))["detail"]
    assert int(response.headers["Retry-After"]) >= 1


async def test_what_is_inflated_counts_too(app: Served) -> None:
    body = gzip.compress(b" " * ROOM + UPLOAD)
    assert len(body) < ROOM // 100
    await problem(await app.post(body, content_encoding="gzip"), 503)


async def test_room_is_free_again_when_a_request_is_answered(app: Served) -> None:
    for _ in range(5):
        assert (await app.post(b" " * 15_000 + UPLOAD)).status == 202
        await problem(await app.post(b"x" * 15_000), 400)


def test_a_place_gives_back_what_it_took_also_where_there_was_no_room() -> None:
    room = Room(10)
    with room.place() as place:
        place.take(4)
        with pytest.raises(Problem):
            place.take(7)
    assert room.held_bytes == 0
    with room.place() as place:
        place.take(10)
        with pytest.raises(Problem), room.place() as other:
            other.take(1, arriving=True)
        assert room.held_bytes == 10


def test_a_mebibyte_of_blanks_before_an_item_is_passed_over() -> None:
    blanks = b" " * (bodies.MAX_BODY_BYTES - 20)
    assert bodies.items(b"[" + blanks + b"NaN, 1]", "application/json") == [b"NaN", b"1"]
